"""offload_activations: what the backward reads of the forward lies on the host between the two.

In: what one device runs, and which values go. Out: the same with an `offload` behind each and a `fetch` one block
before its first reader in the backward, so that the copy up runs beside that block. What the last block of a chain
makes or reads again is read at once and stays. Of a pipeline's stage nodes are in parts: what a stage was sent goes
down too, behind its first reader; what the first block of a part reads comes up before the part (`Moved.early`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..cost.hosted import WHOLE, Parts, Value, goes_behind
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOCAL, STEP, Level
from ..ir.types import Layer, Node, Phase, Use


@dataclass(frozen=True, slots=True)
class Moved:
    """The graph; of each `offload` and `fetch` the node that it goes with, and so its part; of those in `early`, which
    belong in front of that part, those that its first block reads."""

    graph: Graph
    beside: Mapping[str, str]
    early: frozenset[str]


@dataclass(frozen=True)
class OffloadActivations:
    """values: of the forward, that lie on the host until the backward reads them (see `cost/hosted.py`)."""

    values: frozenset[Value] = frozenset()

    name: ClassVar[str] = "offload_activations"
    levels: ClassVar[tuple[Level, ...]] = (STEP, LOCAL)
    gives: ClassVar[Level | None] = LOCAL
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        return moved(graph, self.values).graph


def moved(graph: Graph, values: frozenset[Value], parts: Parts = WHOLE) -> Moved:
    """The graph, where values (see `cost/hosted.py`) go down behind their makers and come up for their readers."""
    comes, goes = _places(graph, values, parts), _goes(graph, values, parts)
    builder = GraphBuilder.rewriting(graph)
    down: dict[Value, Use] = {}
    up: dict[Value, list[tuple[int, Use]]] = {}  # by the part that it comes for
    beside: dict[str, str] = {}
    early: set[str] = set()

    def there(use: Use, reader: Node) -> Use:
        part = parts.part(reader)
        found = [one for of, one in up.get(use.value, ()) if parts.reaches(of, part)]
        return replace(found[0], dims=use.dims) if found else use

    for node in graph:
        for value, first in comes.get(node.id, ()):
            made = builder.add(_move(builder, builder[value[0]], down[value], Phase.BACKWARD, None))
            up.setdefault(value, []).append((parts.part(node), made.out()))
            beside[made.id] = node.id
            early.update([made.id] if first else [])
        backward = node.phase is Phase.BACKWARD
        builder.add(replace(node, uses=tuple(there(use, node) for use in node.uses)) if backward else node)
        for value in goes.get(node.id, ()):
            source = builder[value[0]]
            made = builder.add(_move(builder, source, source.out(value[1]), Phase.FORWARD, node.layer))
            down[value], beside[made.id] = made.out(), node.id
    return Moved(builder.finish(graph.outputs, graph.bodies), beside, frozenset(early))


def _move(builder: GraphBuilder, source: Node, use: Use, phase: Phase, layer: Layer | None) -> Node:
    """Down in the forward, up in the backward."""
    host = phase is Phase.FORWARD
    op = "offload" if host else "fetch"
    name = builder.fresh(f"{op}/{source.id}")
    return Node(
        name, op, (use,), (use.type,), phase=phase, path=source.path, layer=layer, origin=source.origin, host=host
    )


def _goes(graph: Graph, values: frozenset[Value], parts: Parts) -> dict[str, list[Value]]:
    """Behind which node of the forward each value goes down."""
    found: dict[str, list[Value]] = {}
    for value, at in goes_behind(graph, parts).items():
        if value in values:
            found.setdefault(at.id, []).append(value)
    return found


def _places(graph: Graph, values: frozenset[Value], parts: Parts) -> dict[str, list[tuple[Value, bool]]]:
    """Before which node of the backward each value comes up: the first of the block before its first reader's; and
    whether there is none in the reader's part, so that it is to come before the part begins."""
    starts: list[str] = []  # in this part the first nodes of the runs of a layer, or of what lies between layers
    found: dict[str, list[tuple[Value, bool]]] = {}
    seen: dict[Value, list[int]] = {}  # the parts that each comes for
    before: tuple[int, Layer | None] | None = None
    for node in graph:
        if node.phase is not Phase.BACKWARD:
            continue
        run = (parts.part(node), node.layer)
        if run != before:
            same = before is not None and before[0] == run[0]
            starts = [*starts, node.id] if same else [node.id]
            before = run
        for use in node.uses:
            here = seen.setdefault(use.value, []) if use.value in values else [run[0]]
            if not any(parts.reaches(part, run[0]) for part in here):
                here.append(run[0])
                first = len(starts) == 1
                found.setdefault(starts[-1] if first else starts[-2], []).append((use.value, first))
    return found
