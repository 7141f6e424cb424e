"""Steps of several processes on a machine that is not theirs alone: what others took meanwhile, and steps run again.

In: steps, each run by all processes together. Out: the seconds of the slowest process, and the share of the cores that
was not the processes' own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..busy import DISTURBED, busy_seconds, share

TRIES = 3


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
