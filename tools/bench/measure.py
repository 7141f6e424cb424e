"""How steps are measured: alternating runs in one process, medians; peak memory by allocator events.

Memory is what PyTorch's allocator handed out, not the process's RSS: on CUDA its own statistics, on the CPU the
profiler's memory events from before a contestant's first tensor until after its last step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from ...runtime.memory import quiet

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Ours over theirs on one case: below 1 we are faster, or smaller. `default`: ours is as it runs by default."""

    name: str
    peer: str
    ours: str
    default: bool
    ratio_time: float
    ratio_memory: float
    ours_seconds: float
    peer_seconds: float
    ours_bytes: int
    peer_bytes: int


def alternate(steps: Sequence[Step], rounds: int, device: torch.device) -> list[float]:
    """Median seconds of each step, run in turn `rounds` times after one warm-up round.

    On one CPU thread they are this process's own, so that whoever else is busy here stretches nobody's.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for index, step in enumerate(steps):
            start = clock()
            step()
            _synchronize(device)
            if turn > 0:
                seconds[index].append(clock() - start)
    return [statistics.median(s) for s in seconds]


def peak_bytes(make: Callable[[], Step], device: torch.device) -> int:
    """The allocator's peak while a contestant that `make` builds from nothing runs its third step."""
    if device.type == "cuda":
        base = torch.cuda.memory_allocated(device)
        step = make()
        step()
        step()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - base
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make()
        step()
        step()
        with torch.profiler.record_function("measured"):
            step()
    return _peak_of_events(profiler)


def _peak_of_events(profiler: profile) -> int:
    """Running sum of allocations and frees; the maximum inside the range called `measured`."""
    results: Any = cast("Any", profiler).profiler.kineto_results  # what the public tables leave out: every event's size
    events = sorted(results.events(), key=lambda e: e.start_ns())
    memory = [e for e in events if e.name() == "[memory]"]
    (measured,) = [e for e in events if e.name() == "measured"]
    start, end = measured.start_ns(), measured.start_ns() + measured.duration_ns()
    level = accumulate(e.nbytes() for e in memory)
    inside = [total for e, total in zip(memory, level, strict=True) if start <= e.start_ns() <= end]
    return max(inside, default=0)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(cases: Sequence[Case]) -> dict[str, object]:
    """The `--json` form: every case, and the worst ratios of what runs by default, against the best of all peers."""
    return {
        "cases": [asdict(c) for c in cases],
        "worst_time": max(c.ratio_time for c in cases if c.default),
        "worst_memory": max(c.ratio_memory for c in cases if c.default),
    }
