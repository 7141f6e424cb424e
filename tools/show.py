"""`partita show`: a model's parameters, FLOPs a token and memory, whole and by block.

`--memory` lowers the step, to tell its peak to the byte, and so does `--time` without `--cluster`: torch is loaded for
these alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler import pipeline
from ..compiler.cost.flops import tokens
from ..compiler.ir.types import DType
from ..compiler.record import model_flops
from .arguments import add_spec, add_update, add_which, sets_of, write_text
from .casts import Reason, reasons
from .duration import Duration, pieces_of_graph, pieces_of_time, print_duration
from .duration import to_json as time_json
from .fault import CommandFault
from .figures import BlockFigures, Figures, figures
from .machines import cluster_from
from .mesh import (
    add_mesh,
    cluster_of,
    decision_of,
    mesh_json,
    plan_of,
    print_mesh,
    print_stages,
    stages_of,
    warn_of_idle,
)
from .numbers import bytes_text, compact
from .occupied import kept_by_layer, print_occupied, to_json
from .specs import Bound, bind, step_of
from .timeline import timeline

if TYPE_CHECKING:
    from ..compiler.lower.footprint import Footprint

EXAMPLE = "partita show specs/models/gpt2.partita --size small"
DEPTH = 1  # levels below a chain's layer (or below the model)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    add_update(parser)
    add_mesh(parser)
    parser.add_argument("--json", action="store_true", help="all figures, exactly, as JSON")
    parser.add_argument("--precision", action="store_true", help="every cast of a recipe's step, and why it is there")
    parser.add_argument(
        "--depth", type=int, default=DEPTH, metavar="N", help=f"levels inside a block (default {DEPTH})"
    )
    parser.add_argument("--memory", action="store_true", help="what occupies the device at the peak of a step")
    parser.add_argument("--time", action="store_true", help="how long a step takes, by operator and layer, and why")
    parser.add_argument("-o", "--out", metavar="FILE", help="with --memory: a picture of it over time, as .svg")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="with --memory and --time: cpu or cuda (cpu)")


def run(options: argparse.Namespace) -> int:
    """Prints the table or the JSON."""
    if options.out is not None and (not options.memory or not options.out.endswith(".svg")):
        raise CommandFault("-o names the picture of --memory, a file that ends in .svg", "--memory -o memory.svg")
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe, options.update)
    if options.precision:
        print_casts(reasons(step_of(bound)), as_json=options.json)
        return 0
    if options.memory:
        return show_memory(options, bound)
    if options.time:
        return show_time(options, bound)
    found = figures(bound.model, step_of(bound), bound.assumed)
    plan = plan_of(options, bound.recipe)
    cluster = cluster_of(options, bound.spec)
    decision = None if plan is None else decision_of(bound, plan, cluster)
    stages = [] if plan is None or decision is None else stages_of(bound.spec, bound.recipe, plan, decision, cluster)
    if options.json:
        laid = {} if decision is None else {"device": mesh_json(decision)}
        laid |= {"stages": [asdict(one) for one in stages]} if stages else {}
        print(json.dumps({**found.to_json(), **laid}, indent=1))
        return 0
    console = _console()
    print_figures(found, options.depth, console)
    if decision is not None:
        if stages:
            print_stages(stages, console)
        else:
            print_mesh(decision, console)
        warn_of_idle(decision)
    return 0


def print_casts(found: Sequence[Reason], *, as_json: bool) -> None:
    """One cast a line: the value, its types, how often, and why."""
    if as_json:
        casts = [{**asdict(one), "before": one.before.value, "after": one.after.value} for one in found]
        print(json.dumps(casts, indent=1))
        return
    width = max((len(one.value) for one in found), default=0)
    for one in found:
        print(f"{one.value:{width}}  {one.before.value:>4} → {one.after.value:4}  once {one.often}: {one.why}")
    print(f"{len(found)} casts" if found else "every value has one type: no casts")


def show_memory(options: argparse.Namespace, bound: Bound) -> int:
    """The peak by owner and layer, and its picture."""
    found, kept = footprint_of(bound, options.device), kept_by_layer(step_of(bound))
    if options.json:
        print(json.dumps(to_json(bound.model.name, found, kept), indent=1))
    else:
        print_occupied(bound.model.name, found, kept, _console())
    if options.out is not None:
        try:
            write_text(Path(options.out), timeline(bound.model.name, found))
        except OSError as fault:
            raise CommandFault(f"cannot write {options.out}: {fault.strerror}", exit_code=1) from fault
        if not options.json:
            print(options.out)
    return 0


def show_time(options: argparse.Namespace, bound: Bound) -> int:
    """A step's time on a device of the catalogue, by its roofline; or on this machine, by its table."""
    step = step_of(bound)
    cluster: str | None = options.cluster or (bound.recipe.cluster if bound.recipe is not None else None)
    if cluster is not None:
        machine = cluster_from(cluster, bound.spec).machine
        source = f"the roofline of {cluster}"
        pieces = pieces_of_graph(step, machine)
    else:
        from ..compiler.lower.build import graph_time  # loads torch
        from .calibration import table_for

        table = table_for(options.device)
        kind = f"{len(table.points)} timed kernels" if table.points else "a roofline; `partita calibrate` times kernels"
        machine, source = table.machine, f"{table.device}, {kind}"
        pieces = pieces_of_time(graph_time(step, table, options.device.partition(":")[0]))
    compute = bound.recipe.precision.compute if bound.recipe is not None else DType.F32
    found = Duration(bound.model.name, pieces, model_flops(step), tokens(step), machine.matmul(compute))
    if options.json:
        print(json.dumps(time_json(found), indent=1))
    else:
        print_duration(found, source, _console())
    return 0


