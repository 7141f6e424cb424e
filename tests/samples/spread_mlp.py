"""The local graphs of a small training step on a mesh of `data` and `tensor`, written by hand, collectives and all.

Layers z = x + gelu(x·up)·down, split column then row over `tensor`; rows over `data`; a squared error; momentum. ZeRO 0
reduces whole gradients, 1 shards the update, 3 the parameters too (gathered before use, in the backward once more).
On a mesh without axes the very same graph is the whole computation: there every collective is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Layer, Phase, Use
from partita.compiler.lower.outside import Spread, Whole
from partita.compiler.ops.build import Builder
from partita.runtime.layout import Mesh, part

F64 = DType.F64


@dataclass(frozen=True)
class SpreadMLP:
    """What is written: whole sizes, how parameters lie, how many microbatches the rows come in."""

    mesh: Mesh
    zero: int = 0
    batch: int = 6
    width: int = 5
    hidden: int = 7
    layers: int = 2
    microbatches: int = 1

    def spread(self) -> tuple[Graph, Spread]:
        """The graph of rank 0, and how it lies on the mesh."""
        local = [_Writer(self, rank).write() for rank in range(self.mesh.size)]
        different: list[Graph] = []
        for graph in local:
            if graph not in different:
                different.append(graph)
        classes = tuple(different.index(graph) for graph in local)
        variants = tuple({"step": graph} for graph in different[1:])
        return local[0], Spread(self.mesh, {"step": self.wholes}, variants, classes if variants else ())

    @cached_property
    def wholes(self) -> dict[str, Whole]:
        """Of every leaf its global shape and layout."""
        rows = Whole((self.batch, self.width), self._layout(data=0))
        found = {"x": rows, "y": rows, "start.batch": Whole((self.batch,), self._layout(data=0))}
        for i in range(self.layers):
            for name, shape, at in (("up", (self.width, self.hidden), 1), ("down", (self.hidden, self.width), 0)):
                owned = self._layout(tensor=at, data=1 - at)
                found[f"blocks.{i}.{name}"] = Whole(shape, owned if self.zero == 3 else self._layout(tensor=at))
                found[f"m/blocks.{i}.{name}"] = Whole(shape, owned if self.zero else self._layout(tensor=at))
        return found

    def _layout(self, **cut: int) -> tuple[str, ...]:
        return tuple(f"shard:{cut[name]}" if name in cut else "replicate" for name in self.mesh.names)


class _Writer:
    """One device's graph."""

    def __init__(self, what: SpreadMLP, rank: int) -> None:
        self.what, self.rank = what, rank
        self.b = Builder(GraphBuilder("spread_mlp", what.microbatches))
        self.batch, self.d, self.f = (self.cut(*d) for d in (("batch", "data"), ("D", ""), ("F", "tensor")))
        self.own_d = self.cut("D", "data")
        self.grads: dict[str, Use] = {}
        self.tape: list[tuple[Use, Use, Use]] = []

    def cut(self, name: str, axis: str) -> Dim:
        """A dim, or this device's part of it over an axis."""
        size = {"batch": self.what.batch, "D": self.what.width, "F": self.what.hidden}[name]
        if axis not in self.what.mesh.names:
            return Dim(name, size)
        layout = tuple("shard:0" if n == axis else "replicate" for n in self.what.mesh.names)
        return Dim(f"{name}/{axis}", part((size,), layout, self.what.mesh, self.rank)[1][0])

    def write(self) -> Graph:
        b, rows = self.b, (self.batch, self.d)
        with b.within(phase=Phase.PREPARE):
            start = b.one("start", hint="start.batch", dim=self.batch)
        x, y = b.input("x", rows, F64), b.input("y", rows, F64)
        number = b.one("cast", b.one("index", start, hint="rows", dim=self.batch), to=F64)
        x = b.one("add", x, b.one("mul", number, b.constant(0.01, F64), hint="by_row"), hint="x0")
        for i in range(self.what.layers):
            x = self.layer(i, x)
        wrong = b.one("sub", x, y, hint="wrong")
        loss = b.one("dot", wrong, wrong, over=rows, hint="loss")
        loss = b.one("all_reduce", loss, axis="data", reduction="sum", hint="loss.all")
        b.output("loss", b.one("accumulate", loss, hint="loss.sum"))
        dx = b.one("mul", b.constant(2.0, F64), wrong, hint="dx")
        for i in reversed(range(self.what.layers)):
            dx = self.backward(i, dx)
        self.update()
        return b.finish()

    def parameter(self, i: int, name: str) -> Use:
        d = self.own_d if self.what.zero == 3 else self.d
        dims = (d, self.f) if name == "up" else (self.f, d)
        path = f"blocks.{i}.{name}"
        if path not in self.b.graph:
            self.b.parameter(path, dims, F64, ("normal", 0.3))
        return self.b.graph[path].out()

    def weight(self, i: int, name: str) -> Use:
        """A parameter as it is computed with: whole over `data`."""
        found = self.parameter(i, name)
        if self.what.zero == 3:
            found = self.b.one("all_gather", found, axis="data", dim=self.own_d, into=self.d, hint=f"{name}.whole")
        return found

    def layer(self, i: int, x: Use) -> Use:
        b = self.b
        with b.within(path=f"blocks.{i}", layer=Layer("blocks", i)):
            u = b.one("dot", x, self.weight(i, "up"), over=(self.d,), hint="u")
            h = b.one("gelu", u, hint="h")
            z = b.one("dot", h, self.weight(i, "down"), over=(self.f,), hint="z")
            z = b.one("all_reduce", z, axis="tensor", reduction="sum", hint="z.all")
            self.tape.append((x, u, h))
            return b.one("add", x, z, hint="y")

    def backward(self, i: int, dz: Use) -> Use:
        b, (x, u, h) = self.b, self.tape[i]
        with b.within(path=f"grad/blocks.{i}", layer=Layer("blocks", i), phase=Phase.BACKWARD):
            self.gradient(f"blocks.{i}.down", b.one("dot", h, dz, over=(self.batch,), hint="down"))
            dh = b.one("dot", dz, self.weight(i, "down"), over=(self.d,), hint="h")
            du = b.one("gelu_backward", dh, u, hint="u")
            self.gradient(f"blocks.{i}.up", b.one("dot", x, du, over=(self.batch,), hint="up"))
            dx = b.one("dot", du, self.weight(i, "up"), over=(self.f,), hint="x")
            dx = b.one("all_reduce", dx, axis="tensor", reduction="sum", hint="x.all")
            return b.one("add", dz, dx, hint="y")

    def gradient(self, path: str, g: Use) -> None:
        """Summed over `data` in each microbatch; from ZeRO 1 on a device keeps its part alone."""
        name = path.rpartition(".")[2]
        if self.what.zero:
            g = self.b.one(
                "reduce_scatter", g, axis="data", reduction="sum", dim=self.d, into=self.own_d, hint=f"{name}.part"
            )
        else:
            g = self.b.one("all_reduce", g, axis="data", reduction="sum", hint=f"{name}.all")
        self.grads[path] = self.b.one("accumulate", g, hint=f"{name}.sum")

    def update(self) -> None:
        b = self.b
        with b.within(phase=Phase.UPDATE, path="update"):
            rate, keep = b.constant(1e-3, F64), b.constant(0.9, F64)
            squares: list[Use] = []
            for path, g in self.grads.items():
                name = path.rpartition(".")[2]
                m = b.state(f"m/{path}", g.dims, F64, of=path)
                new = b.one("add", b.one("mul", keep, m), g, hint=f"{path}.m")
                old = own = b.graph[path].out()
                if self.what.zero == 1:
                    own = b.one("shard", old, axis="data", dim=self.d, into=self.own_d, hint=f"{path}.own")
                value = b.one("sub", own, b.one("mul", rate, new), hint=f"{path}.new")
                if self.what.zero == 1:
                    value = b.one("all_gather", value, axis="data", dim=self.own_d, into=self.d, hint=f"{name}.next")
                b.node("assign", value, target=path)
                b.node("assign", new, target=f"m/{path}")
                squares.append(b.one("dot", g, g, over=g.dims, hint="square"))
            total = b.one("add", *squares, hint="squares")
            if self.what.zero:
                total = b.one("all_reduce", total, axis="data", reduction="sum", hint="squares.data")
            total = b.one("all_reduce", total, axis="tensor", reduction="sum", hint="squares.tensor")
            b.output("grad_norm", b.one("sqrt", total))
