"""The reference on a mesh: every device's own graph in numpy, node by node together, collectives as sums of lists.

In: each device's graph and the whole values of the leaves. Out: whole outputs and writes, put together from the
devices' parts. Exact and in the order of ranks: what a partition is held to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .interpret import Run, Trace, Values, initial_value
from .ir.graph import Graph
from .ir.layout import Coordinate, Layout, Mesh, Reduction, chunk
from .ir.types import Dim, Dims, Node, Phase
from .ops import attributes
from .ops.collectives import COLLECTIVES, changes
from .ops.definition import Array
from .ops.shapes import elements

_TOGETHER = COLLECTIVES | {"shard", "spread"}  # what needs to know the devices' places

Parts = dict[Coordinate, Array]
Local = Mapping[Coordinate, tuple[Graph, Mapping[str, int]]]  # each device's graph, and where its parts begin


def interpret_mesh(
    graph: Graph, mesh: Mesh, local: Local, inputs: Values, *, microbatches: Sequence[Values] | None = None,
    batch: str = "batch",
) -> dict[str, Array]:  # fmt: skip
    """Run one step on all devices of the mesh.

    graph   the partitioned graph, whose layouts say how leaves are cut and outputs put together
    inputs, microbatches, batch   as `interpret` takes them, whole
    """
    return _Mesh(graph, mesh, local, inputs, [{}] if microbatches is None else list(microbatches), batch).step()


def trace_mesh(
    graph: Graph, mesh: Mesh, local: Local, inputs: Values, *, microbatches: Sequence[Values] | None = None,
    batch: str = "batch",
) -> dict[Coordinate, Trace]:  # fmt: skip
    """The same, with every value of every device. A trace's results are the device's own writes, not put together."""
    run = _Mesh(graph, mesh, local, inputs, [{}] if microbatches is None else list(microbatches), batch, kept={})
    run.devices()
    assert run.kept is not None, "it was asked to keep them"
    return {c: Trace(one.assigned, [*run.kept[c][:-1], one.values]) for c, one in run.runs.items()}


@dataclass
class _Mesh:
    graph: Graph
    mesh: Mesh
    local: Local
    given: Values
    parts: list[Values]
    batch: str
    kept: dict[Coordinate, list[Mapping[tuple[str, int], Array]]] | None = None

    def step(self) -> dict[str, Array]:
        self.devices()
        return self._whole()

    def devices(self) -> None:
        """Runs them all."""
        cells = list(self.mesh.coordinates())
        given = {c: {**self._own(c, self.given), **self._starts(c, 0)} for c in cells}
        self.runs = {c: Run(self.local[c][0], given[c], len(self.parts), "") for c in cells}
        ids = [[node.id for node in run.graph] for run in self.runs.values()]
        assert all(one == ids[0] for one in ids), "the devices' graphs have the same nodes"
        self._run(Phase.PREPARE)
        for number, values in enumerate(self.parts):
            for c, run in self.runs.items():
                run.part, run.now = number, {**self._own(c, values), **self._starts(c, number)}
            self._run(Phase.FORWARD, Phase.BACKWARD)
            for c, run in self.runs.items():
                if self.kept is not None:
                    self.kept.setdefault(c, []).append(dict(run.values))
                run.values.update({(target, 0): value for target, value in run.assigned.items()})
        self._run(Phase.UPDATE)

    def _starts(self, c: Coordinate, number: int) -> dict[str, object]:
        """A part of the batch begins where its microbatch does, and there where the device's part does."""
        rows = next((d.size or 0 for d in self.graph.dims().values() if d.name == self.batch), 0)
        return {
            f"start.{name}": begin + (number * rows if name.partition("/")[0] == self.batch else 0)
            for name, begin in self.local[c][1].items()
        }

    def _own(self, c: Coordinate, values: Values) -> dict[str, object]:
        """A device's parts of the leaves."""
        found: dict[str, object] = {name: value for name, value in values.items() if name in ("step", "seed")}
        for node in self.graph:
            if node.op not in ("parameter", "state", "input"):
                continue
            names = (node.id, attributes.text(node.attrs, "name")) if node.op == "input" else (node.id,)
            name = next((one for one in names if one in values), None)
            if name is None and (node.op == "input" or values is not self.given):
                continue
            seed = int(np.asarray(self.given.get("seed", 0)))
            whole = initial_value(node, seed) if name is None else np.asarray(values[name])
            found[node.id] = whole[node.layouts[0].slices(node.outs[0].dims, self.mesh, c)]
        return found

    def _run(self, *phases: Phase) -> None:
        for nodes in zip(*(run.graph for run in self.runs.values()), strict=True):
            if nodes[0].phase not in phases and nodes[0].op != "start":
                continue
            if nodes[0].op in _TOGETHER:
                self._collective(dict(zip(self.runs, nodes, strict=True)))
            else:
                for run, node in zip(self.runs.values(), nodes, strict=True):
                    run.visit(node)

    # ---- collectives

    def _collective(self, nodes: Mapping[Coordinate, Node]) -> None:
        for group in self._groups(attributes.text(next(iter(nodes.values())).attrs, "axis")):
            operands = [[self.runs[c].values[use.value] for use in nodes[c].uses] for c in group]
            for c, value in zip(group, joined([nodes[c] for c in group], operands), strict=True):
                self.runs[c].values[nodes[c].id, 0] = value

    def _groups(self, axis: str) -> Iterator[list[Coordinate]]:
        """The devices that differ along one axis only, in the order of ranks."""
        along = set(map(self.mesh.order, self.mesh.members(axis)))
        groups: dict[Coordinate, list[Coordinate]] = {}
        for c in self.runs:
            groups.setdefault(tuple(place for at, place in enumerate(c) if at not in along), []).append(c)
        yield from groups.values()

    # ---- whole values

    def _whole(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, use in self.graph.outputs.items():
            local = {c: run.values[run.graph.outputs[name].value] for c, run in self.runs.items()}
            found[name] = together(self.graph[use.node].layouts[use.output], use.dims, self.mesh, local)
        for target in next(iter(self.runs.values())).assigned:
            node = self.graph[target]
            local = {c: run.assigned[target] for c, run in self.runs.items()}
            found[target] = together(node.layouts[0], node.outs[0].dims, self.mesh, local)
        return found


def together(layout: Layout, dims: Dims, mesh: Mesh, parts: Parts) -> Array:
    """The whole value of every device's part; devices that hold the same must hold the same."""
    assert not layout.partial, "an output owes nothing"
    whole = np.zeros([elements((d,)) for d in dims], dtype=next(iter(parts.values())).dtype)
    seen: dict[tuple[tuple[int, int], ...], Array] = {}
    for c in mesh.coordinates():
        where = layout.slices(dims, mesh, c)
        first = seen.setdefault(tuple((s.start, s.stop) for s in where), parts[c])
        assert np.array_equal(first, parts[c], equal_nan=True) or np.allclose(
            first, parts[c], rtol=1e-9, atol=1e-9, equal_nan=True
        ), "devices that hold the same value differ"
        whole[where] = parts[c]
    return whole


def joined(nodes: Sequence[Node], operands: Sequence[Sequence[Array]]) -> list[Array]:
    """What each device of a group has after a collective, in the order of ranks."""
    first, count, values = nodes[0], len(nodes), [mine[0] for mine in operands]
    match first.op:
        case "all_reduce":
            total = _reduced(first, values)
            return [total] * count
        case "reduce_scatter":
            total = _reduced(first, values)
            return [_chunk(total, _axis(first, "dim"), count, i) for i in range(count)]
        case "all_gather":
            whole = np.concatenate(values, axis=_axis(first, "dim"))
            return [whole] * count
        case "shard" | "spread" if len(operands[0]) > 1:
            return [_own(node, mine, count, i) for i, (node, mine) in enumerate(zip(nodes, operands, strict=True))]
        case "shard":
            return [_chunk(value, _axis(first, "dim"), count, i) for i, value in enumerate(values)]
        case "all_to_all":
            if any(dim.runs is not None for pair in changes(first) for dim in pair):
                return exchanged(nodes, operands)
            split, join = _axis(first, "split"), _axis(first, "join")
            return [np.concatenate([_chunk(v, split, count, i) for v in values], axis=join) for i in range(count)]
        case _:
            raise AssertionError(f"{first.op} is no collective")


def _own(node: Node, operands: Sequence[Array], count: int, index: int) -> Array:
    """A device's sorted rows out of the whole, in front; or where they belong in a whole of zeros."""
    (old, new), (x, ids) = changes(node)[0], operands
    rows = old if node.op == "shard" else new
    assert rows.runs is not None, f"{node.id}: what is not sorted is cut by the chunk rule"
    by = elements((rows.runs.by,))
    low, high = chunk(by, count, index)
    mine = (ids >= low) & (ids < high)
    beside = by if node.op == "shard" and node.uses[0].value == node.uses[1].value else 0
    found = np.full([elements((dim,)) for dim in node.outs[0].dims], beside, x.dtype)
    for here in np.ndindex(ids.shape[:-1]):
        if node.op == "shard":
            found[here][: mine[here].sum()] = x[here][mine[here]]
        else:
            found[here][mine[here]] = x[here][: mine[here].sum()]
    return found


def exchanged(nodes: Sequence[Node], operands: Sequence[Sequence[Array]]) -> list[Array]:
    """Sorted rows sent to the devices that have what they are sorted by, or back."""
    first, count = nodes[0], len(nodes)
    (split, _), (join, join_into) = changes(first)
    rows, lists = (split, join) if split.runs is not None else (join_into, split)
    assert rows.runs is not None, "rows are whole before or after"
    by, at = elements((rows.runs.by,)), first.uses[0].dims.index(lists)
    away = rows == split
    own = [mine[(0 if len(mine) == 1 else 1) if away else 2] for mine in operands]
    ids = np.concatenate(own, axis=at)  # of all lists
    parts = [(ids >= low) & (ids < high) for low, high in (chunk(by, count, i) for i in range(count))]
    if not away:
        found = np.zeros(ids.shape + operands[0][0].shape[ids.ndim :], operands[0][0].dtype)
        for (x, *_), part in zip(operands, parts, strict=True):
            for here in np.ndindex(ids.shape[:-1]):
                found[here][part[here]] = x[here][: part[here].sum()]
        return [_chunk(found, at, count, i) for i in range(count)]
    values = np.concatenate([mine[0] for mine in operands], axis=at)
    results: list[Array] = []
    for node, part in zip(nodes, parts, strict=True):
        shape = [elements((dim,)) for dim in node.outs[0].dims]
        result = np.full(shape, by if len(operands[0]) == 1 else 0, values.dtype)
        for here in np.ndindex(ids.shape[:-1]):
            result[here][: part[here].sum()] = values[here][part[here]]
        results.append(result)
    return results


def _reduced(node: Node, values: Sequence[Array]) -> Array:
    how = Reduction(attributes.text(node.attrs, "reduction"))
    assert how is not Reduction.LSE, f"{node.id}: a log-sum-exp is joined by a maximum and a sum"
    found = values[0]
    for value in values[1:]:
        found = found + value if how is Reduction.SUM else np.maximum(found, value)
    return found


def _axis(node: Node, name: str) -> int:
    dim: Dim = attributes.dim(node.attrs, name)
    return node.uses[0].dims.index(dim)


def _chunk(value: Array, axis: int, count: int, index: int) -> Array:
    low, high = chunk(value.shape[axis], count, index)
    return value.take(range(low, high), axis=axis)
