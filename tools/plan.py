"""`partita plan`: the plan that trains a recipe fastest on a cluster, within its devices' memory.

In: a spec, a cluster. Out: a `plan` record, what it is foretold to take, the ten best plans; with `--why KEY` the best
plan for each value of a choice, with `--set KEY=VALUE` what another choice would cost. Torch is loaded only for `here`,
where what kernels take is known. The answer gets better while it runs; Ctrl-C takes the best so far.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..compiler.base.collector import uncollected
from ..compiler.base.diagnostic import did_you_mean
from ..compiler.devices import recipe_cluster
from ..compiler.kernels import TimedKernels
from ..compiler.plan.plan import CHOSEN, HOSTED, NoPlan, Planner, planner
from ..compiler.plan.priced import Priced
from ..compiler.plan.record import record, words
from ..compiler.plan.search import Progress
from ..compiler.plan.space import POLICIES, divisors
from ..compiler.schedule.forms import Form, FormFault, parse_form
from ..compiler.steps import Steps
from .arguments import add_spec, sets_of, write_text
from .fault import CommandFault
from .machines import add_cluster, cluster_from, here, is_here
from .numbers import bytes_text, seconds_text
from .specs import open_spec, recipe_of

EXAMPLE = "partita plan specs/recipes/bench_step.partita --recipe small --cluster h100"
SCHEDULES = ("1f1b", "gpipe", "interleaved(2)", "zero_bubble", "zero_bubble_v")
MOST = 1 << 20  # of any number that is chosen
WORDS = {"schedule": SCHEDULES, "recompute": POLICIES, "offload": tuple(HOSTED)}
SLOW = 1.0005  # times the best: what costs less is not told as a cost


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")
    add_cluster(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="what the steps are made for (default: cuda; cpu for `here`)"
    )
    parser.add_argument(
        "--why", metavar="KEY", action="append", default=[], choices=CHOSEN,
        help=f"what each value of a choice would cost: {', '.join(CHOSEN)}",
    )  # fmt: skip
    parser.add_argument("-o", "--out", metavar="FILE", help="also write the record to this .partita file")
    parser.add_argument("--json", action="store_true", help="the ten best plans with exact figures")


def run(options: argparse.Namespace) -> int:
    """Plans; prints the record and what it takes."""
    chosen, sets = _asked(sets_of(options))
    spec = open_spec(options.spec)
    recipe = recipe_of(spec, sets, options.size, options.recipe)
    if recipe is None:
        raise CommandFault(f"{options.spec} has no recipe", "a plan is for a `train` record")
    recipe = recipe.turns[0]
    cluster = recipe_cluster(spec, recipe) if options.cluster is None else cluster_from(options.cluster, spec)
    if cluster is None:
        raise CommandFault("a plan needs machines", "--cluster NAME, or cluster = NAME in the recipe")
    device = options.device or ("cpu" if is_here(options.cluster) else "cuda")
    table = here(options.cluster)
    steps, kernels = Steps(spec, device), None if table is None else TimedKernels(table)
    try:
        with uncollected():
            ready = planner(spec, recipe, (steps.fused, steps.unfused), cluster, kernels)
            found = search(ready)
            other = search(ready, chosen, quiet=True) if chosen else None
            why = {key: list(_each(ready, key, found.best[0])) for key in options.why}
    except NoPlan as fault:
        raise CommandFault(str(fault), fault.hint, exit_code=1) from None
    if options.out:
        write_text(Path(options.out), record(found.best[0], recipe))
    if options.json:
        print(json.dumps([plan_json(ready, one) for one in found.best], indent=1))
        return 0
    print(report(ready, found))
    if other is not None:
        said = ", ".join(f"{key} = {value}" for key, value in chosen.items())
        print(f"\nwith {said}: {cost(other.best[0], found.best[0])}\n  {_row(ready, other.best[0])}")
    for key, rows in why.items():
        print(f"\n{key}:")
        width = max(15, *(len(str(value)) + 1 for value, _ in rows))
        print("\n".join(f"  {value!s:{width}}{said}" for value, said in rows))
    return 0


# ---- what is asked


def _asked(sets: Sequence[tuple[str, str]]) -> tuple[dict[str, int | str], list[tuple[str, str]]]:
    """Of the `--set` pairs those that are choices of the planner, and the recipe's."""
    chosen: dict[str, int | str] = {}
    others: list[tuple[str, str]] = []
    for key, value in sets:
        if key not in CHOSEN:
            others.append((key, value))
        elif key == "schedule":
            chosen[key] = str(_form(value.strip('"')))
        elif key in WORDS:
            if value not in WORDS[key]:
                hint = did_you_mean(value, WORDS[key]) or f"there are {', '.join(WORDS[key])}"
                raise CommandFault(f"{key} = {value}: no such choice", hint)
            chosen[key] = value
        else:
            chosen[key] = _number(key, value)
    return chosen, others


