"""The plan's own layout for a graph of small sizes: the choice that was made for the whole sizes, node by node.

In: the decision for the whole graph, that graph, and the small one, whose nodes have the same ids (of fewer layers).
Out: the small graph laid out so; None where a small dim cannot be cut as the whole one is.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...compiler.ir.graph import Graph
from ...compiler.ir.types import Node
from ...compiler.partition.decide import Decision
from ...compiler.partition.fold import ClassId
from ...compiler.partition.rewrite import rewrite
from ...compiler.partition.strategies import Strategy, is_legal, options


def laid_as(decision: Decision, whole: Graph, small: Graph) -> Graph | None:
    """The small graph with the layouts of the whole one."""
    mesh, prices = decision.mesh, decision.program.prices
    classes = _classes(decision, whole, small)
    chosen: dict[str, Strategy] = {}
    for node in small:
        if node.id not in classes:
            return None
        name = classes[node.id]
        known, own = options(decision.folded.nodes[name]), options(node)
        if len(own) != len(known):
            return None
        chosen[node.id] = tuple(own[known.index(option)] for option in decision.solution.strategies[name])
        if not is_legal(node, chosen[node.id], mesh):
            return None
    again = frozenset(name for name, of in classes.items() if of in decision.program.again)
    return rewrite(small, mesh, chosen, prices.paths, again)


def _classes(decision: Decision, whole: Graph, small: Graph) -> dict[str, ClassId]:
    """The class of each node: of the same name where it reads the same, else of any that does.

    Where there are fewer layers, numbered names (a norm's terms) stand for other nodes.
    """
    of = decision.folded.of
    alike: dict[tuple[object, ...], ClassId] = {}
    for node in whole:
        alike.setdefault(_reads(node, of), of[node.id])
    found: dict[str, ClassId] = {}
    for node in small:
        if not all(use.node in found for use in node.uses):
            continue
        reads = _reads(node, found)
        if node.id in whole and _is_like(whole[node.id], of, node, found):
            found[node.id] = of[node.id]
        elif reads in alike:
            found[node.id] = alike[reads]
    return found


def _is_like(whole: Node, of: Mapping[str, ClassId], small: Node, found: Mapping[str, ClassId]) -> bool:
    """Whether both read the same; of a sum over layers, the small one some of it."""
    return _reads(whole, of) == _reads(small, found) or _sums(whole, of) >= _sums(small, found) > frozenset()


def _reads(node: Node, of: Mapping[str, ClassId]) -> tuple[object, ...]:
    """What it is and reads, by classes; how many terms a sum has of one class does not matter."""
    reads = [(of[use.node], use.output) for use in node.uses]
    return (node.op, node.phase, _sums(node, of) or tuple(reads))


def _sums(node: Node, of: Mapping[str, ClassId]) -> frozenset[tuple[ClassId, int]]:
    """The classes of a sum's terms."""
    return frozenset((of[use.node], use.output) for use in node.uses if node.op == "add")
