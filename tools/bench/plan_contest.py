"""One process of `partita bench plan`: the steps of all plans in turn, beside the other processes.

In: a JSON file (a `PlanContest`) with the builds, the one that is ranked first in front. Out: a `PlanOutcome` as JSON,
written by the first process: seconds of each plan in each round, of its slowest process; the same of a final between
the first and the fastest ones, which goes on until it is told how much slower the first is; bytes, of the process that
needs most. A round that others disturbed is left out and run again, for as long again at most. A plan on fewer devices
runs on the first of them, while the others wait.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from .others import Round, Rounds, Seconds, Taken, round_of, undisturbed
from .outcome import write_outcome

SEED = 0
FINALISTS = 5
ENOUGH = 0.025  # either way: so well the ratio of two plans' seconds is to be known
LEAST_ROUNDS = 15
ABOUT = 0.98  # of the square root of as many as there are: the ranks on either side of the median with 95 % between
CPU = torch.device("cpu")
Line = tuple[int, ...]


@dataclass(frozen=True)
class PlanContest:
    """Which builds, timed steps of each, and at most so many of each in the final, threads of a process."""

    builds: tuple[str, ...]
    rounds: int
    final: int
    threads: int
    result: str = ""


@dataclass(frozen=True)
class PlanOutcome:
    """Of each plan its seconds in each round, and its peak. finalists: which plans; final: their seconds in each round
    of the final. others: the median share of the cores that others took in the rounds that count. left_out: rounds of
    the final that others disturbed, and that were run again."""

    seconds: Seconds
    bytes: tuple[int, ...]
    finalists: tuple[int, ...]
    final: Seconds
    others: float
    left_out: int = 0


def read_outcome(path: Path) -> PlanOutcome:
    """What the first process wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    seconds, final = (tuple(map(tuple, found[key])) for key in ("seconds", "final"))
    return PlanOutcome(
        seconds, tuple(found["bytes"]), tuple(found["finalists"]), final, found["others"], found["left_out"]
    )


def paced(seconds: Sequence[Sequence[float]]) -> list[float]:
    """Of each plan the median over the rounds of its share in a round, times the median round: what makes the machine
    slower for a whole round makes no plan slower than another."""
    rounds = [statistics.geometric_mean(one) for one in zip(*seconds, strict=True)]
    usual = statistics.median(rounds)
    shares = [[own / whole for own, whole in zip(plan, rounds, strict=True)] for plan in seconds]
    return [usual * statistics.median(share) for share in shares]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A plan's seconds over another's: the median over the rounds, and what it lies between with 95 % confidence."""

    median: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there have been rounds enough."""
        return self.high - self.low <= 2 * ENOUGH


def ratio(plan: Sequence[float], other: Sequence[float]) -> Ratio:
    """Round by round. A median's bounds are order statistics (Conover 1999, section 3.2): no spread is presumed."""
    found = sorted(own / its for own, its in zip(plan, other, strict=True))
    reach = math.ceil(ABOUT * math.sqrt(len(found)))
    low, high = ((len(found) - 1) / 2 + way * reach for way in (-1, 1))
    return Ratio(statistics.median(found), found[max(0, math.floor(low))], found[min(len(found) - 1, math.ceil(high))])


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
    groups, mixed = _Groups(), random.Random(SEED)  # the same in all processes
    plans = [_Plan.open(build, groups) for build in contest.builds]
    peaks = torch.tensor([_peak(plan) for plan in plans])
    timed = _rounds(plans, mixed)
    timed.run(contest.rounds, contest.rounds)
    usual = paced(timed.seconds)
    fastest = sorted(range(1, len(plans)), key=lambda at: usual[at])
    finalists = (0, *fastest[: FINALISTS - 1])
    final = _rounds([plans[at] for at in finalists], mixed)
    final.run(contest.final, min(contest.final, LEAST_ROUNDS), known)
    dist.all_reduce(peaks, dist.ReduceOp.MAX)
    counted = [*timed.counted, *final.counted]
    others, left_out = statistics.median(one.others for one in counted), len(final.run_so_far) - len(final.counted)
    return PlanOutcome(timed.seconds, tuple(peaks.tolist()), finalists, final.seconds, others, left_out)


def known(seconds: Seconds) -> bool:
    """Whether it can be said how the first plan's seconds stand to each of the others'."""
    first, *rest = seconds
    return len(first) >= LEAST_ROUNDS and all(ratio(first, other).known for other in rest)


def _rounds(plans: Sequence[_Plan], mixed: random.Random) -> Rounds:
    """Plans that run in turn, in ever another order."""
    steps = [0] * len(plans)

    def once() -> Round:
        found = [Taken(0.0, 0.0)] * len(plans)
        for index in mixed.sample(range(len(plans)), len(plans)):
            found[index] = undisturbed(partial(_seconds, plans[index], 2 + steps[index]))
            steps[index] += 1
        return round_of(found)

    return Rounds(once)


def _seconds(plan: _Plan, number: int) -> float:
    """Of one step in this process; 0 where it has no part in it."""
    begin = time.perf_counter()
    if plan.run is None:
        return 0.0
    plan.run(number)
    return time.perf_counter() - begin


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
