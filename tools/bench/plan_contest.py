"""One process of `partita bench plan`: the steps of all plans in turn, beside the other processes.

In: a JSON file (a `PlanContest`) with the builds, the one that is ranked first in front. Out: a `PlanOutcome` as JSON,
written by the first process: seconds of each plan in each round, of its slowest process; the same of a final between
the first and the fastest ones; bytes, of the process that needs most. A plan on fewer devices runs on the first of
them, while the others wait.
"""

from __future__ import annotations

import json
import random
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

from ...runtime.allocator import keep_freed_memory
from ...runtime.collectives import Processes
from ...runtime.folder import load
from ...runtime.memory import measure_peak
from ...runtime.process import process_group
from ...runtime.program import Program
from ...runtime.state import initial_store
from .outcome import write_outcome

SEED = 0
FINALISTS = 5
CPU = torch.device("cpu")
Line = tuple[int, ...]


@dataclass(frozen=True)
class PlanContest:
    """Which builds, timed steps of each, and of each in the final, threads of a process."""

    builds: tuple[str, ...]
    rounds: int
    final: int
    threads: int
    result: str = ""


@dataclass(frozen=True)
class PlanOutcome:
    """Of each plan its seconds in each round, and its peak. finalists: which plans; final: their seconds in each round
    of the final."""

    seconds: tuple[tuple[float, ...], ...]
    bytes: tuple[int, ...]
    finalists: tuple[int, ...]
    final: tuple[tuple[float, ...], ...]


def read_outcome(path: Path) -> PlanOutcome:
    """What the first process wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    seconds, final = (tuple(map(tuple, found[key])) for key in ("seconds", "final"))
    return PlanOutcome(seconds, tuple(found["bytes"]), tuple(found["finalists"]), final)


def paced(seconds: Sequence[Sequence[float]]) -> list[float]:
    """Of each plan the median over the rounds of its share in a round, times the median round: what makes the machine
    slower for a whole round makes no plan slower than another."""
    rounds = [statistics.geometric_mean(one) for one in zip(*seconds, strict=True)]
    usual = statistics.median(rounds)
    shares = [[own / whole for own, whole in zip(plan, rounds, strict=True)] for plan in seconds]
    return [usual * statistics.median(share) for share in shares]


class _Groups:
    """Groups of processes, each made once. All processes ask for the same ones in the same order."""

    def __init__(self) -> None:
        self.made: dict[Line, Any] = {}

    def of(self, line: Line) -> Any:
        """The group of these processes."""
        if line not in self.made:
            self.made[line] = dist.new_group(list(line))
        return self.made[line]


@dataclass(frozen=True)
class _Plan:
    """One plan in this process. run: a step, with the number of it; none where the process has no part in it."""

    run: Callable[[int], object] | None
    held: Sequence[Tensor] = ()

    @staticmethod
    def open(build: str, groups: _Groups) -> _Plan:
        executable, rank = load(build, CPU), dist.get_rank()
        mesh = executable.build.mesh
        mine: dict[str, Any] = {}
        for axis in dict.fromkeys((*mesh.names, *mesh.lengths)):
            for line in dict.fromkeys(mesh.along(other, axis)[1] for other in range(mesh.size)):
                group = groups.of(line) if len(line) > 1 else None
                mine |= {axis: group} if rank in line else {}
        if rank >= mesh.size:
            return _Plan(None)
        if mesh.size > 1:
            executable = replace(executable, communicator=Processes(mesh, rank, mine, True))
        store = initial_store(executable.build, SEED, CPU, rank)
        data = _rows(executable.build.programs_of(rank)["step"])
        tensors = [*store.values(), *(tensor for part in data for tensor in part.values())]
        return _Plan(lambda step: executable.run("step", store, data, step=step), tensors)


def _rows(program: Program) -> list[dict[str, Tensor]]:
    """This process's ids for every microbatch: any will do."""
    generator = torch.Generator().manual_seed(SEED)
    given = [one for one in program.inputs if one.source == "data"]
    return [
        {one.name: torch.randint(0, one.below or 2, one.shape, generator=generator) for one in given}
        for _ in range(program.microbatches)
    ]


def hold(contest: PlanContest) -> PlanOutcome:
    """Peaks first, of each plan's second step; then times; then those of the fastest again, more often.

    Every process comes to the same finalists.
    """
    groups = _Groups()
    plans = [_Plan.open(build, groups) for build in contest.builds]
    peaks = torch.tensor([_peak(plan) for plan in plans])
    seconds = _taken(plans, contest.rounds)
    usual = paced(seconds)
    others = sorted(range(1, len(plans)), key=lambda at: usual[at])
    finalists = (0, *others[: FINALISTS - 1])
    final = _taken([plans[at] for at in finalists], contest.final)
    dist.all_reduce(peaks, dist.ReduceOp.MAX)
    rows = (tuple(map(tuple, one)) for one in (seconds, final))
    return PlanOutcome(next(rows), tuple(peaks.tolist()), finalists, next(rows))


def _taken(plans: Sequence[_Plan], rounds: int) -> list[list[float]]:
    """Seconds of one step of each in each round, of the slowest process, in ever another order."""
    seconds = torch.zeros(len(plans), rounds, dtype=torch.float64)
    mixed = random.Random(SEED)  # the same in all processes
    for turn in range(rounds):
        for index in mixed.sample(range(len(plans)), len(plans)):
            run = plans[index].run
            dist.barrier()
            begin = time.perf_counter()
            if run is not None:
                run(2 + turn)
                seconds[index, turn] = time.perf_counter() - begin
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return seconds.tolist()


def _peak(plan: _Plan) -> int:
    """Bytes of this process; all wait for one another."""
    peak, run = 0, plan.run
    if run is not None:
        run(0)
        _, peak = measure_peak(lambda: run(1), plan.held, CPU)
    dist.barrier()
    return peak


def main() -> int:
    """Reads the contest, holds it, and writes the outcome."""
    keep_freed_memory()  # as a run does
    said: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    contest = PlanContest(tuple(said["builds"]), said["rounds"], said["final"], said["threads"], said["result"])
    torch.set_num_threads(contest.threads)
    with process_group(CPU):
        found = hold(contest)
        write_outcome(asdict(found), contest.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
