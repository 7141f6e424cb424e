"""`partita bench slices`: a long row through a pipeline, whole and in token slices, measured on real processes.

In: numbers of processes. Out: of each way to cut the row the seconds of a step and the peak of each process, beside
those of the whole row, which one stage after another computes while the others wait. The slices are equal ones, and
those that are foretold to be best (`advised`) by what as many processes were timed to do here (`partita calibrate
--processes N`), else by the roofline; on the cores that there are. A process has one thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from ...compiler.cost.cluster import Cluster, Level, Link
from ...compiler.cost.roofline import node_time
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipe import Plan, Recipe
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import PIPE, Mesh
from ...compiler.kernels import TimedKernels
from ...compiler.pipeline import compile_recipe, open_spec, step_graph
from ...compiler.schedule.actions import one_chunk_each
from ...compiler.schedule.advice import EQUAL, Pipe, best_slices
from ...compiler.schedule.blocks import blocks_of
from ...compiler.schedule.forms import TOKEN_SLICES
from ...compiler.schedule.ladder import Ladder, rung
from ...compiler.schedule.place import place
from ...compiler.schedule.simulate import Price
from ...compiler.schedule.sliced import SlicedBlocks
from ...runtime.launch import launch_module
from ..calibration import cores, table_for, table_here
from ..numbers import bytes_text, seconds_text
from .slices_contest import SlicesContest, SlicesOutcome

WHOLE = "gpipe"
ADVISED = "advised"
WAYS = (*EQUAL, ADVISED)
LOOPBACK = Link(1e9, 5e-4)  # messages among processes of a host, where they were not timed
TOLERANCE = 1e-5  # relative, between losses in float32


@dataclass(frozen=True)
class Sliced:
    """A way to cut the row on so many processes. ratio: of its time to the whole row's, the median over rounds."""

    processes: int
    what: str
    lengths: tuple[int, ...]
    seconds: float
    ratio: float
    bytes: tuple[int, ...]
    gap: float


def bench_slices(
    processes: Sequence[int], rounds: int, size: str = "long", wanted: Sequence[int | str] = WAYS
) -> list[Sliced]:
    """Every wanted way on every number of processes, after the whole row. Raises `RuntimeFault` E0532.

    wanted: numbers of equal slices that divide the row, `ADVISED`
    """
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_pipeline.partita")) as path:
        spec = open_spec(path)
    recipe = load_recipe(spec, size)
    return [case for count in processes for case in _cases(spec, recipe, count, rounds, wanted)]


