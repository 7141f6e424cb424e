"""FLOPs of a graph, by node, block and phase.

In: a graph whose dims have sizes. Out: what every node takes, as its operator declares it, and sums. Two figures are
kept apart: *model* FLOPs are the multiply-adds of contractions that the mathematics asks for (a multiply-add is two;
nothing computed again counts, nothing masked is left out), the ones that MFU and papers count (Chowdhery et al. 2022,
app. B); *all* FLOPs add elementwise work and recomputation, for predicting time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from ..ir.graph import Graph
from ..ir.types import Dim, Node, Phase
from ..ops.definition import Cost, Precision
from ..ops.registry import REGISTRY
from ..ops.shapes import elements

ONCE_A_STEP = frozenset({Phase.PREPARE, Phase.UPDATE})


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a node, or several, takes."""

    model_flops: int = 0
    flops: int = 0
    bytes_moved: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.model_flops + other.model_flops, self.flops + other.flops, self.bytes_moved + other.bytes_moved
        )

    def __mul__(self, times: int) -> Work:
        return Work(self.model_flops * times, self.flops * times, self.bytes_moved * times)


def cost_of(node: Node) -> Cost:
    """What the operator's declaration says of this node. Every dim must have a size."""
    return REGISTRY[node.op].cost(node)


def work_of(node: Node) -> Work:
    """One run of a node. Contractions alone count as model FLOPs."""
    cost = cost_of(node)
    contraction = REGISTRY[node.op].precision is Precision.CONTRACTION
    return Work(cost.flops if contraction else 0, cost.flops, cost.bytes_read + cost.bytes_written)


def works(graph: Graph) -> Iterator[tuple[Node, Work]]:
    """Every node with what it takes in one step: the forward and backward run once a microbatch."""
    for node in graph:
        times = 1 if node.phase in ONCE_A_STEP else graph.microbatches
        yield node, (work_of(node) + _steps(node, graph)) * times


def _steps(node: Node, graph: Graph) -> Work:
    """A scan's body, once for each step; what a step of the backward computes again is no work of the model."""
    if node.op != "scan" or node.body is None:
        return Work()
    dim, body = node.attrs["dim"], graph.bodies[node.body]
    assert isinstance(dim, Dim), "a scan runs along a dim"
    total = Work()
    for inner in body:
        work = work_of(inner) + _steps(inner, body)
        total += replace(work, model_flops=0) if inner.id.startswith("again/") else work
    return total * elements((dim,))


def by_phase(graph: Graph) -> dict[Phase, Work]:
    """A step's work, phase by phase."""
    found = {phase: Work() for phase in Phase}
    for node, work in works(graph):
        found[node.phase] += work
    return found


def by_path(graph: Graph) -> dict[tuple[str, Phase], Work]:
    """A step's work, instance by instance and phase by phase, each node at its own instance alone."""
    found: dict[tuple[str, Phase], Work] = {}
    for node, work in works(graph):
        key = (node.path, node.phase)
        found[key] = found.get(key, Work()) + work
    return found


def within(parts: dict[tuple[str, Phase], Work], path: str, *phases: Phase) -> Work:
    """The work of an instance with everything inside it, in these phases (all, if none is named)."""
    inside = (
        work
        for (owner, phase), work in parts.items()
        if (not path or owner == path or owner.startswith(f"{path}.")) and (not phases or phase in phases)
    )
    return reduce(Work.__add__, inside, Work())


def parameter_count(graph: Graph, trained_only: bool = False) -> int:
    """Numbers that the model has, tied ones once."""
    nodes = graph.nodes("parameter", lambda n: bool(n.attrs.get("trained", True)) or not trained_only)
    return sum(elements(node.outs[0].dims) for node in nodes)


def tokens(graph: Graph) -> int:
    """Tokens of one step: the elements of the first input of ids; without ids the first axis of the first input."""
    inputs = graph.nodes("input")
    ids = [node for node in inputs if not node.outs[0].dtype.is_float]
    if ids:
        return elements(ids[0].outs[0].dims) * graph.microbatches
    return elements(inputs[0].outs[0].dims[:1]) * graph.microbatches if inputs else 1
