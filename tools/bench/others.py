"""Steps of several processes on a machine that is not theirs alone: what others took meanwhile, and steps run again.

In: steps, each run by all processes together. Out: the seconds of the slowest process, and the share of the cores that
was not the processes' own. The clock of the cores has hundredths of a second: of a step it tells whether others took
much, of a round of several steps how much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from ..busy import DISTURBED, busy_seconds, share

TRIES = 3
LOUD = 0.05  # of the cores' time over a round
AGAIN = 2  # times as many rounds as are wanted, at most
Seconds = tuple[tuple[float, ...], ...]  # of each kind of step in each round


@dataclass(frozen=True, slots=True)
class Taken:
    """A step. seconds: of the slowest process; others: share of the cores' time that others took."""

    seconds: float
    others: float


def undisturbed(step: Callable[[], float]) -> Taken:
    """A step run until others took little, at most so often; the one that was disturbed least. All processes call it,
    and run it equally often. `step` says its seconds in this process."""
    found = [_taken(step)]
    while found[-1].others > DISTURBED and len(found) < TRIES:
        found.append(_taken(step))
    return min(found, key=lambda one: one.others)


def _taken(step: Callable[[], float]) -> Taken:
    """One run, told alike by all processes."""
    dist.barrier()
    begin, busy, own = time.perf_counter(), busy_seconds(), time.process_time()
    seconds = step()
    dist.barrier()
    wall = time.perf_counter() - begin
    slowest = torch.tensor([seconds, wall, busy_seconds() - busy], dtype=torch.float64)
    ours = torch.tensor([time.process_time() - own], dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    dist.all_reduce(ours)
    most, wall, busy = slowest.tolist()
    return Taken(most, share(busy, ours.item(), wall))


@dataclass(frozen=True, slots=True)
class Round:
    """Steps of several kinds, one of each. others: share of the cores that others took meanwhile."""

    seconds: tuple[float, ...]
    others: float


def round_of(steps: Sequence[Taken]) -> Round:
    """These steps as one."""
    seconds = tuple(one.seconds for one in steps)
    return Round(seconds, sum(one.seconds * one.others for one in steps) / sum(seconds))


@dataclass
class Rounds:
    """Rounds, of which those that others disturbed are left out and run again. All processes agree on them."""

    once: Callable[[], Round]
    run_so_far: list[Round] = field(default_factory=list[Round])
    least: int = 0

    def run(self, most: int, least: int, known: Callable[[Seconds], bool] = lambda _: False) -> None:
        """Until `most` are quiet, or at least `least` and their seconds are `known`; at most AGAIN times as many.
        `least` count, disturbed or not."""
        self.least = least
        while len(self.run_so_far) < AGAIN * most:
            quiet = self._quiet()
            if len(quiet) >= most or (len(quiet) >= least and known(_by_kind(quiet))):
                return
            self.run_so_far.append(self.once())

    @property
    def counted(self) -> list[Round]:
        """The quiet ones; where those are too few, the ones that were disturbed least."""
        quiet = self._quiet()
        loud = sorted((one for one in self.run_so_far if one.others > LOUD), key=lambda one: one.others)
        return [*quiet, *loud[: max(0, self.least - len(quiet))]]

    @property
    def seconds(self) -> Seconds:
        """Of those that count."""
        return _by_kind(self.counted)

    def _quiet(self) -> list[Round]:
        return [one for one in self.run_so_far if one.others <= LOUD]


def _by_kind(rounds: Sequence[Round]) -> Seconds:
    return tuple(zip(*(one.seconds for one in rounds), strict=True))
