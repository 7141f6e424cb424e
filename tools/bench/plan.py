"""`partita bench plan`: is the plan that the planner ranks first the fastest one, on real processes of this host?

In: models, how many processes, what they were timed to do (`partita calibrate --processes N`). Out: of each model the
plans that are measured, as they were ranked: seconds and bytes of a step, foretold and measured. Of a small space all
plans are measured, else the best ones, the best on each mesh, lest one kind of plan be priced too high, and some of all
others. A plan on fewer devices leaves processes idle.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path

from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.kernels import TimedKernels
from ...compiler.pipeline import compile_recipe, open_spec
from ...compiler.plan.plan import Planner, planner
from ...compiler.plan.priced import Priced
from ...compiler.plan.record import record, words
from ...compiler.plan.search import Search
from ...compiler.steps import Steps
from ...runtime.launch import launch_module
from ..machines import HERE, here
from ..mesh import settings_of
from ..numbers import bytes_text, seconds_text
from ..specs import recipe_of
from .plan_contest import PlanContest, PlanOutcome, Ratio, paced, ratio, read_outcome

CASES = ("gpt", "llama", "mixture", "t5")
PROCESSES = (2, 4)
FINAL = 10  # times as many rounds, at most
BEST, OTHERS = 10, 6  # plans that are measured: of those ranked first, and of all others, evenly
SPEC = "recipes/bench_plan.partita"


@dataclass(frozen=True)
class Measured:
    """One plan. rank: from 1 on. seconds: as `paced` has them; least_seconds: of the fastest round; final_seconds: of
    the final, where it came to that. Bytes are those of the process that needs most."""

    rank: int
    plan: str
    predicted_seconds: float
    seconds: float
    least_seconds: float
    final_seconds: float | None
    predicted_bytes: int
    bytes: int


@dataclass(frozen=True)
class Ranking:
    """Plans of a model on so many processes, as they were ranked.

    ranked  how many there are in all
    ratio   seconds of the plan that is ranked first over those of the fastest of all, in the final
    rounds  of the final; left_out: those that others disturbed
    others  share of the cores that was not these processes'
    """

    name: str
    processes: int
    ranked: int
    plans: tuple[Measured, ...]
    ratio: Ratio
    rounds: int
    others: float
    left_out: int = 0


@dataclass(frozen=True)
class Prepared:
    """A contest whose builds lie in a folder."""

    name: str
    processes: int
    ranked: int
    chosen: tuple[tuple[int, str, float, int], ...]  # rank, words, seconds, bytes
    contest: PlanContest


def bench_plan(names: Sequence[str], processes: Sequence[int], rounds: int) -> Iterator[Ranking]:
    """Every model on every number of processes. Raises CommandFault where nothing was timed, `RuntimeFault` E0532."""
    for count in processes:
        for name in names:
            with tempfile.TemporaryDirectory() as scratch:
                yield held(prepared(name, count, rounds, Path(scratch)), Path(scratch))


def prepared(name: str, count: int, rounds: int, folder: Path, most: tuple[int, int] = (BEST, OTHERS)) -> Prepared:
    """Plans, and compiles what is to be measured."""
    with resources.as_file(resources.files("partita.specs").joinpath(SPEC)) as path:
        spec = open_spec(path)
    table = here(f"{HERE}:{count}")
    assert table is not None, "this machine is meant"
    recipe, steps = load_recipe(spec, name), Steps(spec, "cpu")
    ready = planner(spec, recipe, (steps.fused, steps.unfused), table.cluster(), TimedKernels(table))
    ranked = sorted(every(ready), key=lambda one: (one.seconds, one.peak_bytes))
    chosen = sampled([one.choice.mesh.axes for one in ranked], *most)
    builds = [str(folder / str(at)) for at in chosen]
    for at, build in zip(chosen, builds, strict=True):
        compiled(spec, name, ready, ranked[at], Path(build))
    said = tuple((at + 1, words(ranked[at]), ranked[at].seconds, ranked[at].peak_bytes) for at in chosen)
    gc.collect()
    return Prepared(name, count, len(ranked), said, PlanContest(tuple(builds), rounds, FINAL * rounds, table.threads))


def every(ready: Planner) -> Iterator[Priced]:
    """All plans of a space that fit, each once: a policy that computes just what the first one does is left out. So is
    an optimizer on the host, which the processes here are themselves."""
    space = replace(ready.space, budgets=False, pins=replace(ready.space.pins, offload=()))
    search = Search(space, ready.layouts, ready.limit, pricings=ready.pricings, flown=ready.flown, known=ready.known)
    first = space.policies()[0]
    for inner in space.inners():
        for policy in space.policies():
            for group in space.groups(inner, policy):
                twin = replace(group.unit, recompute=first)
                if policy != first and ready.layouts.parts(group.unit) == ready.layouts.parts(twin):
                    continue
                found = (search.pricing(group.unit).price(choice) for choice in space.choices(group))
                yield from (one for one in found if one is not None)


def sampled(kinds: Sequence[Hashable], best: int, others: int) -> list[int]:
    """Of plans of these kinds the first ones; then half of the others the first ones of kinds that are not there yet,
    and the rest evenly up to the last."""
    count = len(kinds)
    if count <= best + others:
        return list(range(count))
    first = {kind: at for at, kind in reversed([*enumerate(kinds)])}
    new = sorted(at for at in first.values() if at >= best)[: others // 2]
    left = others - len(new)
    step = (count - 1 - best) / max(1, left - 1)
    even = {count - 1 - round(step * at) for at in range(left)}
    return sorted({*range(best), *new, *even})


def compiled(spec: Spec, name: str, ready: Planner, plan: Priced, folder: Path) -> None:
    """Writes the build of a plan, from its record, as `partita train --plan` does."""
    written = folder.with_suffix(".partita")
    written.write_text(record(plan, ready.recipe), encoding="utf-8")
    planned = (one.partition("=") for one in settings_of(str(written)))
    recipe = recipe_of(spec, [(key, value) for key, _, value in planned], None, name)
    assert recipe is not None, "a plan has one"
    compile_recipe(spec, recipe, folder, cluster=ready.cluster)


def held(ready: Prepared, folder: Path) -> Ranking:
    """Runs the plans."""
    said, result = folder / "contest.json", folder / "outcome.json"
    said.write_text(json.dumps({**asdict(ready.contest), "result": str(result)}), encoding="utf-8")
    launch_module(f"{__package__}.plan_contest", ready.processes, [str(said)])
    return ranking(ready, read_outcome(result))


def ranking(ready: Prepared, found: PlanOutcome) -> Ranking:
    """What was foretold beside what was measured."""
    final = dict(zip(found.finalists, paced(found.final), strict=True))
    usual = paced(found.seconds)
    plans = tuple(
        Measured(rank, plan, seconds, usual[at], min(found.seconds[at]), final.get(at), size, found.bytes[at])
        for at, (rank, plan, seconds, size) in enumerate(ready.chosen)
    )
    fastest = min(range(len(found.final)), key=lambda at: final[found.finalists[at]])
    against = ratio(found.final[0], found.final[fastest])
    rounds = len(found.final[0])
    return Ranking(ready.name, ready.processes, ready.ranked, plans, against, rounds, found.others, found.left_out)


def text(found: Ranking) -> str:
    """A table of text, which is one of Markdown too."""
    lines = [
        f"{found.name} on {found.processes} processes: {len(found.plans)} of {found.ranked} plans; "
        f"ranked first / fastest {found.ratio.median:.3f} "
        f"({found.ratio.low:.3f} to {found.ratio.high:.3f}, {found.rounds} rounds, "
        f"{found.left_out} disturbed ones left out, others took {found.others:.0%})",
        "",
        "| rank | plan | foretold | measured | error | fastest round | final | memory foretold | measured | error |",
        "|-----:|------|---------:|---------:|------:|--------------:|------:|----------------:|---------:|------:|",
    ]
    for one in found.plans:
        time, size = one.predicted_seconds / one.seconds - 1, one.predicted_bytes / one.bytes - 1
        final = "" if one.final_seconds is None else seconds_text(one.final_seconds)
        taken = " | ".join(map(seconds_text, (one.predicted_seconds, one.seconds)))
        held_ = " | ".join(map(bytes_text, (one.predicted_bytes, one.bytes)))
        least = seconds_text(one.least_seconds)
        lines.append(f"| {one.rank} | {one.plan} | {taken} | {time:+.1%} | {least} | {final} | {held_} | {size:+.1%} |")
    return "\n".join(lines) + "\n"


def as_json(rankings: Sequence[Ranking]) -> dict[str, object]:
    """The `--json` form."""
    return {
        "rankings": [asdict(one) for one in rankings],
        "worst_ratio": max(one.ratio.median for one in rankings),
    }
