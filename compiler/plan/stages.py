"""Where a chain of blocks is cut into stages: the slowest stage as fast as can be, every stage within its memory.

In: seconds and bytes of the blocks in order, what each stage has in flight. Out: the ends of the stages. From the last
stage on, each takes as many blocks as a bound on its seconds and its memory let it: if the first one then has blocks
left, the bound is too low, because a part of a stage that fits, fits; so is every bound that lets no stage take a block
more. So bisection over the bound is exact, as is `schedule.place`'s dynamic program, in a hundredth of its time;
messages are no device's time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from operator import mul

from .flights import ALONE, Flight, Flights

NEAR = 1e-7  # of the slowest stage: bisection ends there


@dataclass(frozen=True)
class Load:
    """Blocks in order. seconds: of a microbatch. static: bytes that last. kept: a microbatch's. momentary: beyond.
    ending: bytes that are there from the block's backward on (gradients that are no sums). held: a microbatch's between
    the halves of its backward. late: beyond, in the weights' half. updating: beyond, in the update. twice: bytes that
    last and are counted for two blocks, by their numbers: a device that has both holds them once. crossing: of a
    microbatch, what goes over the end of each block."""

    seconds: Sequence[float]
    static: Sequence[int]
    kept: Sequence[int]
    momentary: Sequence[int]
    ending: Sequence[int]
    held: Sequence[int]
    late: Sequence[int]
    updating: int = 0
    twice: Sequence[tuple[int, int, int]] = ()
    crossing: Sequence[int] = ()

    def over(self, place: int) -> int:
        """Bytes of a message between the blocks before a place and those from it on."""
        return self.crossing[place - 1] if 0 < place <= len(self.crossing) else 0

    @cached_property
    def sums(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Of the blocks before each place: static, kept, ending and held bytes."""
        columns = self.static, self.kept, self.ending, self.held
        static, kept, ending, held = (list(accumulate(column, initial=0)) for column in columns)
        return static, kept, ending, held

    @cached_property
    def heights(self) -> tuple[list[int], list[int]]:
        """Of each block what its stage holds in its backward, but for what is the same in all blocks of the stage; and
        in the weights' half."""
        _, kept, ending, held = self.sums
        after = range(1, len(kept))
        backward = [kept[at] - ending[at] - held[at] + more for at, more in zip(after, self.momentary, strict=True)]
        return backward, [held[at] - ending[at] + more for at, more in zip(after, self.late, strict=True)]


@dataclass(frozen=True, slots=True)
class Stage:
    """A chunk's blocks, added up. most: bytes of one microbatch at their highest, with what is beyond it; `late`: the
    same in the weights' half. held: between the halves. before, behind: of a message over its beginning, its end."""

    static: int
    kept: int
    most: int
    ending: int
    held: int = 0
    late: int = 0
    before: int = 0
    behind: int = 0


def stage_of(load: Load, begin: int, end: int) -> Stage:
    """The blocks from one to before another.

    In the backward of block i, Σ kept[begin..i] + Σ (ending + held)[i+1..end-1] + momentary[i] bytes are there; in the
    weights' half, Σ held[begin..i] + Σ ending[i+1..end-1] + late[i].
    """
    static, kept, ending, held = load.sums
    backward, weights = load.heights
    most = max(0, ending[end] + held[end] - kept[begin] + max(backward[begin:end], default=0))
    late = max(0, ending[end] - held[begin] + max(weights[begin:end], default=0))
    return Stage(
        static[end] - static[begin], kept[end] - kept[begin], most, ending[end] - ending[begin],
        held[end] - held[begin], late, load.over(begin), load.over(end),
    )  # fmt: skip


def common(load: Load, places: Sequence[tuple[int, int]]) -> int:
    """Bytes that are counted for two blocks of a device, whose chunks are those from one place to before another."""

    def here(block: int) -> bool:
        return any(begin <= block < end for begin, end in places)

    return sum(size for first, second, size in load.twice if here(first) and here(second))


def peak(chunks: Sequence[Stage], flight: Flight, updating: int) -> int:
    """Of a device with these chunks, which comes to these moments of its schedule."""
    kept, held = [chunk.kept for chunk in chunks], [chunk.held for chunk in chunks]
    sent = zip(chunks, flight.before, flight.behind, strict=True)
    most, messages = 0, sum(before * one.before + behind * one.behind for one, before, behind in sent)
    for chunk, there, between, late in flight.moments:
        more = chunks[chunk].late if late else chunks[chunk].most
        most = max(most, more + sum(map(mul, there, kept)) + (sum(map(mul, between, held)) if any(between) else 0))
    lasting = sum(chunk.static for chunk in chunks)
    return lasting + max(most + messages, sum(chunk.ending for chunk in chunks) + updating)


def cut(
    load: Load, stages: int, flights: Flights | None = None, limit: int | None = None,
    evenly: tuple[int, ...] | None = None,
) -> tuple[int, ...] | None:  # fmt: skip
    """The ends of the stages; None where no way fits into `limit` bytes a device. evenly: the ends without a limit,
    where they are known: what fits so is not searched for, and nothing is faster."""
    seconds = [0.0, *accumulate(load.seconds)]
    count = len(load.seconds)
    if count < stages:
        return None
    (static, kept, ending, held), (backward, weights), updating = load.sums, load.heights, load.updating
    ahead, apart = flights or _alone, any(load.held) or any(load.late)

    def fits(stage: int, begin: int, end: int) -> bool:
        """As `stage_of` and `peak` have it."""
        if limit is None:
            return True
        own, there = kept[end] - kept[begin], held[end] - held[begin]
        most = max(0, ending[end] + held[end] - kept[begin] + max(backward[begin:end]))
        late = max(0, ending[end] - held[begin] + max(weights[begin:end])) if apart else 0
        moments, (before,), (behind,) = ahead(stage)
        high = max(n * own + h * there + (late if last else most) for _, (n,), (h,), last in moments)
        high += before * load.over(begin) + behind * load.over(end)
        lasting = static[end] - static[begin] - (common(load, [(begin, end)]) if load.twice else 0)
        return lasting + max(high, ending[end] - ending[begin] + updating) <= limit

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


def _alone(_: int) -> Flight:
    return ALONE


def _slowest(seconds: Sequence[float], ends: Sequence[int]) -> float:
    return max(seconds[end] - seconds[begin] for begin, end in zip((0, *ends[:-1]), ends, strict=True))
