"""Choices that have a name: which values of the forward the backward makes again and does not keep.

In: a graph with its backward. Out: those values. Whatever is left out of the choice and read is kept, so any set is a
legal choice.

full       all that a layer makes, but for what other parts of the forward read: a layer's input is kept and no more
           (Chen et al. 2016, arXiv 1604.06174)
selective  what attention has inside (Korthikanti et al. 2022, arXiv 2205.05198, section 5): the results of a
           contraction of two computed values that are larger than both, and what follows from them up to the next
           contraction. That is much memory for little arithmetic. A fused kernel keeps none of it anyway.
matching   all that instances make whose path fits a pattern
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..ir.graph import Graph
from ..ir.types import Node, Phase, Use
from ..ops.registry import REGISTRY
from ..ops.shapes import elements
from .block import GIVEN, Value

CONTRACTIONS = frozenset({"dot"})


def full(graph: Graph) -> frozenset[Value]:
    """All that layers make and only they read."""
    shared = {
        use.value
        for node in graph.nodes(where=_runs_forward)
        for use in node.uses
        if graph[use.node].layer not in (None, node.layer)
    }
    shared |= {use.value for use in graph.outputs.values()}
    return frozenset(value for node in _makers(graph) if node.layer for value in _values(node) if value not in shared)


def selective(graph: Graph) -> frozenset[Value]:
    """All that lies between the two contractions of an attention."""
    computed = _computed(graph)
    inside: set[str] = set()
    for node in _makers(graph):
        if node.op in CONTRACTIONS:
            larger = all(elements(node.outs[0].dims) > elements(use.dims) for use in node.uses)
            if larger and sum(use.node in computed for use in node.uses) > 1:
                inside.add(node.id)
        elif any(use.node in inside for use in node.uses) and _as_large(node, graph, inside):
            inside.add(node.id)
    masks = _only_for(graph, inside, computed)
    return frozenset(value for name in inside | masks for value in _values(graph[name]))


def matching(graph: Graph, fits: Callable[[str], bool]) -> frozenset[Value]:
    """All that instances of such paths make."""
    return frozenset(value for node in _makers(graph) if fits(node.path) for value in _values(node))


def _makers(graph: Graph) -> Iterator[Node]:
    """Nodes of the forward that may run twice."""
    for node in graph.nodes(where=_runs_forward):
        if node.op not in GIVEN and not REGISTRY[node.op].effects.writes:
            yield node


def _runs_forward(node: Node) -> bool:
    return node.phase is Phase.FORWARD


def _values(node: Node) -> Iterator[Value]:
    return ((node.id, output) for output in range(len(node.outs)))


def _computed(graph: Graph) -> set[str]:
    """Nodes that depend on what the data gives: neither parameters nor what follows from them alone."""
    found: set[str] = set()
    for node in graph:
        if node.op == "input" or any(use.node in found for use in node.uses):
            found.add(node.id)
    return found


def _as_large(node: Node, graph: Graph, inside: set[str]) -> bool:
    """Whether a node that reads from inside gives something of that size, and so is inside too."""
    read: Sequence[Use] = [use for use in node.uses if use.node in inside]
    return max(elements(out.dims) for out in node.outs) >= max(elements(use.dims) for use in read)


def _only_for(graph: Graph, inside: set[str], computed: set[str]) -> set[str]:
    """What no data goes into and nothing else reads: masks, and the randomness of a dropout."""
    readers: dict[str, set[str]] = {}
    for node in graph.nodes(where=_runs_forward):
        for use in node.uses:
            readers.setdefault(use.node, set()).add(node.id)
    found: set[str] = set()
    for node in reversed(list(_makers(graph))):
        if node.id not in computed and node.id in readers and readers[node.id] <= inside | found:
            found.add(node.id)
    return found
