"""Times collectives among processes of this host, by kind and size: what prices of layouts are made of.

In: how many of the processes that there are (the first ones), a device, the most bytes. Out: kind, processes, bytes,
seconds. What is timed is what a program's instruction does, staging and waiting included; the slowest process counts,
and the median run: a step meets neither the best nor the worst.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from .collectives import Processes
from .layout import Mesh
from .program import Collective, CollectiveKind

AXIS = "here"
KINDS: tuple[CollectiveKind, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
LEAST_BYTES = 256
RUNS = 31
BUDGET_S = 0.3  # of a kind and size, after its first run


@dataclass(frozen=True, slots=True)
class Timed:
    """A collective among so many processes. bytes_: of what is whole; of an all-to-all, of what one has."""

    kind: str
    processes: int
    bytes_: int
    seconds: float


def sizes_of_groups(processes: int) -> list[int]:
    """Among how many of so many processes messages are timed: powers of two, and all."""
    return sorted({1 << n for n in range(1, processes.bit_length()) if 1 << n <= processes} | {processes})


def timed_among(count: int, device: torch.device, most_bytes: int) -> list[Timed]:
    """Messages among the first `count` processes, while the others wait. Every process calls it."""
    group = dist.new_group(list(range(count)))
    found: list[Timed] = []
    if dist.get_rank() < count:
        assert isinstance(group, dist.ProcessGroup), "a process is in its own group"
        place = Processes(Mesh(((AXIS, count),)), dist.get_rank(), {AXIS: group}, device.type == "cpu")
        found = [*_timed(place, device, most_bytes)]
    dist.barrier()
    return found


def _timed(processes: Processes, device: torch.device, most_bytes: int) -> Iterator[Timed]:
    """Sizes four times one another."""
    count = processes.mesh.size
    sizes = [LEAST_BYTES << n for n in range(0, 64, 2) if LEAST_BYTES << n <= most_bytes]
    for kind in KINDS:
        for size in sizes:
            side = max(count, size // 4 // count // count * count)  # float32, both dims even
            whole = (side, count)
            made = whole if kind in ("all_reduce", "all_gather") else (side // count, count)
            sent = Collective(
                kind, AXIS, ("x",), ("y",), (made,), "f32", dims=(0,), sizes=(side,), join=1, join_size=count
            )
            cut = {"all_gather": (side // count, count), "all_to_all": (side, 1)}.get(kind, whole)
            x = torch.zeros(cut, device=device)
            bytes_ = 4 * side * (1 if kind == "all_to_all" else count)
            yield Timed(kind, count, bytes_, _median(processes, sent, x))


def _median(processes: Processes, sent: Collective, x: torch.Tensor) -> float:
    """Of several runs, each as long as the slowest process takes. All processes run equally often."""
    group, runs = processes.groups[AXIS], list[float]()
    for run in range(RUNS):
        dist.barrier(group)
        begin = time.perf_counter()
        processes.begin(sent, [x]).results()
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        slowest = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX, group)
        if run:  # the first opens connections
            runs.append(float(slowest))
        if sum(runs) > BUDGET_S:
            break
    return statistics.median(runs)
