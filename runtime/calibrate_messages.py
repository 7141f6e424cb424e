"""Times collectives among processes of this host, by kind and size: what prices of layouts are made of.

In: how many of the processes that there are (the first ones), a device, the most bytes. Out: kind, processes, bytes,
seconds. What is timed is what a program's instruction does, staging and waiting included, as a step meets it: rounds of
one message of each kind and size in ever another order, each process having computed for some milliseconds since the
last one, so that caches hold other things, its threads sleep and the scheduler has others to run. A message takes what
a process waits, for the others too, who come now sooner, now later; where they share cores, those that wait leave
theirs to the others, so that it takes from when the last one comes. A step has many messages, and their sum goes as
their mean: where a wake-up now and then waits for a tick of the scheduler, that is twice the median.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from .collectives import Processes
from .layout import Mesh
from .program import Collective, CollectiveKind

AXIS = "here"
KINDS: tuple[CollectiveKind, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
LEAST_BYTES = 256
PROBES = 4  # raised whenever what is sent, or how it is met, changes
LEAST_ROUNDS, MOST_ROUNDS = 5, 41
BUDGET_S = 6.0  # of all kinds and sizes among so many processes
BETWEEN_BYTES = 4 << 20  # that a process writes between two messages: of its core's own caches nothing is left
BETWEEN_SIDE = 512  # of the square matrices that it multiplies: 0.3 GFLOP, some milliseconds of a core
ODD = 0.05  # of a message's runs, at either end: as much as the next of them


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


def timed_among(count: int, device: torch.device, most_bytes: int, crowded: bool = False) -> list[Timed]:
    """Messages among the first `count` processes, while the others wait. Every process calls it. crowded: whether they
    are more than have cores of their own."""
    group = dist.new_group(list(range(count)))
    found: list[Timed] = []
    if dist.get_rank() < count:
        assert isinstance(group, dist.ProcessGroup), "a process is in its own group"
        place = Processes(Mesh(((AXIS, count),)), dist.get_rank(), {AXIS: group}, device.type == "cpu")
        found = [*_timed(place, device, most_bytes, crowded)]
    dist.barrier()
    return found


@dataclass(frozen=True, slots=True)
class _Probe:
    """A message, what this process gives to it, and bytes as `Timed` has them."""

    sent: Collective
    x: torch.Tensor
    bytes_: int


def _probes(count: int, device: torch.device, most_bytes: int) -> Iterator[_Probe]:
    """Sizes four times one another."""
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
            yield _Probe(sent, torch.zeros(cut, device=device), 4 * side * (1 if kind == "all_to_all" else count))


def _timed(processes: Processes, device: torch.device, most_bytes: int, crowded: bool) -> Iterator[Timed]:
    """All processes run equally often: they know the same seconds."""
    count = processes.mesh.size
    probes = [*_probes(count, device, most_bytes)]
    seconds: list[list[float]] = [[] for _ in probes]
    written = torch.zeros(BETWEEN_BYTES // 4, device=device)
    side = torch.zeros(BETWEEN_SIDE, BETWEEN_SIDE, device=device)
    mixed, spent = random.Random(0), 0.0
    for turn in range(1 + MOST_ROUNDS):  # the first opens connections
        for place in mixed.sample(range(len(probes)), len(probes)):
            written.add_(1)
            torch.mm(side, side)
            found = _once(processes, probes[place], crowded)
            if turn:
                seconds[place].append(found)
                spent += found
        if turn >= LEAST_ROUNDS and spent > BUDGET_S:
            break
    for probe, runs in zip(probes, seconds, strict=True):
        yield Timed(probe.sent.kind, count, probe.bytes_, winsorized_mean(runs))


def winsorized_mean(runs: Sequence[float]) -> float:
    """So many times it is what many take together (Dixon 1960: at either end an odd one counts as the next of them)."""
    found, odd = sorted(runs), round(ODD * len(runs))
    return statistics.fmean(min(max(one, found[odd]), found[-1 - odd]) for one in found)


def _once(processes: Processes, probe: _Probe, crowded: bool) -> float:
    """What all of them wait on average, or from the last one's begin to the last one's end: they have one clock. They
    have just made what they send."""
    x, group = probe.x.mul_(1), processes.groups[AXIS]
    _synchronize(x.device)
    begin = time.perf_counter()
    processes.begin(probe.sent, [x]).results()
    _synchronize(x.device)
    end = time.perf_counter()
    if crowded:
        last = torch.tensor([begin, end], dtype=torch.float64, device=x.device)
        dist.all_reduce(last, dist.ReduceOp.MAX, group)
        return float(last[1] - last[0])
    waited = torch.tensor(end - begin, dtype=torch.float64, device=x.device)
    dist.all_reduce(waited, dist.ReduceOp.SUM, group)
    return float(waited) / processes.mesh.size


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
