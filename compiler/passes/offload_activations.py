"""offload_activations: what the backward reads of the forward lies on the host between the two.

In: what one device runs, and which values go. Out: the same with an `offload` behind each and a `fetch` one block
before its first reader in the backward, so that the copy up runs beside that block. What the last block of a chain
makes is read at once and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from ..cost.roofline import VIEWS
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOCAL, STEP, Level
from ..ir.types import Node, Phase, Use
from ..ops.registry import REGISTRY
from ..recompute.block import GIVEN, Value

_EFFECTS = frozenset({"accumulate", "assign"})


def kept_for_later(graph: Graph) -> frozenset[Value]:
    """What the forward makes in a block that is not its chain's last, and the backward reads."""
    last: dict[str, int] = {}
    for node in graph:
        if node.layer is not None:
            last[node.layer.chain] = max(last.get(node.layer.chain, 0), node.layer.index)
    asked = {use.value for use in graph.outputs.values()}
    read = {use.value for node in graph if node.phase is Phase.BACKWARD for use in node.uses}
    return frozenset(value for value in read - asked if _may_go(graph[value[0]], last))


def _may_go(node: Node, last: dict[str, int]) -> bool:
    if node.phase is not Phase.FORWARD or node.layer is None or node.host or node.op not in REGISTRY:
        return False
    return node.layer.index < last[node.layer.chain] and node.op not in VIEWS | GIVEN | _EFFECTS


def cheaper_to_move(graph: Graph, seconds: Callable[[Node], float], link_bytes_per_s: float) -> frozenset[Value]:
    """Of these, what goes down and comes up in less time than it takes to make it again from what else is kept."""
    values = kept_for_later(graph)
    kept = {use.node for node in graph if node.phase is Phase.BACKWARD for use in node.uses}

    def again(node: Node) -> float:
        found, pending, seen = 0.0, [node], set[str]()
        while pending:
            one = pending.pop()
            if one.id not in seen:
                seen.add(one.id)
                found += seconds(one)
                sources = (graph[use.node] for use in one.uses)
                pending += [s for s in sources if s.phase is Phase.FORWARD and s.op not in GIVEN and s.id not in kept]
        return found

    def moved(value: Value) -> float:
        out = graph[value[0]].outs[value[1]]
        size = out.dtype.itemsize_bytes
        for dim in out.dims:
            size *= dim.size or 1
        return 2 * size / link_bytes_per_s

    return frozenset(value for value in values if moved(value) < again(graph[value[0]]))


@dataclass(frozen=True)
class OffloadActivations:
    """values: of the forward, that lie on the host until the backward reads them (see `kept_for_later`)."""

    values: frozenset[Value] = frozenset()

    name: ClassVar[str] = "offload_activations"
    levels: ClassVar[tuple[Level, ...]] = (STEP, LOCAL)
    gives: ClassVar[Level | None] = LOCAL
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        order = [node for node in graph if node.phase is not Phase.UPDATE]
        comes = _places(order, self.values)
        builder = GraphBuilder.rewriting(graph)
        down: dict[Value, Use] = {}
        up: dict[Value, Use] = {}
        for node in graph:
            for value in comes.get(node.id, ()):
                source = builder[value[0]]
                moved = _move(builder, source, down[value], "fetch", Phase.BACKWARD)
                up[value] = builder.add(replace(moved, layer=None)).out()
            uses = node.uses
            if node.phase is Phase.BACKWARD:
                uses = tuple(replace(up[use.value], dims=use.dims) if use.value in up else use for use in uses)
            builder.add(replace(node, uses=uses))
            for output in range(len(node.outs)):
                if (node.id, output) in self.values:
                    use = builder[node.id].out(output)
                    down[node.id, output] = builder.add(_move(builder, node, use, "offload", Phase.FORWARD)).out()
        for name, use in graph.outputs.items():
            builder.output(name, use)
        for key, body in graph.bodies.items():
            builder.body(key, body)
        return builder.finish()


def _move(builder: GraphBuilder, source: Node, use: Use, op: str, phase: Phase) -> Node:
    name = builder.fresh(f"{op}/{use.node if op == 'offload' else source.id}")
    host = op == "offload"
    return Node(
        name,
        op,
        (use,),
        (use.type,),
        phase=phase,
        path=source.path,
        layer=source.layer,
        origin=source.origin,
        host=host,
    )


def _places(order: list[Node], values: frozenset[Value]) -> dict[str, list[Value]]:
    """Before which node of the backward each value comes up: the first of the block before its first reader's."""
    starts: list[str] = []  # the first nodes of the runs of a layer, or of what lies between layers
    found: dict[str, list[Value]] = {}
    seen: set[Value] = set()
    before: object = ()
    for node in order:
        if node.phase is not Phase.BACKWARD:
            continue
        if not starts or node.layer != before:
            starts.append(node.id)
            before = node.layer
        for use in node.uses:
            if use.value in values and use.value not in seen:
                seen.add(use.value)
                found.setdefault(starts[-2] if len(starts) > 1 else starts[-1], []).append(use.value)
    return found
