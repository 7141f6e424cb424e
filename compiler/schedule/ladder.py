"""What token slices take where kernels were timed: read off a few steps whose rows are equal slices.

In: steps of one recipe, each in another number of equal slices, and the seconds of their nodes. Out: seconds of each
half of each block for a slice of any length behind any context. A kernel's time is no formula of its sizes, and which
kernels are fused depends on the step: so the nodes of whole steps are timed, and lengths and contexts that lie between
theirs are on the line between them: along the context seconds, along the length seconds a token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.slices import slice_of
from ..ir.types import Phase
from .blocks import Chain

HALVES = ("forward", "input", "weight")  # of a block


@dataclass(frozen=True)
class Rung:
    """Rows in slices of one length. seconds: of each block, for each half those of each slice in order."""

    length: int
    seconds: Sequence[Mapping[str, Sequence[float]]]

    def at(self, block: int, half: str, context: int) -> float:
        """A slice of this length behind so many tokens; behind more than were timed, on the line of the last two."""
        known = self.seconds[block][half]
        if len(known) == 1:
            return known[0]
        place = context / self.length
        below = min(int(place), len(known) - 2)
        return known[below] + (place - below) * (known[below + 1] - known[below])


def rung(step: Graph, tokens: int, count: int, seconds: Mapping[str, float]) -> Rung:
    """Of a step whose rows are so many equal slices. What is of no slice (gradients that all of them add to) is shared
    out evenly."""
    chain = Chain(step)
    found = [{half: [0.0] * count for half in HALVES} for _ in chain.names]
    for node in step:
        if node.id in chain.block:
            half = "forward" if node.phase is Phase.FORWARD else "weight" if node.id in chain.weights else "input"
            here, at, taken = found[chain.block[node.id]][half], slice_of(node), seconds.get(node.id, 0.0)
            for one in range(count) if at is None else (at,):
                here[one] += taken / count if at is None else taken
    return Rung(tokens // count, found)


@dataclass(frozen=True)
class Ladder:
    """rungs: the shortest slices first."""

    rungs: Sequence[Rung]

    @property
    def shortest(self) -> int:
        """The shortest slices that are known of."""
        return self.rungs[0].length

    def seconds(self, block: int, half: str, length: int, context: int) -> float:
        """Of a half of a block, for a slice of so many tokens behind so many."""
        at = bisect_left([one.length for one in self.rungs], length)
        below, above = (self.rungs[max(0, min(place, len(self.rungs) - 1))] for place in (at - 1, at))
        first, second = (one.at(block, half, context) / one.length for one in (below, above))
        if below.length == above.length:
            return first * length
        return length * (first + (second - first) * (length - below.length) / (above.length - below.length))