def _cases(spec: Spec, recipe: Recipe, processes: int, rounds: int, wanted: Sequence[int | str]) -> list[Sliced]:
    tokens = recipe.dims["T"]
    counts = [count for count in wanted if isinstance(count, int) and count > 1]
    ways = {"whole": (tokens,), **{f"{count} equal": (tokens // count,) * count for count in counts}}
    if ADVISED in wanted:
        best = advised(spec, recipe, processes, *_machine(processes))
        ways |= {} if best in ways.values() else {ADVISED: best}
    found = _measured(spec, recipe, processes, list(ways.values()), rounds)
    cases: list[Sliced] = []
    for at, (what, lengths) in enumerate(ways.items()):
        ratio = statistics.median(a / b for a, b in zip(found.seconds[at], found.seconds[0], strict=True))
        gap = abs(found.losses[at] / found.losses[0] - 1)
        assert gap <= TOLERANCE, f"losses differ: {found.losses}"
        seconds = statistics.median(found.seconds[at])
        cases.append(Sliced(processes, what, lengths, seconds, ratio, found.bytes[at], gap))
    return cases


def advised(
    spec: Spec, recipe: Recipe, processes: int, cluster: Cluster, kernels: TimedKernels | None = None
) -> tuple[int, ...]:
    """The lengths that are foretold to be best for a recipe's rows on a pipeline of so many stages."""
    link, tokens = cluster.levels[0].link, recipe.dims["T"]
    blocks = blocks_of(step_graph(spec, recipe), cluster.machine, link)
    cuts = place(blocks, one_chunk_each(processes)).cuts
    ladder = None if kernels is None else _ladder(spec, recipe, kernels)
    half = _equally(spec, recipe, 2)
    sliced = SlicedBlocks(half, lambda node: node_time(node, cluster.machine).seconds, link, ladder=ladder)
    rows = recipe.rows_per_microbatch

    @cache
    def price(chunk: int, length: int, context: int) -> Price:
        return sliced.chunk(*cuts[chunk], rows, length, context)

    pipe = Pipe(processes, recipe.microbatches, tokens, price, cluster.abreast)
    return best_slices(pipe, 1 if ladder is None else ladder.shortest)


def _ladder(spec: Spec, recipe: Recipe, kernels: TimedKernels) -> Ladder:
    """Seconds of slices by the kernels that were timed."""
    tokens = recipe.dims["T"]
    steps = ((count, _equally(spec, recipe, count)) for count in (*reversed(EQUAL), 1) if tokens % count == 0)
    return Ladder([rung(step, tokens, count, kernels(step, Mesh(()))) for count, step in steps])


def _equally(spec: Spec, recipe: Recipe, count: int) -> Graph:
    """The step of rows that are so many equal slices."""
    form = f"{TOKEN_SLICES}({count})" if count > 1 else WHOLE
    return step_graph(spec, replace(recipe, plan=Plan(mesh=((PIPE, 1),), schedule=form)))


def _machine(processes: int) -> tuple[Cluster, TimedKernels | None]:
    """So many processes here, as they were timed; else by one process's roofline."""
    table = table_here("cpu", processes)
    if table is not None:
        return table.cluster(), TimedKernels(table)
    abreast = cores() if cores() < processes else None
    return Cluster(table_for("cpu").machine, 0, (Level(processes, LOOPBACK),), abreast=abreast), None


def _measured(
    spec: Spec, recipe: Recipe, processes: int, ways: Sequence[tuple[int, ...]], rounds: int
) -> SlicesOutcome:
    """Compile each way, start the processes, read what they measured."""
    with tempfile.TemporaryDirectory() as scratch:
        said, result = (Path(scratch) / name for name in ("contest.json", "outcome.json"))
        folders: list[str] = []
        for at, lengths in enumerate(ways):
            form = f"{TOKEN_SLICES}({', '.join(map(str, lengths))})" if lengths[1:] else WHOLE
            plan = Plan(mesh=((PIPE, processes),), schedule=form)
            folders.append(str(Path(scratch) / str(at)))
            compile_recipe(spec, replace(recipe, plan=plan), folders[-1])
        contest = SlicesContest(tuple(folders), rounds, str(result))
        said.write_text(json.dumps(asdict(contest)), encoding="utf-8")
        launch_module(f"{__package__}.slices_contest", processes, [str(said)])
        found = json.loads(result.read_text(encoding="utf-8"))
    seconds, peaks = (tuple(map(tuple, found[key])) for key in ("seconds", "bytes"))
    return SlicesOutcome(seconds, peaks, tuple(found["losses"]))


def table(cases: Sequence[Sliced]) -> str:
    """A line for each way."""
    lines = ["processes  slices    step       of whole  peak       lengths"]
    for case in cases:
        lines.append(
            f"{case.processes:>9}  {case.what:<8}  {seconds_text(case.seconds):<9}  {case.ratio:>8.3f}  "
            f"{bytes_text(max(case.bytes)):<9}  {', '.join(map(str, case.lengths))}"
        )
    return "\n".join(lines)


def as_json(cases: Sequence[Sliced]) -> dict[str, object]:
    """Every figure, and of each number of processes the least ratio."""
    counts = dict.fromkeys(case.processes for case in cases)
    least = {str(n): min(case.ratio for case in cases if case.processes == n) for n in counts}
    return {"cases": [asdict(case) for case in cases], "least": least}