def _number(key: str, text: str) -> int:
    least, most = (0, 3) if key == "zero" else (1, MOST)
    if not (text.isdecimal() and len(text) <= len(str(MOST)) and least <= int(text) <= most):
        raise CommandFault(f"`--set {key}={text}`: a whole number from {least} to {most}", f"--set {key}={least}")
    return int(text)


def _form(text: str) -> Form:
    try:
        return parse_form(text)
    except FormFault as fault:
        raise CommandFault(str(fault), fault.hint) from None


def search(ready: Planner, pins: Mapping[str, int | str] | None = None, quiet: bool = False) -> Progress:
    """The best plans, with a bar on a terminal; what there is when somebody presses Ctrl-C. Raises NoPlan."""
    last: Progress | None = None
    with _bar(quiet) as show:
        try:
            for last in ready.search(pins):
                show(last)
        except KeyboardInterrupt:
            if last is None or not last.best:
                raise
            print("interrupted: the best so far", file=sys.stderr)
    assert last is not None, "a search that finds nothing raises"
    return last


@contextmanager
def _bar(quiet: bool) -> Generator[Callable[[Progress], None]]:
    """Shows progress on standard error where that is a terminal: how near the bound is to the best plan."""
    if quiet or not sys.stderr.isatty():
        yield lambda found: None
        return
    from rich.console import Console  # late: only a terminal needs it
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(bar_width=24), TextColumn("{task.description}"), console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("", total=1.0)

        def show(found: Progress) -> None:
            best = f"best {seconds_text(found.best[0].seconds)}" if found.best else "none yet"
            said = f"layouts {found.opened}, plans {found.priced}, {best}"
            done = 1.0 if found.over else found.bound_s / found.best[0].seconds if found.best else 0.0
            bar.update(task, completed=done, description=said)

        yield show


def _each(ready: Planner, key: str, best: Priced) -> Iterator[tuple[int | str, str]]:
    """The best plan for each value of a choice, and what it costs."""
    for value in _values(ready, key):
        try:
            found = search(ready, {key: value}, quiet=True).best[0]
        except NoPlan as fault:
            yield value, str(fault)
            continue
        yield value, f"{cost(found, best):18}{words(found)}"


def _values(ready: Planner, key: str) -> Sequence[int | str]:
    """The values of a choice that are worth asking for."""
    devices = divisors(ready.cluster.devices)
    if key in WORDS:
        return WORDS[key]
    if key == "zero":
        return (0, 1, 2, 3)
    if key == "tensor":
        return [n for n in devices if n <= ready.space.longest]
    if key in ("context", "expert"):
        return [n for n in devices if n == 1 or any(dict(inner).get(key) == n for inner in ready.space.inners())]
    return devices if key in ("data", "pipe") else divisors(ready.recipe.batch)


# ---- what is said


def cost(other: Priced, best: Priced) -> str:
    """How much longer a plan takes."""
    more = other.seconds / best.seconds
    return (
        f"{seconds_text(other.seconds)} (as fast)"
        if more < SLOW
        else f"{seconds_text(other.seconds)} (+{more - 1:.1%})"
    )


def report(ready: Planner, found: Progress) -> str:
    """The record, its figures, and the plans that were weighed."""
    best = found.best[0]
    room = f"{bytes_text(best.peak_bytes)} of {bytes_text(ready.limit)} a device"
    figures = f"step {seconds_text(best.seconds)}, MFU {ready.mfu(best):.1%}, memory {room}"
    lines = [record(best, ready.recipe), figures]
    if len(set(best.stage_bytes)) > 1:
        lines.append(f"memory by stage: {', '.join(bytes_text(size) for size in best.stage_bytes)}")
    sure = (
        "no plan is faster, as plans are priced"
        if found.over
        else f"no plan takes less than {seconds_text(found.bound_s)}"
    )
    lines += [f"{sure} (layouts solved: {found.opened}, plans priced: {found.priced}). The best of them:"]
    return "\n".join([*lines, *(f"  {_row(ready, one)}" for one in found.best)])


def _row(ready: Planner, one: Priced) -> str:
    return f"{seconds_text(one.seconds):>8}  {ready.mfu(one):>6.1%}  {bytes_text(one.peak_bytes):>9}  {words(one)}"


def plan_json(ready: Planner, one: Priced) -> dict[str, object]:
    """A plan with exact figures."""
    choice = one.choice
    return {
        "mesh": dict(choice.mesh.axes),
        "microbatches": choice.microbatches,
        "rows": choice.unit.rows,
        "schedule": choice.schedule if choice.pipe > 1 else None,
        "balance": one.balance,
        "zero": choice.zero,
        "recompute": choice.unit.recompute,
        "offload": choice.offload,
        "seconds": one.seconds,
        "mfu": ready.mfu(one),
        "stage_bytes": one.stage_bytes,
        "record": record(one, ready.recipe),
    }
