"""`partita bench slices`: a long row through a pipeline, whole and in token slices, measured on real processes.

In: numbers of processes. Out: of each way to cut the row the seconds of a step and the peak of each process, beside
those of the whole row, which one stage after another computes while the others wait. The slices are equal ones, and
those that the dynamic program finds best on this machine as it was calibrated (`advised`). A process has one thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path

from ...compiler.cost.cluster import Link
from ...compiler.cost.roofline import Machine, node_time
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipe import Plan, Recipe
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.layout import PIPE
from ...compiler.pipeline import compile_recipe, open_spec, step_graph
from ...compiler.schedule.actions import one_chunk_each
from ...compiler.schedule.blocks import blocks_of
from ...compiler.schedule.forms import TOKEN_SLICES
from ...compiler.schedule.place import place
from ...compiler.schedule.sliced import SlicedBlocks
from ...runtime.launch import launch_module
from ..calibration import table_for
from ..numbers import bytes_text, seconds_text
from ..schedule import best_slices
from .slices_contest import SlicesContest, SlicesOutcome

WHOLE = "gpipe"
EQUAL = (2, 4, 8, 16)
ADVISED = "advised"
WAYS = (*EQUAL, ADVISED)
LOOPBACK = Link(1e9, 1e-4)  # messages among processes of a host, by copies: what the advice is priced with
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
        best = advised(spec, recipe, processes, table_for("cpu").machine, LOOPBACK)
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


def advised(spec: Spec, recipe: Recipe, processes: int, machine: Machine, link: Link) -> tuple[int, ...]:
    """The lengths that the dynamic program finds for a recipe's rows on a pipeline of so many stages."""
    blocks = blocks_of(step_graph(spec, recipe), machine, link)
    cuts = place(blocks, one_chunk_each(processes)).cuts
    halves = replace(recipe, plan=Plan(mesh=((PIPE, 1),), schedule=f"{TOKEN_SLICES}(2)"))
    sliced = SlicedBlocks(step_graph(spec, halves), lambda node: node_time(node, machine).seconds, link)
    return best_slices(sliced, cuts, recipe.rows_per_microbatch, recipe.microbatches, recipe.dims["T"])


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
