"""`partita fit`: the largest batch, and the cheapest set of measures that makes a step fit on a device.

In: a spec, a device's figures, its memory. Out: a table of what each measure saves and costs, and the keys of the plan
to write. Torch is not loaded: everything is priced on the graph, as `partita plan` prices it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler import pipeline
from ..compiler.cost.cluster import H100_NODES, Cluster, Level
from ..compiler.devices import recipe_cluster
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.recipe import Recipe
from ..compiler.ir.graph import Graph
from ..compiler.ir.types import DType
from ..compiler.plan.fit import Fitter, Fitting, Measures
from ..compiler.plan.layouts import Layouts
from ..compiler.plan.space import divisors
from ..compiler.plan.thin import thin
from .arguments import add_spec, sets_of
from .fault import CommandFault
from .machines import cluster_from
from .numbers import bytes_text, seconds_text
from .specs import open_spec, recipe_of

EXAMPLE = "partita fit specs/recipes/bench_step.partita --recipe small --device a100_80"
WIDTH = 120  # columns of the table
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)B")
_SCALE = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")
    parser.add_argument("--device", metavar="NAME", help="of a cluster (a100_80); else the recipe's, else an H100")
    parser.add_argument("--memory", metavar="SIZE", type=size_of, help="of the device, instead: 24GiB")
    parser.add_argument("--devices", metavar="N", type=int, default=1, help="along `data`, so that ZeRO may help")
    parser.add_argument("--json", action="store_true", help="the figures exactly")


def size_of(text: str) -> int:
    """`24GiB` in bytes. Raises ArgumentTypeError, which argparse prints."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: a size such as 24GiB")
    return int(float(match[1]) * _SCALE[match[2]])


def run(options: argparse.Namespace) -> int:
    """Prices all measures; 1 if nothing makes it fit."""
    spec = open_spec(options.spec)
    recipe = recipe_of(spec, sets_of(options), options.size, options.recipe)
    if recipe is None:
        raise CommandFault(f"{options.spec} has no recipe", "what fits is a step of a `train` record")
    fitter = fitter_of(spec, recipe.turns[0], cluster_of(options, spec, recipe), options.devices)
    plain, single = fitter.plain(), list(fitter.singles())
    found = sorted(fitter.cheapest(), key=lambda one: one.seconds)
    if not found:
        least = fitter.least()
        raise CommandFault(
            f"nothing makes it fit: a device has {bytes_text(fitter.limit)}, and a step takes "
            f"{bytes_text(least.peak_bytes)} at the least ({words(least.measures)})",
            "more devices along `data`, or a mesh: partita plan", exit_code=1,
        )  # fmt: skip
    best = found[0]
    most = {name: fitter.most_rows(one) for name, one in (("plain", plain.measures), ("best", best.measures))}
    if options.json:
        rows = {"plain": plain, "best": best, "singles": single, "sets": found[:10]}
        plainly = {k: [asdict(o) for o in v] if isinstance(v, list) else asdict(v) for k, v in rows.items()}
        print(json.dumps({"limit_bytes": fitter.limit, **plainly, "most_rows": most}, indent=1))
        return 0
    report(fitter, recipe, plain, single, found, most)
    return 0


def cluster_of(options: argparse.Namespace, spec: Spec, recipe: Recipe) -> Cluster:
    """So many of the device, with its memory. Raises CommandFault, SpecError."""
    named = recipe_cluster(spec, recipe) if options.device is None else cluster_from(options.device, spec)
    cluster = named or H100_NODES
    count = options.devices
    if count < 1:
        raise CommandFault(f"--devices {count}: at least one")
    whole = 1
    levels: list[Level] = []
    for level in cluster.levels:
        levels.append(level)
        whole *= level.members
        if whole >= count:
            break
    if count > max(whole, 1):
        raise CommandFault(f"--devices {count}: the cluster has {whole}")
    memory = options.memory or cluster.memory_bytes
    return replace(cluster, memory_bytes=memory, levels=tuple(levels))


