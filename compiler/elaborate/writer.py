"""Where elaboration writes nodes: a list with unique ids, apart from the leaves that a whole graph shares.

A `Writer` makes one graph (the model, or a kernel function's body). `capture` diverts what is written into a `Region`
of its own, so that a chain can elaborate a layer once and stamp it. A `BuildWriter` writes through a pass's `Build`
instead.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Dim, DType, Layer, Node, Origin, Phase, TensorType, Use
from ..ops.definition import Build, TypeRuleError
from ..ops.registry import REGISTRY


@dataclass(slots=True)
class Region:
    """Nodes in order, and what was exported among them."""

    nodes: list[Node] = field(default_factory=list[Node])
    taps: list[tuple[str, str, Use]] = field(default_factory=list[tuple[str, str, Use]])  # name, path, value


@dataclass(frozen=True, slots=True)
class Place:
    """What a new node says about where it belongs."""

    path: str
    origin: tuple[Origin, ...]
    layer: Layer | None = None


class DimNames:
    """Gives out dims whose names are unique in a graph: `K`, else `blocks.attn.K`, else `blocks.attn.K.1`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, name: str) -> None:
        """Keep a name from being given out."""
        self._taken.add(name)

    def fresh(self, name: str, size: int | None, path: str = "") -> Dim:
        wanted = name if name not in self._taken else f"{path}.{name}" if path else name
        chosen, number = wanted, 0
        while chosen in self._taken:
            number += 1
            chosen = f"{wanted}.{number}"
        self._taken.add(chosen)
        return Dim(chosen, size)


class ScaledDims:
    """Dims made of others by * and /. Wherever it is written, `Y / 2` is one dim, and `Y / 2 * 2` is Y again."""

    def __init__(self) -> None:
        self._made: dict[tuple[Dim, Fraction], Dim] = {}
        self._of: dict[Dim, tuple[Dim, Fraction]] = {}

    def origin(self, dim: Dim) -> tuple[Dim, Fraction]:
        """What a dim is made of, and its share of it; itself, if nothing made it."""
        return self._of.get(dim, (dim, Fraction(1)))

    def find(self, root: Dim, share: Fraction) -> Dim | None:
        """The dim that is this share of another, if it is there already."""
        return root if share == 1 else self._made.get((root, share))

    def keep(self, dim: Dim, root: Dim, share: Fraction) -> None:
        """Remember a new one."""
        self._made[root, share] = dim
        self._of[dim] = (root, share)


class Output(Protocol):
    """What elaboration needs of the place that it writes to."""

    dims: DimNames
    limits: dict[tuple[str, int], Dim]  # ids -> the dim that they count in

    @property
    def taps(self) -> list[tuple[str, str, Use]]:
        """What is exported: name, path, value."""
        ...

    def write(
        self,
        op: str,
        uses: tuple[Use, ...],
        attrs: Mapping[str, Attr],
        hint: str | None,
        body: str | None,
        place: Place,
    ) -> tuple[Use, ...]:
        """Add a node. Raises TypeRuleError if the operands do not fit."""
        ...

    def start(self, dim: Dim) -> Use: ...

    def key(self, kind: str) -> Use:
        """`seed` or `step`, what randomness depends on."""
        ...

    def find(self, node_id: str) -> Node | None: ...

    def body(self, key: str, graph: Graph) -> None: ...


I64_SCALAR = TensorType((), DType.I64)


