"""`partita bench predict`: what was foretold of steps against what they took: seconds by the table, bytes by lifetimes.

Each case is a recipe of specs/ with a few values set. Seconds are the median of several steps by the clock that the
table was timed with (on one thread of a CPU that thread's own), as the table's are medians; bytes are those of the
allocator's events. Between steps a few kernels that the table knows are timed again: how much longer they take now than
then tells whether the machine is what it was (another clock frequency, somebody else's work). Nothing is corrected by
it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import torch

from ...compiler.cost.table import Table
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.lower.build import compile_graphs
from ...compiler.pipeline import open_spec, step_graph
from ...runtime.calls import traced
from ...runtime.execute import Executable
from ...runtime.folder import executable
from ...runtime.machine import clock
from ...runtime.memory import measure_peak
from ...runtime.program import Program
from ...runtime.state import initial_store

aten = torch.ops.aten
SEED = 0
SIDE, ELEMENTS = 256, 1 << 20  # as `calibrate` times them
BF16 = "precision=mixed(compute = bf16)"
Sets = tuple[str, ...]
# name, recipe of bench_step.partita, what is set: sizes, batches, rows, microbatches, types, optimizers
CASES: tuple[tuple[str, str, Sets], ...] = (
    ("small", "small", ()),
    ("small, batch 2", "small", ("batch=2",)),
    ("small, batch 32", "small", ("batch=32",)),
    ("small, rows of 32", "small", ("dims.T=32",)),
    ("small, rows of 256", "small", ("dims.T=256", "batch=4")),
    ("small, 4 microbatches", "small", ("batch=16", "microbatches=4")),
    ("small, sgd", "small", ("optimizer=sgd",)),
    ("small, clipped", "small", ("clip=1.0", "log.grad_norm=true")),
    ("small, bf16", "small", (BF16,)),
    ("small, bf16, 2 microbatches", "small", (BF16, "microbatches=2")),
    ("medium", "medium", ()),
    ("medium, batch 1", "medium", ("batch=1",)),
    ("medium, bf16", "medium", (BF16,)),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Foretold and measured; errors are relative to this. `slowdown`: of kernels, since the table was timed."""

    name: str
    predicted_seconds: float
    seconds: float
    predicted_bytes: int
    bytes: int
    slowdown: float = 1.0

    @property
    def time_error(self) -> float:
        """Positive where the step was foretold too slow."""
        return self.predicted_seconds / self.seconds - 1

    @property
    def memory_error(self) -> float:
        """Positive where more was foretold."""
        return self.predicted_bytes / self.bytes - 1


def bench_predict(names: Sequence[str], rounds: int, table: Table) -> list[Outcome]:
    """The cases of these names, and all of these recipes, each run `rounds` times after some."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    return [_outcome(spec, case, rounds, table) for case in CASES if {*case[:2]} & {*names}]


def _outcome(spec: Spec, case: tuple[str, str, Sets], rounds: int, table: Table) -> Outcome:
    name, which, sets = case
    graph = step_graph(spec, load_recipe(spec, which, list(sets)))
    build, sources = compile_graphs({"step": graph}, {}, {}, table=table)
    runnable, program = executable(build, sources), build.programs["step"]
    seconds, peak, slowdown = _measured(runnable, _rows(program), rounds, table)
    foretold = build.predictions
    return Outcome(name, foretold["step_seconds"], seconds, int(foretold["peak_bytes"]), peak, slowdown)


def _measured(
    runnable: Executable, rows: list[dict[str, torch.Tensor]], rounds: int, table: Table
) -> tuple[float, int, float]:
    """The median seconds of a step, the peak of one, and the pace of the machine meanwhile."""
    store = initial_store(runnable.build, SEED)
    runnable.run("step", store, rows)
    held = [*store.values(), *(tensor for part in rows for tensor in part.values())]
    _, peak = measure_peak(lambda: runnable.run("step", store, rows, step=1), held, torch.device("cpu"))
    runnable.run("step", store, rows, step=2)  # what the profiler has left behind is gone
    now, probes = clock(torch.device("cpu")), Probes(table)
    taken: list[float] = []
    for number in range(rounds):
        start = now()
        runnable.run("step", store, rows, step=3 + number)
        taken.append(now() - start)
        probes.again()
    return statistics.median(taken), peak, probes.slowdown


class Probes:
    """A product and an elementwise kernel that the table has points of, timed now and then."""

    def __init__(self, table: Table) -> None:
        a, b = torch.randn(2, SIDE, SIDE)
        x, y = torch.rand(2, ELEMENTS)
        self.calls = [lambda: aten.mm.default(a, b), lambda: aten.gelu_backward.default(x, y, approximate="tanh")]
        known = {point.call: point.seconds for point in table.points}
        said = [traced(call)[-1] for call in self.calls]
        self.then = [known.get(call, table.seconds(call)) for call in said]
        self.now: list[list[float]] = [[] for _ in self.calls]

    def again(self) -> None:
        """Each once, behind a step, as the table's were behind other kernels."""
        now = clock(torch.device("cpu"))
        with torch.no_grad():
            for call, taken in zip(self.calls, self.now, strict=True):
                start = now()
                call()
                taken.append(now() - start)

    @property
    def slowdown(self) -> float:
        """The geometric mean over the kernels of now over then."""
        medians = [statistics.median(taken) for taken in self.now]
        return statistics.geometric_mean(now / then for now, then in zip(medians, self.then, strict=True))


def _rows(program: Program) -> list[dict[str, torch.Tensor]]:
    """Ids for every microbatch."""
    generator = torch.Generator().manual_seed(SEED)
    given = [i for i in program.inputs if i.source == "data"]
    return [
        {i.name: torch.randint(0, i.below or 2, i.shape, generator=generator) for i in given}
        for _ in range(program.microbatches)
    ]


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The `--json` form: every case, and the worst and median errors."""
    times, memories = ([abs(error) for error in errors] for errors in zip(*_errors(outcomes), strict=True))
    return {
        "cases": [{**asdict(one), "time_error": one.time_error, "memory_error": one.memory_error} for one in outcomes],
        "worst_time_error": max(times),
        "median_time_error": statistics.median(times),
        "worst_memory_error": max(memories),
        "median_memory_error": statistics.median(memories),
    }


def _errors(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    return [(one.time_error, one.memory_error) for one in outcomes]
