"""offload_activations: what the backward reads of the forward lies on the host between the two.

In: what one device runs, and which values go. Out: the same with an `offload` behind each and a `fetch` one block
before its first reader in the backward, so that the copy up runs beside that block. What the last block of a chain
makes or reads again is read at once and stays. Of a pipeline's stage nodes are in parts: what a stage was sent goes
down too, behind its first reader; what the first block of a part reads comes up before the part (`Moved.early`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..cost.roofline import VIEWS
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOCAL, STEP, Level
from ..ir.types import Layer, Node, Phase, Use
from ..ops.registry import REGISTRY
from ..ops.shapes import elements
from ..recompute.block import GIVEN, Value
from ..schedule.messages import RECEIVE, SEND

_EFFECTS = frozenset({"accumulate", "assign"})
NO_PART = -1


@dataclass(frozen=True, slots=True)
class Parts:
    """of, ranks: the part of a microbatch's work that each node of a stage is in, and the orders in which microbatches
    go through the parts (see `schedule/stages.py`).
    soon: the forward parts behind which a microbatch goes backward at once: what their last blocks make stays."""

    of: Mapping[str, int] = field(default_factory=dict[str, int])
    ranks: tuple[tuple[int, ...], ...] = ()
    soon: frozenset[int] = frozenset({NO_PART})

    def part(self, node: Node) -> int:
        """Of a graph that is no stage's, all nodes are in one."""
        return self.of.get(node.id, NO_PART)

    def reaches(self, part: int, other: int) -> bool:
        """Whether what is there in a part is there in another, whichever microbatch it is."""
        return part == other or all(rank[part] < rank[other] for rank in self.ranks)


WHOLE = Parts()


@dataclass(frozen=True, slots=True)
class Moved:
    """The graph; of each `offload` and `fetch` the node that it goes with, and so its part; of those in `early`, which
    belong in front of that part, those that its first block reads."""

    graph: Graph
    beside: Mapping[str, str]
    early: frozenset[str]


# ---- which


def kept_for_later(graph: Graph, parts: Parts = WHOLE) -> frozenset[Value]:
    """What the forward makes in a block that is not read at once, or is sent, and the backward reads."""
    return frozenset(_where_made(graph, parts))


def _where_made(graph: Graph, parts: Parts) -> dict[Value, Node]:
    """Of each such value the node of a block behind which it may go: its own, or of what came the first that reads."""
    last: dict[tuple[str, int], int] = {}
    reader: dict[str, Node] = {}
    for node in graph:
        if node.phase is Phase.FORWARD and node.layer is not None:
            key = (node.layer.chain, parts.part(node))
            last[key] = max(last.get(key, 0), node.layer.index)
            for use in node.uses:
                reader.setdefault(use.node, node)
    at_once = {Layer(chain, index) for (chain, part), index in last.items() if part in parts.soon}
    sent = {use.value for node in graph.nodes(SEND) if node.phase is Phase.BACKWARD for use in node.uses}
    stays = sent | {use.value for use in graph.outputs.values()}
    found: dict[Value, Node] = {}
    for node in graph:
        for use in node.uses if node.phase is Phase.BACKWARD else ():
            source = graph[use.node]
            at = reader.get(use.node) if source.op == RECEIVE else source
            if at is None or at.layer is None or at.layer in at_once or node.layer in at_once:
                stays.add(use.value)
            elif use.value not in stays and _may_go(source):
                found[use.value] = at
    return {value: at for value, at in found.items() if value not in stays}


def _may_go(source: Node) -> bool:
    if source.phase is not Phase.FORWARD or source.host:
        return False
    return source.op == RECEIVE or (source.op in REGISTRY and source.op not in VIEWS | GIVEN | _EFFECTS)


def cheaper_to_move(
    graph: Graph, seconds: Callable[[Node], float], link_bytes_per_s: float, parts: Parts = WHOLE
) -> frozenset[Value]:
    """Of these, what goes down and comes up in less time than it takes to make it again from what else is kept.

    What was sent cannot be made again where it came.
    """
    values = kept_for_later(graph, parts)
    kept = {use.node for node in graph if node.phase is Phase.BACKWARD for use in node.uses}

    def again(node: Node) -> float:
        found, pending, seen = 0.0, [node], set[str]()
        while pending:
            one = pending.pop()
            if one.id not in seen:
                seen.add(one.id)
                found += math.inf if one.op == RECEIVE else seconds(one)
                sources = (graph[use.node] for use in one.uses)
                pending += [s for s in sources if s.phase is Phase.FORWARD and s.op not in GIVEN and s.id not in kept]
        return found

    def moved(value: Value) -> float:
        out = graph[value[0]].outs[value[1]]
        return 2 * elements(out.dims) * out.dtype.itemsize_bytes / link_bytes_per_s

    return frozenset(value for value in values if moved(value) < again(graph[value[0]]))


# ---- how


@dataclass(frozen=True)
class OffloadActivations:
    """values: of the forward, that lie on the host until the backward reads them (see `kept_for_later`)."""

    values: frozenset[Value] = frozenset()

    name: ClassVar[str] = "offload_activations"
    levels: ClassVar[tuple[Level, ...]] = (STEP, LOCAL)
    gives: ClassVar[Level | None] = LOCAL
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        return moved(graph, self.values).graph


def moved(graph: Graph, values: frozenset[Value], parts: Parts = WHOLE) -> Moved:
    """The graph, where values (see `kept_for_later`) go down behind their makers and come up for their readers."""
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
    for name, use in graph.outputs.items():
        builder.output(name, use)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return Moved(builder.finish(), beside, frozenset(early))


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
    for value, at in _where_made(graph, parts).items():
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
