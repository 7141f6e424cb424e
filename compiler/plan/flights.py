"""What each device of a schedule has in flight, moment by moment: what its memory is counted from.

In: a schedule, stages, microbatches. Out: for each device the moments at which it may hold most: which chunk computes,
how many other microbatches are between their forward and their backward in each of its chunks, and how many between the
halves of their backward. Moments that hold no more than another one are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from operator import le
from typing import NamedTuple

from ..schedule.actions import Kind, Schedule
from ..schedule.forms import computing, parse_form


class Moment(NamedTuple):
    """A chunk of a device computes, by its place there. kept, held: chunk by chunk, of the other microbatches those
    whose forward is done, and those that wait for the weights' half of their backward. late: this is that half."""

    chunk: int
    kept: tuple[int, ...]
    held: tuple[int, ...]
    late: bool = False


Flights = Callable[[int], Sequence[Moment]]  # device -> its moments, read when asked for: the first may say enough
ALONE = Moment(0, (0,), (0,))  # one microbatch on a device with one chunk


def flights(schedule: str, stages: int, microbatches: int) -> Flights:
    """Of 1F1B as many microbatches as stages follow, of GPipe all; of others what their schedule says."""
    if schedule == "1f1b":
        return lambda device: [_single(min(microbatches, stages - device) - 1)]
    if schedule == "gpipe":
        return lambda device: [_single(microbatches - 1)]
    if schedule == "zero_bubble":
        return cache(partial(_most, partial(_delayed, stages, microbatches)))
    return cache(partial(_most, partial(_moments, computing(parse_form(schedule), stages, microbatches))))


def _most(moments: Callable[[int], Iterable[Moment]], device: int) -> Sequence[Moment]:
    return _largest(moments(device))


def _single(kept: int, held: int = 0, late: bool = False) -> Moment:
    return Moment(0, (kept,), (held,), late)


def _delayed(stages: int, microbatches: int, device: int) -> Iterator[Moment]:
    """Of ZB-H1, whose device d runs the weights' half d microbatches after the other."""
    same = max(0, min(device, microbatches - stages + device))  # until then no fewer forwards are ahead
    for done in range(same, min(microbatches, device + 1)):
        kept = min(microbatches - done, stages - device) - 1
        yield _single(kept, done)
        yield _single(kept if done == device else 0, done, True)


def _moments(plain: Schedule, device: int) -> Iterator[Moment]:
    """All of a device."""
    place = {chunk: at for at, chunk in enumerate(plain.shape.chunks(device))}
    kept, held = [0] * len(place), [0] * len(place)
    for action in plain.actions[device]:
        at = place[action.chunk]
        if action.kind is Kind.WEIGHT:
            held[at] -= 1
        elif action.kind is not Kind.FORWARD:
            kept[at] -= 1
        yield Moment(at, tuple(kept), tuple(held), action.kind is Kind.WEIGHT)
        if action.kind is Kind.FORWARD:
            kept[at] += 1
        elif action.kind is Kind.INPUT:
            held[at] += 1


def _largest(moments: Iterable[Moment]) -> list[Moment]:
    """Those that hold more than any other one in which the same is computed."""
    found: dict[tuple[int, bool], list[Moment]] = {}
    for one in sorted(set(moments), key=_size, reverse=True):
        alike = found.setdefault((one.chunk, one.late), [])
        if not any(all(map(le, one.kept, other.kept)) and all(map(le, one.held, other.held)) for other in alike):
            alike.append(one)
    return [one for alike in found.values() for one in alike]


def _size(moment: Moment) -> int:
    return sum(moment.kept) + sum(moment.held)
