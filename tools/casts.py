"""Why a cast is there: read off a typed graph, from what reads the cast and by which rule.

In: a graph after `precision`. Out: for every cast between floats, in order, what it casts, to what, and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.ir.graph import Graph
from ..compiler.ir.types import DType, Node, Phase
from ..compiler.ops.definition import Precision
from ..compiler.ops.registry import REGISTRY

_WHY = {
    Precision.CONTRACTION: "contracts in {to}",
    Precision.FOLLOW: "meets what is {to}",
    Precision.INSIDE: "takes it beside its operands in {to}",
    Precision.HIGH: "is sensitive: it computes in {to}",
    Precision.EXACT: "stores or compares it in {to}",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One cast: the value, its type before and after, how often a step makes it, and why."""

    value: str
    before: DType
    after: DType
    often: str
    why: str


def reasons(graph: Graph) -> tuple[Reason, ...]:
    """Every cast between floats, in the order of the graph."""
    return tuple(_reason(graph, node) for node in graph.nodes("cast") if _between_floats(node))


def _between_floats(node: Node) -> bool:
    return node.uses[0].dtype.is_float and node.outs[0].dtype.is_float


def _reason(graph: Graph, node: Node) -> Reason:
    use, to = node.uses[0], node.outs[0].dtype
    value = use.node if not use.output else f"{use.node}:{use.output}"
    once = node.phase in (Phase.PREPARE, Phase.UPDATE)
    return Reason(value, use.dtype, to, "a step" if once else "a microbatch", _why(graph, node, to))


def _why(graph: Graph, node: Node, to: DType) -> str:
    readers = [graph[edge.consumer] for edge in graph.users(node.id)]
    if not readers:
        return f"it leaves the graph in {to.value}"
    if any(reader.op == "accumulate" for reader in readers):
        return f"gradients are added up in {to.value}"
    first = readers[0]
    more = f" (and {len(readers) - 1} more)" if len(readers) > 1 else ""
    return f"{first.id}{more} {_WHY[REGISTRY[first.op].precision].format(to=to.value)}"
