"""What a step may lay on its host from forward to backward, and what of it is worth the two copies.

In: what one device runs, of a pipeline with the parts of its stage. Out: values. A value goes where no block that goes
back at once makes it or reads it, no view of it is kept, and its two copies take less time than making it again from
what else is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.levels import RECEIVE, SEND
from ..ir.types import Layer, Node, Phase
from ..ops.registry import REGISTRY
from ..ops.shapes import elements
from .host import Host
from .memory import GIVEN, LITERALS, STORED, Value
from .roofline import VIEWS, Machine, node_time

_GIVEN = GIVEN | LITERALS | STORED
_STAYS = _GIVEN | VIEWS | {"accumulate", "assign"}
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


def kept_for_later(graph: Graph, parts: Parts = WHOLE) -> frozenset[Value]:
    """What the forward makes in a block that is not read at once, or is sent, and the backward reads."""
    return frozenset(goes_behind(graph, parts))


def goes_behind(graph: Graph, parts: Parts) -> dict[Value, Node]:
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
    seen: dict[Value, Value] = {}  # whose memory a view is of
    found: dict[Value, Node] = {}
    for node in graph:
        if node.op in VIEWS and node.uses and node.phase is Phase.FORWARD:
            seen |= {(node.id, i): seen.get(node.uses[0].value, node.uses[0].value) for i in range(len(node.outs))}
        for use in node.uses if node.phase is Phase.BACKWARD else ():
            source = graph[use.node]
            stays.update([seen[use.value]] if use.value in seen else [])
            at = reader.get(use.node) if source.op == RECEIVE else source
            if at is None or at.layer is None or at.layer in at_once or node.layer in at_once:
                stays.add(use.value)
            elif use.value not in stays and _may_go(source):
                found[use.value] = at
    return {value: at for value, at in found.items() if value not in stays}


def _may_go(source: Node) -> bool:
    if source.phase is not Phase.FORWARD or source.host:
        return False
    return source.op == RECEIVE or (source.op in REGISTRY and source.op not in _STAYS)


def cheaper_to_move(graph: Graph, machine: Machine, host: Host, parts: Parts = WHOLE) -> frozenset[Value]:
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
                found += math.inf if one.op == RECEIVE else node_time(one, machine).seconds
                sources = (graph[use.node] for use in one.uses)
                pending += [s for s in sources if s.phase is Phase.FORWARD and s.op not in _GIVEN and s.id not in kept]
        return found

    def moved(value: Value) -> float:
        out = graph[value[0]].outs[value[1]]
        return 2 * elements(out.dims) * out.dtype.itemsize_bytes / host.link_bytes_per_s

    return frozenset(value for value in values if moved(value) < again(graph[value[0]]))
