"""The cheapest choice of what one block keeps and computes again, under a bound on memory: an integer program.

    minimise   Σ seconds[n] r[n]
    subject to k[v] + c[n, p] ≥ 1             where the backward first reads v at p, and n makes v
               k[v] + c[n, p] ≥ c[w, p]       where w reads v: to run w again, v is kept or made again before
               c[n, p] ≤ c[n, p + 1] ≤ r[n]   c: computed again at position p or before
               a[g, p] ≥ k[v], c[n, p]        to the last reading of v, which lies in memory g
               a[g, p] ≥ k[v] + r[w] - 1, c[n, p] + r[w] - 1     up to where w is computed again at the latest
               (L - 1) Σ bytes[g] K[g] + max_p (gradients[p] + Σ bytes[g] a[g, p]) ≤ bound,   K[g] ≥ k[v]

for L copies, of which all keep and one is in its backward. Checkmate's formulation (Jain et al. 2020,
arXiv 1910.02653, section 4) with each value made again at most once in a backward, at its first use, so that a block
has as many decisions as values and not their square. k and r are whole; c and a then are. A block too large to be
searched (a U-Net, which is one block of 322 nodes) goes down from a choice to better ones instead (`descent.py`).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from ..integer import INFINITE, Answer, Integer, Row
from .block import Block
from .descent import fastest_within, latest, must_keep, runs_again, smallest

_WORK = 20e6  # of one search, see `Integer.best`
_SEARCHED = 250_000  # coefficients; of a larger program a search does not get beyond its first relaxation
_TIE = 1e-4  # what all memory weighs beside all time: of equally fast choices, the smaller


@dataclass(frozen=True, slots=True)
class Choice:
    """again: which values are made again. seconds: what that takes, in one block. kept_bytes: what one block keeps from
    its forward on. working_bytes: the most that the one in its backward has, what it keeps among it. bytes: both, of
    all copies. gap: of the bound, 0 where it is proven, 1 where there is none."""

    again: frozenset[int]
    seconds: float
    kept_bytes: int
    working_bytes: int
    bytes: int
    gap: float = 0.0


def cheapest(block: Block, bound_bytes: float) -> Choice | None:
    """The choice that takes least time; None where none fits, or none was found in so much work. Of equally fast ones,
    the smallest."""
    return _Program(block).solve(bound_bytes)


def least_bytes(block: Block) -> int:
    """The least that the block can do with, or that was found in so much work."""
    found = _Program(block).solve(None)
    assert found is not None, "keeping all is a choice"
    return found.bytes


@dataclass
class _Program:
    """Variables: k for each value, r for each node, c for each node and position, a and K for each memory, the peak."""

    block: Block
    rows: list[Row] = field(default_factory=list[Row])

    def __post_init__(self) -> None:
        block = self.block
        nodes, spots, memories = len(block.nodes), block.positions, len(block.bytes)
        self.first_r = len(block.values)
        self.first_c = self.first_r + nodes
        self.first_a = self.first_c + nodes * spots
        self.first_kept = self.first_a + memories * spots
        self.peak = self.first_kept + memories
        self._needs()
        self._lives()
        unit = self.unit = float(max(block.bytes, default=1)) or 1.0
        for spot in range(spots):
            places = [self._a(memory, spot) for memory in range(memories)]
            sizes = [-size / unit for size in block.bytes]
            self.rows.append(([self.peak, *places], [1.0, *sizes], block.gradients[spot] / unit, INFINITE))

    def _c(self, node: int, spot: int) -> int:
        return self.first_c + node * self.block.positions + spot

    def _a(self, memory: int, spot: int) -> int:
        return self.first_a + memory * self.block.positions + spot

    def _at_least(self, places: list[int], signs: list[float], least: float) -> None:
        self.rows.append((places, signs, least, INFINITE))

    def _needs(self) -> None:
        """What is read must be there."""
        block = self.block
        spots = range(block.positions)
        for node in range(len(block.nodes)):
            for spot in spots:
                later = self.first_r + node if spot + 1 == len(spots) else self._c(node, spot + 1)
                self._at_least([later, self._c(node, spot)], [1.0, -1.0], 0.0)
            for v in block.operands[node]:
                for spot in spots:
                    makes = self._c(block.values[v].node, spot)
                    self._at_least([v, makes, self._c(node, spot)], [1.0, 1.0, -1.0], 0.0)
            for v in block.before[node]:
                self._at_least([v, self.first_r + node], [1.0, -1.0], 0.0)
        for v, made in enumerate(block.values):
            if made.outside:
                self._at_least([v], [1.0], 1.0)
            elif made.reads:
                self._at_least([v, self._c(made.node, made.reads[0])], [1.0, 1.0], 1.0)

    def _lives(self) -> None:
        """How long each memory is alive in the backward."""
        block = self.block
        last_runs = latest(block)
        readers: dict[int, list[int]] = {}
        for node, read in enumerate(block.operands):
            for v in read:
                readers.setdefault(v, []).append(node)
        for v, made in enumerate(block.values):
            if made.memory is None:
                continue
            self._at_least([self.first_kept + made.memory, v], [1.0, -1.0], 0.0)
            last = block.positions - 1 if made.outside else max(made.reads, default=-1)
            for spot in range(last + 1):
                self._at_least([self._a(made.memory, spot), v], [1.0, -1.0], 0.0)
                self._at_least([self._a(made.memory, spot), self._c(made.node, spot)], [1.0, -1.0], 0.0)
            for w in readers.get(v, ()):
                for spot in range(last + 1, last_runs[w] + 1):
                    again = self.first_r + w
                    self._at_least([self._a(made.memory, spot), v, again], [1.0, -1.0, -1.0], -1.0)
                    there = self._c(made.node, spot)
                    self._at_least([self._a(made.memory, spot), there, again], [1.0, -1.0, -1.0], -1.0)

    def solve(self, bound_bytes: float | None) -> Choice | None:
        """The fastest choice within a bound; without one, the smallest. Of a block too large to search, as `descent`
        finds them."""
        if sum(len(row[0]) for row in self.rows) > _SEARCHED:
            kept = smallest(self.block) if bound_bytes is None else fastest_within(self.block, bound_bytes)
            return None if kept is None else self._choice(self._keeping(kept), 1.0)
        import numpy as np  # late: loading it takes a fifth of checking a spec

        block = self.block
        kept = [self.first_kept + memory for memory in range(len(block.bytes))]
        weights = [(block.copies - 1) * size / self.unit for size in block.bytes]
        sizes = np.zeros(self.peak + 1)
        sizes[kept], sizes[self.peak] = weights, 1.0
        rows, costs = list(self.rows), sizes
        if bound_bytes is not None:
            bound = bound_bytes / self.unit
            rows.append(([self.peak, *kept], [1.0, *weights], -INFINITE, bound))
            costs = sizes * (_TIE / max(bound, 1.0))
            costs[self.first_r : self.first_c] += np.asarray(block.seconds) / (sum(block.seconds) or 1.0)
        most = np.ones(self.peak + 1)
        most[self.peak] = INFINITE
        program = Integer(costs.tolist(), rows, (0, self.first_c), most)
        start = self._start(sizes, bound_bytes)
        found = program.best(np.zeros(self.peak + 1), start=start, gap=_TIE, work=_WORK)
        if found.x is None:
            return None
        gap = max(0.0, 1 - found.bound / found.value) if found.value > 0 and not found.proven else 0.0
        # What weighs next to nothing, an unfinished search may leave larger than the choice asks for.
        return self._choice(self._keeping({v for v in range(len(block.values)) if found.x[v] > 0.5}), gap)

    def _start(self, sizes: Any, bound_bytes: float | None) -> Answer | None:
        """A choice that is always there, so that one is known however soon the work is done: of keeping all and keeping
        no more than must be kept, the faster that fits; without a bound, the smaller."""
        both = [self._keeping(kept) for kept in (set(range(len(self.block.values))), must_keep(self.block))]
        sized = [(float(sizes @ x), x) for x in both]
        if bound_bytes is None:
            sized.sort(key=lambda one: one[0])
        fit = [one for one in sized if bound_bytes is None or one[0] * self.unit <= bound_bytes]
        return Answer(fit[0][1], fit[0][0], -INFINITE, False) if fit else None

    def _keeping(self, kept: AbstractSet[int]) -> Any:
        """The choice that keeps these values, of all variables: what is not kept is made again at its first use."""
        import numpy as np

        block, spots = self.block, self.block.positions
        first = runs_again(block, kept)
        x = np.zeros(self.peak + 1)
        x[sorted(kept)] = 1.0
        for node, begin in enumerate(first):
            x[self.first_r + node] = begin < spots
            x[self._c(node, begin) : self._c(node, spots)] = 1.0
        for places, signs, least, _ in self.rows:  # of a memory as much as the choice, which comes after it, asks for
            if self.first_a <= places[0] < self.peak:
                others = sum(sign * x[place] for place, sign in zip(places[1:], signs[1:], strict=True))
                x[places[0]] = max(x[places[0]], least - others)
        alive = x[self.first_a : self.first_kept].reshape(len(block.bytes), spots)
        peaks = np.asarray(block.gradients) + np.asarray(block.bytes, float) @ alive
        x[self.peak] = peaks.max(initial=0.0) / self.unit
        return x

    def _choice(self, x: Any, gap: float) -> Choice:
        block = self.block
        again = frozenset(v for v in range(len(block.values)) if self._is_made_again(v, x))
        seconds = sum(s for s, r in zip(block.seconds, x[self.first_r : self.first_c], strict=True) if r > 0.5)
        kept = sum(size for memory, size in enumerate(block.bytes) if x[self.first_kept + memory] > 0.5)
        working = round(float(x[self.peak]) * self.unit)
        return Choice(again, seconds, kept, working, (block.copies - 1) * kept + working, gap)

    def _is_made_again(self, v: int, x: Any) -> bool:
        """Not what takes no time and lies in what is kept anyway, as a view does: it may as well stay."""
        made = self.block.values[v]
        if x[v] > 0.5 or x[self.first_r + made.node] < 0.5:
            return False
        if self.block.seconds[made.node] > 0 or made.memory is None:
            return True
        lies = [self.first_kept + made.memory]
        lies += [self._a(made.memory, spot) for spot in range(max(made.reads, default=-1) + 1)]
        return bool(x[lies].min() < 0.5)
