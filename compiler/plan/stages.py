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
from functools import cached_property, partial
from itertools import accumulate

from ..schedule.forms import computing, parse_form
from ..schedule.place import in_flight

Flights = Sequence[Sequence[Sequence[int]]]  # device -> what is in flight at one time: so many of each of its chunks
NEAR = 1e-7  # of the slowest stage: bisection ends there


@dataclass(frozen=True)
class Load:
    """Blocks in order. seconds: of a microbatch. static: bytes that last. kept: a microbatch's. momentary: beyond.
    ending: bytes that are there from the block's backward on (gradients that are no sums). updating: beyond, in the
    update."""

    seconds: Sequence[float]
    static: Sequence[int]
    kept: Sequence[int]
    momentary: Sequence[int]
    ending: Sequence[int]
    updating: int = 0

    @cached_property
    def sums(self) -> tuple[list[int], list[int], list[int]]:
        """Of the blocks before each place: static, kept and ending bytes."""
        static, kept, ending = (list(accumulate(column, initial=0)) for column in (self.static, self.kept, self.ending))
        return static, kept, ending

    @cached_property
    def heights(self) -> list[int]:
        """Of each block what its stage holds in its backward, but for what is the same in all blocks of the stage."""
        _, kept, ending = self.sums
        return [kept[at + 1] - ending[at + 1] + more for at, more in enumerate(self.momentary)]


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
    """The blocks from one to before another.

    In the backward of block i, Σ kept[begin..i] + Σ ending[i+1..end-1] + momentary[i] bytes are there.
    """
    static, kept, ending = load.sums
    most = max(0, ending[end] - kept[begin] + max(load.heights[begin:end], default=0))
    return Stage(static[end] - static[begin], kept[end] - kept[begin], most, ending[end] - ending[begin])


def cut(
    load: Load, stages: int, flights: Sequence[int] | None = None, limit: int | None = None,
    evenly: tuple[int, ...] | None = None,
) -> tuple[int, ...] | None:  # fmt: skip
    """The ends of the stages; None where no way fits into `limit` bytes a device. evenly: the ends without a limit,
    where they are known: what fits so is not searched for, and nothing is faster."""
    seconds = [0.0, *accumulate(load.seconds)]
    count = len(load.seconds)
    if count < stages:
        return None
    (static, kept, ending), heights, updating = load.sums, load.heights, load.updating
    ahead = [flying - 1 for flying in flights or ()] or [0] * stages

    def fits(stage: int, begin: int, end: int) -> bool:
        """As `stage_of` and `Stage.peak` have it."""
        if limit is None:
            return True
        late, own = ending[end], kept[begin]
        most = max(0, late - own + max(heights[begin:end])) + max(0, ahead[stage]) * (kept[end] - own)
        return static[end] - static[begin] + max(most, late - ending[begin] + updating) <= limit

    if evenly is not None and all(map(fits, range(stages), (0, *evenly[:-1]), evenly)):
        return evenly

    def tried(bound: float) -> tuple[tuple[int, ...] | None, float]:
        """The ends; where there are none, the least bound that lets some stage take a block more."""
        ends, end, more = [count], count, float("inf")
        for stage in range(stages - 1, -1, -1):
            far = bisect_left(seconds, seconds[end] - bound)
            begin = max(stage, far)
            if begin < end and not fits(stage, begin, end):  # what is shorter holds less
                begin = bisect_left(range(end), True, begin + 1, end, key=partial(fits, stage, end=end))
            if begin >= end:
                return None, more
            if begin == far > 0:
                more = min(more, seconds[end] - seconds[far - 1])
            end = begin
            ends.append(end)
        return (tuple(ends[-2::-1]), bound) if end == 0 else (None, more)

    best = tried(seconds[-1] * (1 + NEAR))[0]
    if best is None:
        return None
    low = max(seconds[-1] / stages, *load.seconds) if evenly is None else _slowest(seconds, evenly)
    best = tried(low * (1 + NEAR))[0] or best
    high = _slowest(seconds, best)
    while high - low > NEAR * high:
        middle = (low + high) / 2
        found, more = tried(middle)
        if found is None:
            low = min(more, high)
        else:
            high = min(middle, _slowest(seconds, found))
    return tried(high * (1 + NEAR))[0] or best


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
