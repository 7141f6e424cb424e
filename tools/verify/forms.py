"""The forms that a step takes, each run by the reference: a graph for one device, or a device's graph for each.

In: a graph of any level and the leaves. Out: every value that it computes. A form compares itself with the one before,
value by value, by the nodes' ids, which passes keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...compiler.interpret import Trace, trace
from ...compiler.interpret_mesh import trace_mesh
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Coordinate, Layout, Mesh, Reduction
from ...compiler.ir.types import Node, Phase, Use
from ...compiler.ops.definition import Array
from ...compiler.passes.localize import localized, starts
from .values import Gap, Leaves, Value, distance, microbatches_of, noisy, parts_apart, somewhere, worst

_PER_MICROBATCH = (Phase.FORWARD, Phase.BACKWARD)


@dataclass(frozen=True)
class Alone:
    """A graph on one device, run: `name` is the pass that made it."""

    name: str
    graph: Graph
    leaves: Leaves

    @cached_property
    def trace(self) -> Trace:
        """All of its values."""
        return _traced(self.graph, self.leaves)

    @cached_property
    def _noise(self) -> list[Trace]:
        return [_traced(self.graph, noisy(self.leaves, seed)) for seed in range(3)]

    def spread(self, value: Value) -> float:
        """How far noise in the last bit of the leaves moves a value."""
        once = [one.parts[-1][value] for one in self._noise]
        return max(distance(one, self.trace.parts[-1][value]) for one in once)

    def parts(self, value: Value) -> list[Array]:
        """A value in each microbatch, or the one that there is in a step."""
        return values_of(self.trace, self.graph[value[0]], value)

    def gap(self, value: Value, before: Alone) -> Gap | None:
        """How far a value, which both have, is from the form before; None where they cannot be compared."""
        return self.gap_to(value, before.parts(value), value)

    def gap_to(self, value: Value, wanted: Sequence[Array], name: Value) -> Gap | None:
        """How far a value is from what the form before has under a name."""
        return parts_apart(self.parts(value), wanted, name)


def values_of(found: Trace, node: Node, value: Value) -> list[Array]:
    """A value in each microbatch; once, if it is made once a step."""
    each = node.phase in _PER_MICROBATCH and node.op != "accumulate"
    return [part[value] for part in (found.parts if each else found.parts[-1:])]


def _traced(graph: Graph, leaves: Leaves) -> Trace:
    parts = microbatches_of(graph, leaves)
    return trace(graph, _outside(leaves, parts), microbatches=parts)


def _outside(leaves: Leaves, parts: Sequence[Mapping[str, Array]] | None) -> dict[str, object]:
    """The leaves that all microbatches share."""
    return {name: value for name, value in leaves.items() if parts is None or name not in parts[0]}


# ---- all devices of a mesh


@dataclass(frozen=True)
class OnMesh:
    """A partitioned graph on every device of its mesh, each with its own graph, collectives as sums of lists."""

    name: str
    graph: Graph
    mesh: Mesh
    leaves: Leaves

    @cached_property
    def local(self) -> dict[Coordinate, tuple[Graph, Mapping[Value, Use]]]:
        """Each device's graph, and what stands there for the values of nodes that became others."""
        return {c: localized(self.graph, self.mesh, c) for c in self.mesh.coordinates()}

    @cached_property
    def traces(self) -> dict[Coordinate, Trace]:
        """All values of all devices."""
        parts = microbatches_of(self.graph, self.leaves)
        local = {c: (one, starts(one, self.graph, self.mesh, c)) for c, (one, _) in self.local.items()}
        return trace_mesh(self.graph, self.mesh, local, _outside(self.leaves, parts), microbatches=parts)

    def parts(self, value: Value, at: int) -> dict[Coordinate, Array] | None:
        """What each device has of a value in a microbatch (-1: at the end); None where it has no such value."""
        found: dict[Coordinate, Array] = {}
        for c, one in self.traces.items():
            instead = self.local[c][1].get(value)
            values = one.parts[at]
            here = value if instead is None else instead.value
            if here not in values:
                return None
            found[c] = values[here]
        return found

    def gap(self, value: Value, before: Alone) -> Gap | None:
        """The worst device's part against the same part of the whole value."""
        return self.gap_to(value, before.parts(value), value)

    def gap_to(self, value: Value, wanted: Sequence[Array], name: Value) -> Gap | None:
        """How far a value is from what the form before has under a name."""
        node = self.graph[value[0]]
        layout, dims = node.layouts[value[1]], node.outs[value[1]].dims
        gaps: list[Gap] = []
        for number, whole in enumerate(wanted):
            parts = self.parts(value, number if len(wanted) > 1 else -1)
            if parts is None or len(whole.shape) != len(dims):
                return None
            for c, part in joined(layout, self.mesh, parts):
                mine = whole[layout.slices(dims, self.mesh, c)]
                gaps.append(somewhere(Gap(name, distance(part, mine), mine, part), f"device {_place(self.mesh, c)}"))
        return worst(gaps)


def joined(layout: Layout, mesh: Mesh, parts: Mapping[Coordinate, Array]) -> Iterator[tuple[Coordinate, Array]]:
    """What devices hold, terms joined: one for each group of devices that hold terms of the same."""
    owed = [mesh.order(axis) for axis, _ in layout.partial]
    groups: dict[Coordinate, list[Array]] = {}
    for c, part in parts.items():
        groups.setdefault(tuple(0 if at in owed else place for at, place in enumerate(c)), []).append(part)
    how = layout.partial[0][1] if layout.partial else Reduction.SUM
    for c, terms in groups.items():
        yield c, terms[0] if len(terms) == 1 else _reduced(how, np.stack(terms))


def _reduced(how: Reduction, terms: Array) -> Array:
    if how is Reduction.SUM:
        return terms.sum(0)
    return terms.max(0) if how is Reduction.MAX else np.logaddexp.reduce(terms, 0)


def _place(mesh: Mesh, c: Coordinate) -> str:
    return " ".join(f"{axis} {place}" for axis, place in zip(mesh.names, c, strict=True))


Form = Alone | OnMesh
