"""`partita fit`: the largest batch, and the cheapest set of measures that makes a step fit on a device.

In: a spec, a device's figures, its memory. Out: a table of what each measure saves and costs, and the keys of the plan
to write. Torch is not loaded: everything is priced on the graph, as `partita plan` prices it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler.base.collector import uncollected
from ..compiler.cost.cluster import H100_NODES, Cluster, Level
from ..compiler.devices import recipe_cluster
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.recipe import Recipe
from ..compiler.ir.types import DType
from ..compiler.kernels import TimedKernels
from ..compiler.plan.fit import Fitter, Fitting, Kind, Measures, frontier, rank
from ..compiler.plan.layouts import Kernels, Layouts
from ..compiler.plan.plan import limit_of
from ..compiler.plan.record import budget_text
from ..compiler.plan.space import BUDGET
from ..compiler.plan.thin import thin
from ..compiler.steps import Steps
from .arguments import add_spec, sets_of
from .fault import CommandFault
from .machines import cluster_from, here
from .numbers import bytes_text, seconds_text
from .specs import open_spec, recipe_of

EXAMPLE = "partita fit specs/recipes/bench_step.partita --recipe small --device a100_80"
WIDTH = 120  # columns of the table
MOST_SETS = 10  # sets of measures that are told of
NONE = "no measures"
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
    recipe, table = recipe.turns[0], here(options.device)
    cluster = cluster_of(options, spec, recipe)
    with uncollected():
        found = weighed(fitter_of(spec, recipe, cluster, options.devices, table and TimedKernels(table)))
    if options.json:
        print(json.dumps(found.plainly(), indent=1))
    else:
        report(found, recipe)
    return 0


@dataclass(frozen=True)
class Weighed:
    """sets: of each kind the fastest that fits, the fastest first. most: rows of one microbatch on a device: with no
    measures, with those of the fastest set, and the most of all, each with its measures."""

    fitter: Fitter
    plain: Fitting
    singles: Sequence[Fitting]
    sets: Sequence[Fitting]
    most: Sequence[tuple[int, Kind]]

    def plainly(self) -> dict[str, object]:
        """For JSON."""
        most = [{"rows": self.fitter.data * rows, **kind._asdict()} for rows, kind in self.most]
        return {
            "limit_bytes": self.fitter.limit,
            "plain": _plainly(self.plain),
            "singles": list(map(_plainly, self.singles)),
            "sets": list(map(_plainly, self.sets)),
            "most": most,
        }


def weighed(fitter: Fitter) -> Weighed:
    """All that is told. Raises CommandFault where nothing makes it fit."""
    plain, found = fitter.plain(), sorted(fitter.cheapest(), key=rank)
    if not found:
        least = fitter.least()
        raise CommandFault(
            f"nothing makes it fit: a device has {bytes_text(fitter.limit)}, and a step takes "
            f"{bytes_text(least.peak_bytes)} at the least ({words(least.measures, fitter)})",
            "more devices along `data`, or a mesh: partita plan", exit_code=1,
        )  # fmt: skip
    kinds = dict.fromkeys((Kind(), found[0].measures.kind))
    most = {kind: rows for rows, kind in (*((fitter.most_rows(kind), kind) for kind in kinds), fitter.largest())}
    return Weighed(fitter, plain, list(fitter.singles()), found, [(rows, kind) for kind, rows in most.items()])


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


def fitter_of(spec: Spec, recipe: Recipe, cluster: Cluster, data: int, kernels: Kernels | None = None) -> Fitter:
    """Ready to price. kernels: what nodes take, where that was timed. Raises CommandFault, SpecError."""
    if recipe.batch % data:
        raise CommandFault(f"a batch of {recipe.batch} rows does not divide over {data} devices")
    low = DType.BF16 if DType.BF16 in cluster.machine.flops_per_s else None
    recipes = {"": recipe}
    if low is not None and recipe.precision.compute is DType.F32:
        recipes["bf16"] = replace(recipe, precision=replace(recipe.precision, compute=low))
    device = "cuda" if kernels is None else "cpu"

    def layouts(one: Recipe) -> Callable[[Sequence[int]], Layouts]:
        few, steps = thin(spec, one), (Steps(spec, device).fused,)
        return lambda rows: Layouts(few, steps, cluster, rows, kernels)

    found = {name: layouts(one) for name, one in recipes.items()}
    return Fitter(found, cluster, recipe.batch, data, limit_of(recipe, cluster))


# ---- what is said


def words(one: Measures, fitter: Fitter) -> str:
    """Measures in a line."""
    parts: list[str] = []
    if one.microbatches > 1:
        parts.append(f"{one.microbatches} microbatches of {_rows(one.rows)}")
    return ", ".join([*parts, *_words(one.kind, fitter)]) or NONE


def _words(kind: Kind, fitter: Fitter) -> Iterator[str]:
    if kind.recompute != Kind().recompute:
        yield f"recompute {_recompute(kind, fitter)}"
    if kind.precision:
        yield f"precision {kind.precision}"
    if kind.zero:
        yield f"ZeRO {kind.zero}"
    if kind.offload:
        yield f"offload {' and '.join(kind.offload)}"


def _recompute(kind: Kind, fitter: Fitter) -> str:
    return f"budget({budget_text(fitter.limit)})" if kind.recompute == BUDGET else kind.recompute


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def keys(one: Measures, fitter: Fitter) -> str:
    """The same as the recipe's keys."""
    kind = one.kind
    pairs = {
        "mesh": f"[data = {fitter.data}]" if fitter.data > 1 else "",
        "microbatches": str(one.microbatches) if one.microbatches > 1 else "",
        "zero": str(kind.zero) if fitter.data > 1 else "",
        "recompute": _recompute(kind, fitter) if kind.recompute != Kind().recompute else "",
        "offload": kind.offload[0]
        if len(kind.offload) == 1
        else f"[{', '.join(kind.offload)}]"
        if kind.offload
        else "",
    }
    lines = [f"  {key} = {value}" for key, value in pairs.items() if value]
    precision = [f"precision = mixed(compute = {kind.precision})"] if kind.precision else []
    return "\n".join([*precision, *(["plan {", *lines, "}"] if lines else [])])


