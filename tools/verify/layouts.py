"""The plan's own layout for a graph of small sizes: the choice that was made for the whole sizes, node by node.

In: the decision for the whole graph, that graph, and the small one, whose nodes have the same ids (of fewer layers).
Out: the small graph laid out so; None where a small dim cannot be cut as the whole one is.
"""

from __future__ import annotations

from ...compiler.ir.graph import Graph
from ...compiler.partition.decide import Decision
from ...compiler.partition.relayout import Paths
from ...compiler.partition.rewrite import rewrite
from ...compiler.partition.strategies import Strategy, is_legal, options


def laid_as(decision: Decision, whole: Graph, small: Graph) -> Graph | None:
    """The small graph with the layouts of the whole one."""
    mesh, prices = decision.mesh, decision.program.prices
    chosen: dict[str, Strategy] = {}
    for node in small:
        name = decision.folded.of.get(node.id)
        if name is None or node.id not in whole or whole[node.id].op != node.op:
            return None
        known, own = options(decision.folded.nodes[name]), options(node)
        places = [known.index(option) for option in decision.solution.strategies[name]]
        if len(own) != len(known):
            return None
        chosen[node.id] = tuple(own[place] for place in places)
        if not is_legal(node, chosen[node.id], mesh):
            return None
    again = frozenset(node.id for node in small if decision.folded.of[node.id] in decision.program.again)
    return rewrite(small, mesh, chosen, Paths(mesh, prices.move_s), again)
