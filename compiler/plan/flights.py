"""What each device of a schedule has in flight, moment by moment: what its memory is counted from.

In: a schedule, stages, microbatches. Out: for each device the moments at which it may hold most: which chunk computes,
how many other microbatches are between their forward and their backward in each of its chunks, and how many between the
halves of their backward; and the most messages that there are beside them. Moments that hold no more than another one
are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from operator import le
from typing import NamedTuple

from ..schedule.actions import Kind, Schedule
from ..schedule.forms import TOKEN_SLICES, computing, parse_form
from ..schedule.verify import BUFFERS


class Moment(NamedTuple):
    """A chunk of a device computes, by its place there. kept, held: chunk by chunk, of the other microbatches those
    whose forward is done, and those that wait for the weights' half of their backward. late: this is that half."""

    chunk: int
    kept: tuple[int, ...]
    held: tuple[int, ...]
    late: bool = False


class Flight(NamedTuple):
    """Of a device. before, behind: chunk by chunk, the messages over its beginning and over its end."""

    moments: Sequence[Moment]
    before: tuple[int, ...] = (0,)
    behind: tuple[int, ...] = (0,)


Flights = Callable[[int], Flight]  # by device, read when asked for: the first may say enough
ALONE = Flight((Moment(0, (0,), (0,)),))  # one microbatch on a device with one chunk


def flights(schedule: str, stages: int, microbatches: int) -> Flights:
    """Of 1F1B as many microbatches as stages follow, of GPipe all; of others what their schedule says."""
    if schedule in ("1f1b", "gpipe", "zero_bubble"):
        return cache(partial(_closed, schedule, _Sends(tuple(range(stages)), microbatches)))
    return cache(partial(_read, computing(parse_form(schedule), stages, microbatches)))


def in_flight(schedule: str, stages: int, microbatches: int) -> float:
    """Microbatches whose activations a device has of each of its chunks when it has most, on the mean of devices; of
    token slices, which are parts of them, one."""
    if stages == 1 or parse_form(schedule).name == TOKEN_SLICES:
        return 1.0
    found = flights(schedule, stages, microbatches)
    devices = (found(device).moments for device in range(stages))
    most = (max((sum(m.kept) + sum(m.held) + 1) / len(m.kept) for m in moments) for moments in devices)
    return sum(most) / stages


def certain(schedule: str, stages: int, microbatches: int) -> Flights | None:
    """A moment that each of several devices with several chunks comes to for certain, known before a schedule is
    written down: its first backward. None where none is known.

    Interleaved, device d is (v + 1) p - 2 d - 1 forwards ahead then, or all of them: p of each chunk, then, if there
    are more, those of the first one. In a V whose times are equal, 2p: until the first microbatch is back those of its
    first chunk, then of both in turn.
    """
    form = parse_form(schedule)
    placement = form.placement(stages)
    chunks = len(placement) // stages
    sends = _Sends(placement, microbatches)
    if stages > 1 and form.name == "interleaved" and chunks > 1 and microbatches % stages == 0:
        return lambda device: sends.steady([_looped(sends, chunks, device)], device)
    if stages > 1 and form.name == "zero_bubble_v":
        return lambda device: sends.steady([_vee(sends, device)], device)
    return None


def _looped(sends: _Sends, chunks: int, device: int) -> Moment:
    stages = len(sends.placement) // chunks
    ahead = min((chunks + 1) * stages - 2 * device - 1, chunks * sends.microbatches)
    kept = [min(stages, max(0, ahead - chunk * stages)) for chunk in range(chunks)]
    kept[0] += max(0, ahead - chunks * stages)
    return Moment(chunks - 1, (*kept[:-1], kept[-1] - 1), (0,) * chunks)


def _vee(sends: _Sends, device: int) -> Moment:
    stages, most = len(sends.placement) // 2, sends.microbatches
    return Moment(1, (min(most, 2 * stages - 1 - device), min(most - 1, device)), (0, 0))


def _closed(schedule: str, sends: _Sends, device: int) -> Flight:
    stages, microbatches = len(sends.placement), sends.microbatches
    if schedule == "zero_bubble":
        return sends.steady(_largest(_delayed(stages, microbatches, device)), device)
    ahead = microbatches if schedule == "gpipe" else min(microbatches, stages - device)
    return sends.beside([_single(ahead - 1)], device)


def _read(plain: Schedule, device: int) -> Flight:
    sends = _Sends(plain.shape.placement, plain.shape.microbatches)
    return sends.steady(_largest(_moments(plain, device)), device)


class _Sends(NamedTuple):
    """Messages of a schedule. Of each way the next one's buffer is there while the last one is computed with
    (`lower/program.py`, `early`), and so many that were sent may be on their way."""

    placement: tuple[int, ...]
    microbatches: int

    def steady(self, moments: Sequence[Moment], device: int, before: int = BUFFERS + 1) -> Flight:
        """At the most."""
        before, behind = min(before, self.microbatches), min(BUFFERS + 1, 2 * self.microbatches - 1)
        homes, last = self.placement, len(self.placement) - 1
        own = [at for at, home in enumerate(homes) if home == device]
        return Flight(
            moments,
            tuple(before if at > 0 and homes[at - 1] != device else 0 for at in own),
            tuple(behind if at < last and homes[at + 1] != device else 0 for at in own),
        )

    def beside(self, moments: Sequence[Moment], device: int) -> Flight:
        """Beside a lone moment that holds most: once all forwards are done none is to come, and no gradient has been
        sent yet."""
        return self.steady(moments, device, min(BUFFERS + 1, self.microbatches - moments[0].kept[0] - 1))


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