def report(found: Weighed, recipe: Recipe) -> None:
    """The answer, then what each measure saves and costs."""
    fitter, plain, best = found.fitter, found.plain, found.sets[0]
    console = Console(soft_wrap=True, highlight=False, width=WIDTH)
    devices = f" on {fitter.data} devices" if fitter.data > 1 else ""
    console.print(f"{recipe.name}: a batch of {_rows(fitter.batch)}{devices}, {bytes_text(fitter.limit)} a device")
    console.print(f"  {NONE}: {_figures(plain, plain)}, {'fits' if fitter.fits(plain) else 'does not fit'}")
    console.print(f"  fastest that fits: {words(best.measures, fitter)}: {_figures(best, plain)}", markup=False)
    own = next((one for one in found.sets if not one.measures.kind.precision), None)
    if own is not None and own is not best:
        said = words(own.measures, fitter)
        console.print(f"  in the recipe's own precision: {said}: {_figures(own, plain)}", markup=False)
    console.print("  largest batch of one microbatch:")
    for rows, kind in found.most:
        console.print(f"    {_rows(fitter.data * rows)}: {words(Measures(rows, 1, kind), fitter)}", markup=False)
    console.print(_table(found))
    if keys(best.measures, fitter):
        console.print(keys(best.measures, fitter), markup=False)


def _table(found: Weighed) -> Table:
    """Each measure alone, then the sets that fit: each takes less memory than those that are faster."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measures", overflow="fold")
    for title, width in (("step", 8), ("takes", 7), ("saves", 8), ("device", 8), ("host", 8), ("", 4)):
        table.add_column(title, justify="right" if title else "left", no_wrap=True, min_width=width)
    for one in (found.plain, *found.singles):
        table.add_row(*_row(found.fitter, one, found.plain))
    table.add_section()
    for one in frontier(found.sets)[:MOST_SETS]:
        table.add_row(*_row(found.fitter, one, found.plain))
    return table


def _figures(one: Fitting, plain: Fitting) -> str:
    more = f" ({one.seconds / plain.seconds - 1:+.1%})" if one is not plain else ""
    host = f", {bytes_text(one.host_bytes)} on the host" if one.host_bytes else ""
    return f"step {seconds_text(one.seconds)}{more}, {bytes_text(one.peak_bytes)}{host}"


def _row(fitter: Fitter, one: Fitting, plain: Fitting) -> list[str]:
    alone = one.measures == plain.measures
    return [
        words(one.measures, fitter),
        seconds_text(one.seconds),
        "" if alone else f"{one.seconds / plain.seconds - 1:+.1%}",
        "" if alone else bytes_text(plain.peak_bytes - one.peak_bytes),
        bytes_text(one.peak_bytes),
        bytes_text(one.host_bytes) if one.host_bytes else "",
        "fits" if fitter.fits(one) else "",
    ]


def _plainly(one: Fitting) -> dict[str, object]:
    measures = {"rows": one.measures.rows, "microbatches": one.measures.microbatches, **one.measures.kind._asdict()}
    return {**measures, "seconds": one.seconds, "peak_bytes": one.peak_bytes, "host_bytes": one.host_bytes}
