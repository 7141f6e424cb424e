"""Where a chain of blocks is cut into stages: the slowest stage as fast as can be, every stage within its memory.

In: seconds and bytes of the blocks in order, how many microbatches each stage has in flight. Out: the ends of the
stages. From the last stage on, each takes as many blocks as a bound on its seconds and its memory let it: if the first
one then has blocks left, the bound is too low, because a part of a stage that fits, fits; so is every bound that lets
no stage take a block more. So bisection over the bound is exact, as is `schedule.place`'s dynamic program, in a
hundredth of its time; messages are no device's time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..schedule.forms import computing, parse_form
from ..schedule.place import in_flight

Flights = Sequence[Sequence[Sequence[int]]]  # device -> what is in flight at one time: so many of each of its chunks
NEAR = 1e-7  # of the slowest stage: bisection ends there


@dataclass(frozen=True)
class Load:
    """Blocks in order. seconds: of a microbatch. static: bytes that last. kept: a microbatch's. momentary: beyond.
    ending: bytes that are there from the block's backward on (gradients that are no sums)."""

    seconds: Sequence[float]
    static: Sequence[int]
    kept: Sequence[int]
    momentary: Sequence[int]
    ending: Sequence[int]


@dataclass(frozen=True, slots=True)
class Stage:
    """A device's blocks, added up. most: bytes of one microbatch at their highest, with what is beyond it."""

    static: int
    kept: int
    most: int
    ending: int

    def peak(self, flying: int, updating: int) -> int:
        """Of a device with these blocks, so many microbatches in flight."""
        return self.static + max(self.most + max(0, flying - 1) * self.kept, self.ending + updating)


def stage_of(load: Load, begin: int, end: int) -> Stage:
    """The blocks from one to before another."""
    here, most, ending = 0, 0, sum(load.ending[begin:end])
    late = ending
    for kept, after, momentary in zip(
        load.kept[begin:end], load.ending[begin:end], load.momentary[begin:end], strict=True
    ):
        here += kept
        late -= after
        most = max(most, here + late + momentary)
    return Stage(sum(load.static[begin:end]), here, most, ending)


def cut(
    load: Load, stages: int, flights: Sequence[int] | None = None, limit: int | None = None, updating: int = 0
) -> tuple[int, ...] | None:
    """The ends of the stages; None where no way fits into `limit` bytes a device."""
    seconds = [0.0, *accumulate(load.seconds)]
    count = len(load.seconds)
    if count < stages:
        return None

    fitting: dict[tuple[int, int], int] = {}

    def longest(stage: int, end: int) -> int:
        """The first block of the longest stage that ends there and fits, whatever its seconds."""
        if limit is None:
            return 0
        key = (flights[stage] if flights is not None else 1, end)
        if key not in fitting:
            fitting[key] = _first(load, end, key[0], limit, updating)
        return fitting[key]

    def tried(bound: float) -> tuple[tuple[int, ...] | None, float]:
        """The ends; where there are none, the least bound that lets some stage take a block more."""
        ends, end, more = [count], count, float("inf")
        for stage in range(stages - 1, -1, -1):
            far = bisect_left(seconds, seconds[end] - bound)
            begin = max(stage, far, longest(stage, end))
            if begin >= end:
                return None, more
            if begin == far > 0:
                more = min(more, seconds[end] - seconds[far - 1])
            end = begin
            ends.append(end)
        return (tuple(ends[-2::-1]), bound) if end == 0 else (None, more)

    low = max(seconds[-1] / stages, *load.seconds)
    best = tried(low * (1 + NEAR))[0] or tried(seconds[-1] * (1 + NEAR))[0]
    if best is None:
        return None
    high = _slowest(seconds, best)
    while high - low > NEAR * high:
        middle = (low + high) / 2
        found, more = tried(middle)
        if found is None:
            low = min(more, high)
        else:
            high = min(middle, _slowest(seconds, found))
    return tried(high * (1 + NEAR))[0] or best


def _first(load: Load, end: int, flying: int, limit: int, updating: int) -> int:
    """The first block of the longest stage that ends there and fits; `end` where not one does."""
    static = kept = ending = 0
    most = 0  # of kept + ending + momentary, counted from the stage's first block on
    for begin in range(end - 1, -1, -1):
        most = max(most + load.kept[begin], load.kept[begin] + ending + load.momentary[begin])
        static += load.static[begin]
        kept += load.kept[begin]
        ending += load.ending[begin]
        if static + max(most + max(0, flying - 1) * kept, ending + updating) > limit:
            return begin + 1
    return 0


def _slowest(seconds: Sequence[float], ends: Sequence[int]) -> float:
    return max(seconds[end] - seconds[begin] for begin, end in zip((0, *ends[:-1]), ends, strict=True))


def flights(schedule: str, stages: int, microbatches: int) -> Flights:
    """Of 1F1B as many microbatches as stages follow, of GPipe all, of ZB-H1 as many as there are stages; of others what
    their schedule says."""
    if schedule == "1f1b":
        return [[(min(microbatches, stages - device),)] for device in range(stages)]
    if schedule == "gpipe":
        return [[(microbatches,)]] * stages
    if schedule == "zero_bubble":
        return [[(min(microbatches, stages),)]] * stages
    return in_flight(computing(parse_form(schedule), stages, microbatches))