def fitter_of(spec: Spec, recipe: Recipe, cluster: Cluster, data: int) -> Fitter:
    """Ready to price. Raises CommandFault, SpecError."""
    if recipe.batch % data:
        raise CommandFault(f"a batch of {recipe.batch} rows does not divide over {data} devices")
    low = DType.BF16 if DType.BF16 in cluster.machine.flops_per_s else None
    recipes = {"": recipe}
    if low is not None and recipe.precision.compute is DType.F32:
        recipes["bf16"] = replace(recipe, precision=replace(recipe.precision, compute=low))

    def step(one: Recipe) -> Graph:
        return pipeline.step_graph(spec, one, device="cuda")

    layouts = {
        name: Layouts(thin(spec, one), (step,), cluster, divisors(recipe.batch)) for name, one in recipes.items()
    }
    plan = recipe.plan
    budget = None if plan is None else plan.budget_bytes
    limit = min(cluster.memory_bytes, budget) if budget else cluster.memory_bytes
    return Fitter(layouts, cluster, recipe.batch, data, limit)


# ---- what is said


def words(one: Measures) -> str:
    """Measures in a line."""
    parts: list[str] = []
    if one.microbatches > 1:
        parts.append(f"{one.microbatches} microbatches of {one.rows} {'row' if one.rows == 1 else 'rows'}")
    if one.recompute != "cheap":
        parts.append(f"recompute {one.recompute}")
    if one.precision:
        parts.append(f"precision {one.precision}")
    if one.zero:
        parts.append(f"ZeRO {one.zero}")
    if one.offload:
        parts.append("offload optimizer")
    return ", ".join(parts) or "as it is"


def keys(one: Measures) -> str:
    """The same as the plan's keys."""
    pairs = {
        "microbatches": str(one.microbatches) if one.microbatches > 1 else "",
        "recompute": one.recompute if one.recompute != "cheap" else "",
        "zero": str(one.zero) if one.zero else "",
        "offload": "optimizer" if one.offload else "",
    }
    said = (
        [f"plan {{\n{''.join(f'  {k} = {v}{chr(10)}' for k, v in pairs.items() if v)}}}"] if any(pairs.values()) else []
    )
    return "\n".join([*([f"precision = mixed(compute = {one.precision})"] if one.precision else []), *said])


def report(
    fitter: Fitter, recipe: Recipe, plain: Fitting, singles: Sequence[Fitting], found: Sequence[Fitting],
    most: dict[str, int],
) -> None:  # fmt: skip
    """The answer, then what each measure saves and costs."""
    console, best = Console(soft_wrap=True, highlight=False, width=WIDTH), found[0]
    devices = f" on {fitter.data} devices" if fitter.data > 1 else ""
    console.print(f"{recipe.name}: a batch of {fitter.batch} rows{devices}, {bytes_text(fitter.limit)} a device")
    console.print(f"  as it is: {_figures(plain, plain)}, {'fits' if fitter.fits(plain) else 'does not fit'}")
    console.print(f"  cheapest: {words(best.measures)}: {_figures(best, plain)}")
    said = [f"{fitter.data * most['plain']} rows as it is"]
    if most["best"] != most["plain"]:
        said.append(f"{fitter.data * most['best']} rows with {words(replace(best.measures, microbatches=1))}")
    console.print(f"  largest batch of one microbatch: {', '.join(said)}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measures", overflow="fold")
    for title, width in (("step", 13), ("takes", 7), ("saves", 8), ("device", 8), ("host", 8), ("", 4)):
        table.add_column(title, justify="right" if title else "left", no_wrap=True, min_width=width)
    for one in (plain, *singles):
        table.add_row(*_row(fitter, one, plain))
    table.add_section()
    for one in found[:8]:
        table.add_row(*_row(fitter, one, plain))
    console.print(table)
    if keys(best.measures):
        console.print(keys(best.measures), markup=False)


def _figures(one: Fitting, plain: Fitting) -> str:
    more = f" ({one.seconds / plain.seconds - 1:+.1%})" if one is not plain else ""
    host = f", {bytes_text(one.host_bytes)} on the host" if one.host_bytes else ""
    return f"step {seconds_text(one.seconds)}{more}, {bytes_text(one.peak_bytes)}{host}"


def _row(fitter: Fitter, one: Fitting, plain: Fitting) -> list[str]:
    alone = one is plain
    return [
        words(one.measures),
        seconds_text(one.seconds),
        "" if alone else f"{one.seconds / plain.seconds - 1:+.1%}",
        "" if alone else bytes_text(plain.peak_bytes - one.peak_bytes),
        bytes_text(one.peak_bytes),
        bytes_text(one.host_bytes) if one.host_bytes else "",
        "fits" if fitter.fits(one) else "",
    ]
