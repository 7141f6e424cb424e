"""Steps of several processes on a machine that is not theirs alone: what others took meanwhile, and steps run again.

In: steps, each run by all processes together. Out: the seconds of the slowest process, and the share of the cores that
was not the processes' own. `/proc/stat` says how long all cores were busy (proc(5); a hypervisor's steal among it), in
hundredths of a second; where there is none, nobody else is seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

STAT = Path("/proc/stat")
IDLE, GUESTS = (3, 4), 8  # places of idle and iowait; from `guest` on everything is counted among what is before
TRIES = 3
DISTURBED = 0.1  # of the cores' time: more than what the clock's hundredths and the system itself come to


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
    return Taken(most, max(0.0, busy - ours.item()) / (wall * (os.cpu_count() or 1)))


def busy_seconds(stat: Path = STAT) -> float:
    """What all cores together were busy since the machine was started; 0 where nothing says so."""
    try:
        first = stat.read_text(encoding="ascii", errors="replace").partition("\n")[0].split()[1 : 1 + GUESTS]
        return sum(int(ticks) for at, ticks in enumerate(first) if at not in IDLE) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0
