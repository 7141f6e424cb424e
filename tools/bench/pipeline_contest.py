"""One process of `partita bench pipeline`: our stage and its peers' in turn, step by step, beside the other processes.

In: a JSON file (a `PipelineContest`) that says which build, which peers, how often. Out: a `PipelineOutcome` as JSON,
written by the first process: seconds of each round, those of the slowest process; bytes of every process; losses.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...runtime.allocator import keep_freed_memory
from ...runtime.folder import load
from ...runtime.mesh import join_mesh
from ...runtime.process import own_device, process_group
from ...runtime.state import initial_store
from .contest import alternate
from .measure import peak_bytes
from .peers import Shape
from .pipeline_peers import pipelined

SEED = 0
LOSSES = 5  # steps whose losses are compared
CHUNKED = ", chunked loss"
Run = Callable[[int], Tensor]  # a step's number to the loss, or to this process's part of it


@dataclass(frozen=True)
class PipelineContest:
    """What is run: a build on a mesh `pipe`, against the peers of these names (`PyTorch`, `PyTorch, chunked loss`).

    schedule, layers, placement  the schedule's name, the layers of each chunk, the process of each chunk
    """

    build: str
    peers: tuple[str, ...]
    shape: Shape
    schedule: str
    layers: tuple[int, ...]
    placement: tuple[int, ...]
    microbatches: int
    lr: float
    rounds: int
    result: str


@dataclass(frozen=True)
class PipelineOutcome:
    """Of each contestant, ours first: its seconds in each round, the peak of each process, its losses step by step."""

    names: tuple[str, ...]
    seconds: tuple[tuple[float, ...], ...]
    bytes: tuple[tuple[int, ...], ...]
    losses: tuple[tuple[float, ...], ...]

    def ratio_time(self, peer: int) -> float:
        """Median over the rounds of our seconds over theirs."""
        return statistics.median(a / b for a, b in zip(self.seconds[0], self.seconds[peer], strict=True))

    def ratios_memory(self, peer: int) -> tuple[float, ...]:
        """Process by process."""
        return tuple(a / b for a, b in zip(self.bytes[0], self.bytes[peer], strict=True))

    def gap(self, peer: int) -> float:
        """The largest relative difference of losses."""
        return max(abs(a - b) / abs(b) for a, b in zip(self.losses[0], self.losses[peer], strict=True))


class _Process:
    """What a contestant needs of this process."""

    def __init__(self, contest: PipelineContest) -> None:
        self.contest, self.device = contest, own_device("cpu")
        self.executable = load(contest.build, self.device)
        self.place = join_mesh(self.executable.build.mesh, self.device)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """tokens[batch, T] and target[batch, T] of a step."""
        shape, generator = self.contest.shape, torch.Generator().manual_seed(step)
        size = (shape.rows, shape.tokens)
        tokens, target = (torch.randint(shape.vocabulary, size, generator=generator) for _ in range(2))
        return tokens, target

    def ours(self) -> Run:
        """Partita's step; every process knows the loss, of which it says its share."""
        assert self.place is not None, "a pipeline has several processes"
        mine = replace(self.executable, communicator=self.place.processes)
        store = initial_store(mine.build, SEED, self.device, self.place.rank)

        def run(number: int) -> Tensor:
            columns = [tensor.chunk(self.contest.microbatches) for tensor in self.batch(number)]
            data = [{"tokens": a, "target": b} for a, b in zip(*columns, strict=True)]
            return mine.run("step", store, data, step=number)["loss"] / dist.get_world_size()

        return run

    def peer(self, name: str) -> Run:
        """The step of a peer; the process of the last chunk knows the loss."""
        contest = self.contest
        step = pipelined(
            contest.shape,
            initial_store(self.executable.build, SEED, self.device),
            contest.lr,
            schedule=contest.schedule,
            layers=contest.layers,
            placement=contest.placement,
            microbatches=contest.microbatches,
            chunked=name.endswith(CHUNKED),
        )
        return lambda number: step(*self.batch(number))


def hold(contest: PipelineContest) -> PipelineOutcome:
    """Losses first, on fresh batches; then times, on one batch; then memory, one contestant after another."""
    process = _Process(contest)
    makes = [process.ours, *((lambda name=name: process.peer(name)) for name in contest.peers)]
    losses: list[tuple[float, ...]] = []
    for make in makes:
        step = make()
        losses.append(tuple(_sum(step(number)) for number in range(LOSSES)))
        del step
    running = [make() for make in makes]
    seconds = alternate([(lambda step=step: step(0)) for step in running], contest.rounds)
    del running
    peaks = [by_process(peak_bytes(_fixed(make), process.device)) for make in makes]
    return PipelineOutcome(("Partita", *contest.peers), tuple(map(tuple, seconds)), tuple(peaks), tuple(losses))


def _sum(share: Tensor) -> float:
    """Over the processes."""
    whole = share.detach().double()
    dist.all_reduce(whole)
    return float(whole)


def by_process(own: int) -> tuple[int, ...]:
    """What every process says, in the order of ranks."""
    said = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(said, torch.tensor([own]))
    return tuple(int(one) for one in said)


def _fixed(make: Callable[[], Run]) -> Callable[[], Callable[[], Tensor]]:
    """A contestant that is made anew, and runs the same batch again and again."""

    def made() -> Callable[[], Tensor]:
        step = make()
        return lambda: step(0)

    return made


def main() -> int:
    """Reads the contest, holds it, and writes the outcome."""
    keep_freed_memory()  # as a run does; for the peers too
    torch.set_num_threads(1)  # a core for each process, where there are as many
    said: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    said |= {key: tuple(said[key]) for key in ("peers", "layers", "placement")}
    said["shape"] = Shape(**said["shape"])
    contest = PipelineContest(**said)
    with process_group(torch.device("cpu")):
        found = hold(contest)
        if dist.get_rank() == 0:
            Path(contest.result).write_text(json.dumps(asdict(found)), encoding="utf-8")
        gc.collect()  # the peers hold groups of processes in cycles, whose threads must end before the process does
        dist.barrier()
    return 0


if __name__ == "__main__":
    sys.exit(main())
