"""Token slices of unequal length, found jointly with the microbatches (TeraPipe, Li et al. 2021, section 3.3).

In: what a stage takes for `rows` rows of a slice of `length` tokens behind `context` earlier ones, forward and backward
together. Out: the microbatches and their slices. A pipeline of K stages takes Σ t_i + (K - 1) max t_i. For each bound
t_max on a slice, a dynamic program over the tokens finds the least sum, for each number of rows; a second one over the
rows puts microbatches together:

    sum(i) = min over k of sum(i - k) + t(k, i - k) where t(k, i - k) ≤ t_max          (equation 5)

Later slices attend to more tokens, so they are shorter. The larger the bound, the less the sum: between two bounds no
answer is better than the sum of the larger with the smaller as its slowest slice, so most bounds need not be tried.
Exact for slices in multiples of `step` with `tolerance_s` 0; else the answer is within K · tolerance_s of the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SliceTime = Callable[[int, int, int], float]  # (rows, length, context) -> seconds


@dataclass(frozen=True, slots=True)
class Microbatch:
    """So many rows, cut into slices of these lengths."""

    rows: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """`seconds` is what the pipeline takes: Σ t_i + (K - 1) max t_i over all slices of all microbatches."""

    microbatches: tuple[Microbatch, ...]
    seconds: float


def pipeline_s(microbatches: Sequence[Microbatch], stages: int, slice_s: SliceTime) -> float:
    """Σ t_i + (K - 1) max t_i."""
    times: list[float] = []
    for one in microbatches:
        context = 0
        for length in one.lengths:
            times.append(slice_s(one.rows, length, context))
            context += length
    return sum(times) + (stages - 1) * max(times)


def cut(
    rows: int, length: int, stages: int, slice_s: SliceTime, step: int = 128, tolerance_s: float = 0.0,
    row_counts: Sequence[int] | None = None,
) -> Cut:  # fmt: skip
    """The best microbatches and slices. `row_counts`: the rows that a microbatch may have; any, if None."""
    assert length % step == 0, f"{length} tokens are no multiple of {step}"
    counts = [n for n in (row_counts or range(1, rows + 1)) if n <= rows]
    assert counts, "a microbatch has at least a row, and at most all"
    units = length // step
    tables = {n: _table(n, units, step, slice_s) for n in counts}
    bounds = sorted({time for table in tables.values() for row in table for time in row})
    search = _Search(rows, step, stages, slice_s, tables, bounds, tolerance_s * stages)
    return search.best()


Table = list[list[float]]  # [context][length - 1], both in steps


@dataclass
class _Search:
    """Over all bounds on a slice, in ascending order, by halves; `spare` is what an answer may lack to the best."""

    rows: int
    step: int
    stages: int
    slice_s: SliceTime
    tables: Mapping[int, Table]
    bounds: Sequence[float]
    spare: float
    found: Cut | None = None

    def best(self) -> Cut:
        """The best answer. Asserts that there is one, as with a bound that admits a whole row there is."""
        last = len(self.bounds) - 1
        self._between(-1, last, self._sum(last))
        assert self.found is not None, "some bound admits a whole row"
        return self.found

    def _between(self, low: int, high: int, least: float | None) -> None:
        """Tries the bounds above `low` and below `high`, whose sum is `least` (None: no slices keep to it)."""
        if least is None or high - low < 2:
            return
        hope = least + (self.stages - 1) * self.bounds[low + 1]
        if self.found is not None and hope > self.found.seconds - self.spare:
            return
        middle = (low + high) // 2
        here = self._sum(middle)
        self._between(low, middle, here)
        self._between(middle, high, least)

    def _sum(self, at: int) -> float | None:
        """The least sum with no slice above a bound; the answer that has it is kept, if none before was better."""
        made = _bounded(self.rows, self.step, self.tables, self.bounds[at])
        if made is None:
            return None
        whole, slowest = (pipeline_s(made, stages, self.slice_s) for stages in (1, self.stages))
        if self.found is None or slowest < self.found.seconds:
            self.found = Cut(made, slowest)
        return whole


def _table(rows: int, units: int, step: int, slice_s: SliceTime) -> Table:
    return [[slice_s(rows, k * step, c * step) for k in range(1, units - c + 1)] for c in range(units)]


def _bounded(rows: int, step: int, tables: Mapping[int, Table], bound: float) -> tuple[Microbatch, ...] | None:
    """The least sum with no slice above the bound; None if there is none."""
    sums = {n: _least_sum(table, bound) for n, table in tables.items()}
    best: list[tuple[float, int] | None] = [(0.0, 0), *[None] * rows]  # (sum, rows of the last microbatch)
    for total in range(1, rows + 1):
        for n, found in sums.items():
            before = best[total - n] if n <= total else None
            if found is None or before is None:
                continue
            value = (before[0] + found[0], n)
            now = best[total]
            best[total] = value if now is None or value[0] < now[0] else now
    chosen: list[Microbatch] = []
    while rows:
        last = best[rows]
        if last is None:
            return None
        found = sums[last[1]]
        assert found is not None, "what was chosen was found"
        chosen.append(Microbatch(last[1], tuple(k * step for k in found[1])))
        rows -= last[1]
    return tuple(chosen)


def _least_sum(table: Table, bound: float) -> tuple[float, tuple[int, ...]] | None:
    """The least sum of one microbatch's slices, and their lengths in steps."""
    units = len(table)
    best: list[tuple[float, int] | None] = [(0.0, 0), *[None] * units]
    for context in range(units):
        here = best[context]
        if here is None:
            continue
        for k, time in enumerate(table[context], 1):
            if time > bound:
                continue
            now, value = best[context + k], here[0] + time
            if now is None or value < now[0]:
                best[context + k] = (value, k)
    lengths: list[int] = []
    at = units
    while at:
        last = best[at]
        if last is None:
            return None
        lengths.append(last[1])
        at -= last[1]
    whole = best[units]
    assert whole is not None, "the walk began there"
    return whole[0], tuple(reversed(lengths))
