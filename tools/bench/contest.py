"""One process of `partita bench parallel`: ours and its peers in turn, step by step, beside the other process.

In: a JSON file (a `Contest`) that says which build, which peers, how often. Out: an `Outcome` as JSON, written by the
first process: seconds of each round, those of the slower process; bytes, those of the larger; losses.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from ...runtime.allocator import keep_freed_memory
from ...runtime.folder import load
from ...runtime.layout import part
from ...runtime.mesh import join_mesh
from ...runtime.process import own_device, process_group
from ...runtime.program import Program
from ...runtime.state import initial_store
from .measure import peak_bytes
from .outcome import write_outcome
from .parallel_peers import replicated, sharded, tensor_parallel
from .peers import Shape

SEED = 0
LOSSES = 20  # steps whose losses are compared
Step = Callable[[], Tensor]
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Contest:
    """What is run: a build on a mesh of one axis, against the peers of these names; `rounds` timed steps of each."""

    build: str
    peers: tuple[str, ...]
    shape: Shape
    lr: float
    rounds: int
    result: str


@dataclass(frozen=True)
class Outcome:
    """Of each contestant, ours first: its seconds in each round, its peak in bytes, and its losses step by step."""

    names: tuple[str, ...]
    seconds: tuple[tuple[float, ...], ...]
    bytes: tuple[int, ...]
    losses: tuple[tuple[float, ...], ...]

    def ratio_time(self, peer: int) -> float:
        """Median over the rounds of our seconds over theirs."""
        return statistics.median(a / b for a, b in zip(self.seconds[0], self.seconds[peer], strict=True))

    def gap(self, peer: int) -> float:
        """The largest relative difference of losses."""
        return max(abs(a - b) / abs(b) for a, b in zip(self.losses[0], self.losses[peer], strict=True))


class _Process:
    """What a contestant needs of this process."""

    def __init__(self, contest: Contest) -> None:
        self.contest, self.device = contest, own_device("cpu")
        self.executable = load(contest.build, self.device)
        self.build = self.executable.build
        self.place = join_mesh(self.build.mesh, self.device)
        assert self.place is not None, "a contest has several processes"
        (self.axis,) = self.build.mesh.names

    def batch(self, step: int) -> Rows:
        """All rows of a step."""
        shape, generator = self.contest.shape, torch.Generator().manual_seed(step)
        size = (shape.rows, shape.tokens)
        ids = [torch.randint(shape.vocabulary, size, generator=generator) for _ in range(2)]
        return {"tokens": ids[0], "target": ids[1]}

    def ours(self) -> Callable[[int], Tensor]:
        """Partita's step."""
        assert self.place is not None, "a contest has several processes"
        mine = replace(self.executable, communicator=self.place.processes)
        store = initial_store(self.build, SEED, self.device, self.place.rank)
        program = mine.programs["step"]
        return lambda step: mine.run("step", store, [self.own(program, self.batch(step))], step=step)["loss"]

    def own(self, program: Program, rows: Rows) -> Rows:
        """This process's part of a batch, as the build cuts it."""
        assert self.place is not None, "a contest has several processes"
        found: Rows = {}
        for given in program.inputs:
            if given.source == "data":
                offsets, sizes = part(given.whole, given.layout, self.build.mesh, self.place.rank)
                tensor = rows[given.name]
                for dim, (begin, size) in enumerate(zip(offsets, sizes, strict=True)):
                    tensor = tensor.narrow(dim, begin, size)
                found[given.name] = tensor
        return found

    def peer(self, name: str) -> Callable[[int], Tensor]:
        """The step of a peer."""
        assert self.place is not None, "a contest has several processes"
        shape, lr, chunked = self.contest.shape, self.contest.lr, name.endswith("chunked loss")
        weights = initial_store(self.build, SEED, self.device)
        mesh: DeviceMesh = self.place.device_mesh
        if name.startswith("DTensor"):
            step, data = tensor_parallel(shape, weights, lr, mesh), False
        elif name.startswith("DDP"):
            step, data = replicated(shape, weights, lr, chunked), True
        else:
            step, data = sharded(shape, weights, lr, chunked, mesh, again="kept" not in name), True
        del weights
        count, rank = (mesh.size(), mesh.get_local_rank()) if data else (1, 0)

        def run(number: int) -> Tensor:
            rows = {key: tensor.chunk(count)[rank] for key, tensor in self.batch(number).items()}
            return step(rows["tokens"], rows["target"])

        return run

    def mean(self, loss: Tensor) -> float:
        """Over the processes."""
        whole = loss.detach().double()
        dist.all_reduce(whole)
        return float(whole) / dist.get_world_size()


def alternate(steps: Sequence[Step], rounds: int) -> list[list[float]]:
    """Seconds of each step in each round, of the slowest process, after one round that is not timed."""
    seconds = torch.zeros(len(steps), rounds, dtype=torch.float64)
    for turn in range(rounds + 1):
        for index, step in enumerate(steps):
            dist.barrier()
            start = time.perf_counter()
            step()
            if turn:
                seconds[index, turn - 1] = time.perf_counter() - start
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return seconds.tolist()


def hold(contest: Contest) -> Outcome:
    """Losses first, on fresh batches; then times, on one batch; then memory, one contestant after another."""
    process = _Process(contest)
    makes = [process.ours, *((lambda name=name: process.peer(name)) for name in contest.peers)]
    losses: list[tuple[float, ...]] = []
    for make in makes:
        step = make()
        losses.append(tuple(process.mean(step(number)) for number in range(LOSSES)))
        del step
    running = [make() for make in makes]
    seconds = alternate([(lambda step=step: step(0)) for step in running], contest.rounds)
    del running
    peaks = [peak_bytes(_fixed(make), process.device) for make in makes]
    most = torch.tensor(peaks)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    names = ("Partita", *contest.peers)
    return Outcome(names, tuple(map(tuple, seconds)), tuple(most.tolist()), tuple(losses))


def _fixed(make: Callable[[], Callable[[int], Tensor]]) -> Callable[[], Step]:
    """A contestant that is made anew, and runs the same batch again and again."""

    def made() -> Step:
        step = make()
        return lambda: step(0)

    return made


def main() -> int:
    """Reads the contest, holds it, and writes the outcome."""
    keep_freed_memory()  # as a run does; for the peers too
    torch.set_num_threads(1)  # two cores are then all that two processes use
    said: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    said |= {"peers": tuple(said["peers"]), "shape": Shape(**said["shape"])}
    contest = Contest(**said)
    with process_group(torch.device("cpu")):
        found = hold(contest)
        write_outcome(asdict(found), contest.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