def footprint_of(bound: Bound, device: str) -> Footprint:
    """The step's course on a device, once it is lowered."""
    from ..compiler.lower.build import graph_footprint  # loads torch

    if device not in ("cpu", "cuda"):
        raise CommandFault(f"`--device {device}`: cpu or cuda")
    if bound.recipe is not None:
        return pipeline.step_footprint(bound.spec, bound.recipe, device=device)
    return graph_footprint(step_of(bound), device)


def _console() -> Console:
    """Wide enough for the table where no terminal sets the width."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)


def print_figures(found: Figures, depth: int, console: Console) -> None:
    """The whole model in a few lines, then its blocks as a table."""
    console.print(f"[bold]{found.name}[/bold]  {found.parameters:,} parameters ({compact(found.parameters)})")
    frozen = found.parameters - found.trained_parameters
    if frozen:
        console.print(f"  not trained: {frozen:,}")
    forward, step = found.flops_per_token, found.flops_per_token_step
    console.print(f"  FLOPs a token: {compact(forward)} forward, {compact(step)} with the backward")
    parts = ", ".join(f"{name.replace('_', ' ')} {bytes_text(size)}" for name, size in found.memory.items() if size)
    console.print(f"  memory at the peak of a step: {bytes_text(found.memory_bytes)} = {parts}", soft_wrap=True)
    if found.assumed:
        console.print(f"  assumed: {', '.join(found.assumed)}")
    console.print(_table(found, depth))
    console.print(
        "weights and kept: bytes of the parameters, and of activations that the forward keeps for the backward"
    )


def _table(found: Figures, depth: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("block", no_wrap=True)
    for title in ("parameters", "share", "FLOPs/token", "+ backward", "weights", "kept"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.blocks:
        level = _level(row)
        if level <= depth + 1:
            table.add_row(*_cells(row, level, found), style="bold" if not row.path else None)
    return table


def _level(row: BlockFigures) -> int:
    """How deep a block lies; a chain and its layer are one level."""
    return sum(not part.isdecimal() for part in row.path.split(".")) if row.path else 0


def _cells(row: BlockFigures, level: int, found: Figures) -> list[str]:
    parts = row.path.split(".")
    single = f"{parts[-2]} {parts[-1]}" if len(parts) > 1 else row.path  # a layer or a member unlike the others
    last = parts[-1] if not parts[-1].isdecimal() else f"{parts[-2]} ×{row.layers}" if row.layers > 1 else single
    name = "  " * (level - 1) + last if row.path else found.name
    share = row.parameters / found.parameters if found.parameters else 0.0
    return [
        name,
        f"{row.parameters:,}",
        f"{100 * share:.1f}%",
        compact(row.flops_per_token),
        compact(row.flops_per_token_step),
        bytes_text(row.parameter_bytes),
        bytes_text(row.kept_activation_bytes),
    ]
