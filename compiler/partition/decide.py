"""From a graph and wishes to its best layout: what the pass does, with all that it knew when it chose.

In: a graph with sizes, a mesh, the cluster that it is priced on, pins, a ZeRO stage, the memory of a device. Out: the
partitioned graph and the choice behind it, for figures and explanations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ..cost.cluster import Cluster
from ..ir.graph import Graph
from ..ir.layout import Mesh
from ..ir.types import Dim, Node
from .choices import DATA, SEVERAL, Choices, Wishes, choices, compute_copies
from .exact import Exact
from .fold import ClassId, Folded, fold
from .impossible import check_held, check_wishes, too_large
from .price import Prices
from .rewrite import rewrite
from .solve import Infeasible, Program, Solution
from .strategies import Strategy

_TRIES = 4  # to keep what lasts within the memory: the program knows what is gathered axis by axis
_FAR = 0.03  # of a step: the program's terms are not that much more than what is sent


@dataclass(frozen=True)
class Decision:
    """graph: partitioned. before: as it was. The rest: what was wished, and what was chosen from what."""

    graph: Graph
    before: Graph
    wishes: Wishes
    mesh: Mesh
    folded: Folded
    chosen: Choices
    solution: Solution
    program: Program
    exact: Exact

    @property
    def resident_bytes(self) -> int:
        """What lasts on a device."""
        return self.program.resident.bytes(self.solution.strategies)

    def lasting_bytes(self, flying: float) -> int:
        """The same with the activations of so many microbatches."""
        return self.program.resident.bytes(self.solution.strategies, flying)


def decide(
    graph: Graph, mesh: Mesh, cluster: Cluster, wishes: Wishes | None = None, memory_bytes: int | None = None,
    of_bytes: int | None = None, rival: Decision | None = None, flying: float = 1.0,
) -> Decision:  # fmt: skip
    """The best layout of which no more than `memory_bytes` last on a device, for which that leaves so much `of_bytes`.

    Of a graph that computes the same the `rival`, where no layout of this one is better. flying: of so many
    microbatches the activations last. A sparing wish is for the layout that is best for several microbatches; what it
    takes is told for all of them. Raises SpecError (E0941-E0943, E0947) where a wish cannot be fulfilled.
    """
    wishes = wishes or Wishes()
    check_wishes(graph, mesh, wishes)
    folded = fold(graph)
    chosen = choices(folded, mesh, wishes)
    prices = Prices(mesh, cluster) if rival is None else rival.program.prices
    again = compute_copies(folded) if wishes.zero == 3 and DATA in mesh.names else frozenset[ClassId]()

    counted = min(SEVERAL, graph.microbatches) if wishes.sparing else graph.microbatches

    def asked(memory_bytes: int | None, spare_bytes: int = 0, microbatches: int = counted) -> Program:
        return Program(folded, chosen, prices, microbatches, memory_bytes, again, flying, spare_bytes)

    program = asked(None)
    if rival is not None and not wishes.sparing and program.bound() > rival.solution.seconds * (1 + _FAR):
        return rival
    try:
        solution = program.solve()
        if memory_bytes is not None and program.resident.bytes(solution.strategies) > memory_bytes:
            if sum(program.resident.least().values()) > memory_bytes:
                raise Infeasible
            program, solution = _within(asked, memory_bytes)
    except Infeasible:
        raise too_large(folded, program, memory_bytes or 0, of_bytes) from None
    exact = Exact(program, memory_bytes)
    solution = best_near(exact, solution)
    if counted < graph.microbatches:
        program = asked(memory_bytes, 0, graph.microbatches)
        exact = Exact(program, memory_bytes)
        solution = _priced(exact, solution)
    check_held(folded, solution.strategies, mesh, wishes)
    if rival is not None and rival.solution.seconds <= solution.seconds:
        return rival
    strategies = {node.id: _of(node, folded, solution) for node in graph}
    dropped = frozenset(node.id for node in graph if folded.of[node.id] in again)
    laid = rewrite(graph, mesh, strategies, exact.paths, dropped)
    return Decision(laid, graph, wishes, mesh, folded, chosen, solution, program, exact)


def _within(asked: Callable[[int, int], Program], memory_bytes: int) -> tuple[Program, Solution]:
    """The best choice of which no more lasts: so much is spared as the last one had too much; or that one, where no
    choice leaves so much. Raises Infeasible."""
    program = asked(memory_bytes, 0)
    solution, spare_bytes = program.solve(), 0
    for _ in range(_TRIES):
        over = program.resident.bytes(solution.strategies) - memory_bytes
        spare_bytes += over
        if over <= 0 or spare_bytes >= memory_bytes:
            break
        narrower = asked(memory_bytes, spare_bytes)
        try:
            solution = narrower.solve()
        except Infeasible:
            break
        program = narrower
    return program, solution


def best_near(exact: Exact, solution: Solution, made: Collection[ClassId] = ()) -> Solution:
    """The cheapest choice near a solution, message by message; what is `made` already stays."""
    strategies, seconds = exact.improved(solution.strategies, made)
    return replace(solution, strategies=strategies, seconds=seconds)


def _priced(exact: Exact, solution: Solution) -> Solution:
    """A solution of another number of microbatches, by these."""
    seconds, relaxed = exact.seconds(solution.strategies), exact.program.bound()
    return replace(solution, seconds=seconds, relaxed=relaxed, gap=max(0.0, 1 - relaxed / seconds) if seconds else 0.0)


def _of(node: Node, folded: Folded, solution: Solution) -> Strategy:
    """The strategy of a node: that of its class, in its own dims where it is taken apart along them."""
    name = folded.of[node.id]
    strategy, stands = solution.strategies[name], folded.nodes[name]
    if stands is node or not any(option.apart for option in strategy):
        return strategy
    names = dict(zip(_dims(stands), _dims(node), strict=True))
    return tuple(replace(option, cut=tuple(names[d] for d in option.cut)) for option in strategy)


def _dims(node: Node) -> list[Dim]:
    return [d for use in node.uses for d in use.dims] + [d for out in node.outs for d in out.dims]