class Writer:
    """Makes a graph. `outside` holds, in a body, the dims whose starts and keys come in as inputs."""

    def __init__(self, dims: DimNames, outside: frozenset[Dim] | None = None) -> None:
        self.dims = dims
        self.limits: dict[tuple[str, int], Dim] = {}
        self.leaves: dict[str, Node] = {}
        self.parameters: list[Node] = []
        self.region = Region()
        self.bodies: dict[str, Graph] = {}
        self.outside = outside
        self._by_id: dict[str, Node] = {}
        self._suffix: dict[str, int] = {}

    @property
    def taps(self) -> list[tuple[str, str, Use]]:
        return self.region.taps

    @property
    def size(self) -> int:
        return len(self._by_id)

    def find(self, node_id: str) -> Node | None:
        return self._by_id.get(node_id)

    def fresh(self, wanted: str) -> str:
        """An id not taken yet."""
        if wanted not in self._by_id:
            return wanted
        number = self._suffix.get(wanted, 0) + 1
        while f"{wanted}.{number}" in self._by_id:
            number += 1
        self._suffix[wanted] = number
        return f"{wanted}.{number}"

    def add(self, node: Node) -> Node:
        """Append a node to the region that is open."""
        assert node.id not in self._by_id, f"node {node.id} is here already"
        self._by_id[node.id] = node
        self.region.nodes.append(node)
        return node

    def forget(self, nodes: list[Node]) -> None:
        """Give the ids of a captured region back."""
        for node in nodes:
            del self._by_id[node.id]

    def leaf(self, node: Node) -> Use:
        """A node that stands before all others: an input, a start, a key."""
        if node.id not in self.leaves:
            self.leaves[node.id] = self._by_id[node.id] = node
        return node.out()

    def parameter(self, node: Node) -> None:
        """A parameter's node; they stand before everything that is computed."""
        assert node.id not in self._by_id, f"parameter {node.id} is here already"
        self._by_id[node.id] = node
        self.parameters.append(node)

    def write(
        self,
        op: str,
        uses: tuple[Use, ...],
        attrs: Mapping[str, Attr],
        hint: str | None,
        body: str | None,
        place: Place,
    ) -> tuple[Use, ...]:
        definition = REGISTRY[op]
        assert attrs.keys() == definition.attrs.keys(), (
            f"{op} has the attributes {sorted(definition.attrs)}, got {attrs}"
        )
        outs = definition.infer(tuple(use.type for use in uses), attrs)
        name = self.fresh(f"{place.path}.{hint or op}" if place.path else hint or op)
        if "key" in attrs:
            attrs = {**attrs, "key": name}
        node = self.add(Node(name, op, uses, outs, attrs, Phase.FORWARD, body, place.path, place.layer, place.origin))
        return tuple(node.out(index) for index in range(len(outs)))

    def start(self, dim: Dim) -> Use:
        if self.outside is not None and dim in self.outside:
            return self.leaf(_input(f"start.{dim}", TensorType((), DType.I64)))
        return self.leaf(Node(f"start.{dim}", "start", (), (I64_SCALAR,), {"dim": dim}, Phase.PREPARE))

    def key(self, kind: str) -> Use:
        if self.outside is not None:
            return self.leaf(_input(kind, I64_SCALAR))
        return self.leaf(Node(kind, kind, (), (I64_SCALAR,), {}, Phase.PREPARE))

    def input(self, name: str, type_: TensorType, below: Dim | None = None) -> Use:
        """Data of a microbatch, or a body's argument."""
        return self.leaf(_input(name, type_, below))

    def body(self, key: str, graph: Graph) -> None:
        self.bodies[key] = graph

    @contextmanager
    def capture(self) -> Generator[Region]:
        """Write into a region apart."""
        kept, self.region = self.region, Region()
        try:
            yield self.region
        finally:
            self.region = kept

    def finish(self, name: str, outputs: Mapping[str, Use]) -> Graph:
        """The graph: leaves, parameters, then the nodes in order."""
        builder = GraphBuilder(name)
        builder.extend(self.leaves.values())
        builder.extend(self.parameters)
        builder.extend(self.region.nodes)
        for key, graph in self.bodies.items():
            builder.body(key, graph)
        for output, use in outputs.items():
            builder.output(output, use)
        return builder.finish()


def _input(name: str, type_: TensorType, below: Dim | None = None) -> Node:
    attrs: dict[str, Attr] = {"name": name, "below": below, "dims": type_.dims, "dtype": type_.dtype}
    return Node(name, "input", (), (type_,), attrs)


class BuildWriter:
    """Writes through a pass's `build`: an optimizer or a schedule called by name."""

    def __init__(self, build: Build, dims: DimNames, bodies: dict[str, Graph]) -> None:
        self.dims = dims
        self.limits: dict[tuple[str, int], Dim] = {}
        self._taps: list[tuple[str, str, Use]] = []
        self._build = build
        self._bodies = bodies

    def write(
        self,
        op: str,
        uses: tuple[Use, ...],
        attrs: Mapping[str, Attr],
        hint: str | None,
        body: str | None,
        place: Place,
    ) -> tuple[Use, ...]:
        REGISTRY[op].infer(tuple(use.type for use in uses), attrs)
        return self._build(op, *uses, hint=hint, body=body, **attrs)

    @property
    def taps(self) -> list[tuple[str, str, Use]]:
        return self._taps

    def start(self, dim: Dim) -> Use:
        return self._build("start", dim=dim)[0]

    def key(self, kind: str) -> Use:
        return self._build(kind)[0]

    def find(self, node_id: str) -> Node | None:
        return None

    def body(self, key: str, graph: Graph) -> None:
        assert self._bodies.get(key, graph) is graph, f"another body is called {key}"
        self._bodies[key] = graph


__all__ = ["BuildWriter", "DimNames", "Output", "Place", "Region", "TypeRuleError", "Writer"]
