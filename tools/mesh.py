"""`--mesh` and what goes with it: what a command lays out, on which devices, what each of them holds and sends; and
of a pipeline its schedule, microbatches and balance.

In: the command line's words, or the recipe's plan. Out: a partitioned graph with the choice behind it, and its figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler import pipeline
from ..compiler.base.diagnostic import Diagnostic, Diagnostics, SpecError, render_all
from ..compiler.cost.account import account
from ..compiler.cost.cluster import Cluster
from ..compiler.devices import machines, partitioned, recipe_cluster, wishes_of
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.plan import PIPE, pipeline_faults
from ..compiler.elaborate.recipe import Plan, Recipe, Rows
from ..compiler.elaborate.records import check_record
from ..compiler.ir.layout import Mesh
from ..compiler.language.syntax import Name, RecordSet
from ..compiler.lower.unroll import without_scans
from ..compiler.partition.decide import Decision
from ..compiler.partition.impossible import idle_axes
from ..compiler.passes.localize import localize
from ..compiler.schedule.account import StageAccount, stage_accounts
from ..compiler.schedule.forms import FormFault, parse_form
from ..compiler.schedule.placing import Pipeline
from .fault import CommandFault
from .machines import add_cluster, cluster_from
from .numbers import bytes_text, seconds_text
from .specs import Bound, open_spec, step_of

# The settings that `--microbatches`, `--recompute` and `--offload` stand for.
PLAN = "plan"
MICROBATCHES, RECOMPUTE, OFFLOAD = f"{PLAN}.microbatches", f"{PLAN}.recompute", f"{PLAN}.offload"


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """--mesh and what else says how a step is laid out, and on which machines."""
    parser.add_argument("--mesh", metavar="AXIS=SIZE,…", help="lay the step out on devices: data=2,tensor=4")
    parser.add_argument(
        "--pin", metavar="DIM=AXIS", action="append", default=[], help="cut a dim by an axis (none: by no axis)"
    )
    parser.add_argument("--zero", type=int, choices=range(4), help="the stage of ZeRO over the axis `data`")
    parser.add_argument(
        "--recompute", metavar="CHOICE", action="append", dest="sets", type=_recompute,
        help="what the backward computes again: none, full, selective, 'budget(24 GiB)' or patterns in [ ]",
    )  # fmt: skip
    parser.add_argument(
        "--offload", metavar="WHAT", action="append", dest="sets", type=_offload,
        help="what lies on the host between its uses: none, optimizer, activations, or both with a comma",
    )  # fmt: skip
    parser.add_argument(
        "--plan", metavar="FILE", action="extend", dest="sets", type=settings_of,
        help="the plan of FILE, or FILE:NAME, as `partita plan` writes it",
    )  # fmt: skip
    add_cluster(parser)
    add_pipeline(parser)


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """--schedule, --microbatches and --balance."""
    parser.add_argument(
        "--schedule", metavar="NAME",
        help="of the pipeline over the axis `pipe`: gpipe, 1f1b (default), interleaved(V), zero_bubble, zero_bubble_v, "
        "list(V), token_slices(N) or token_slices(LENGTH, LENGTH, …)",
    )  # fmt: skip
    parser.add_argument(
        "--microbatches", metavar="M", action="append", dest="sets", type=_microbatches, help="parts of a step's batch"
    )
    parser.add_argument("--balance", metavar="N,N,…", help="how many blocks each chunk has, to place by hand")


def settings_of(word: str) -> list[str]:
    """The settings that a file's plan stands for; `plan.for` names its recipe. Raises CommandFault, SpecError."""
    path, colon, name = word.rpartition(":")
    path, name = (path, name) if colon and not name.endswith(".partita") else (word, "")
    spec = open_spec(path)
    found = {own: record for (kind, own), record in spec.records.items() if kind == "plan"}
    wanted = name or next(iter(found), "")
    if wanted not in found:
        raise CommandFault(f"{path} has no plan `{wanted}`" if name else f"{path} has no plan")
    sink = Diagnostics()
    check_record(found[wanted], spec.records, sink)
    sink.raise_if_errors()
    entries = [one for one in found[wanted].entries if isinstance(one, RecordSet)]
    pairs = [(one.key.text, one.value.span.text) for one in entries if isinstance(one.key, Name)]
    return [f"{PLAN}.{key}={value}" for key, value in pairs]


def _recompute(choice: str) -> str:
    """The setting that says it."""
    return f"{RECOMPUTE}={choice}"


def _offload(choice: str) -> str:
    """The setting that says it: `optimizer,activations` is a list."""
    return f"{OFFLOAD}={f'[{choice}]' if ',' in choice else choice}"


def _microbatches(number: str) -> str:
    """The setting that says it. Raises ArgumentTypeError, which argparse prints."""
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{number}: a step has at least one")
    return f"{MICROBATCHES}={number}"


def plan_of(options: argparse.Namespace, recipe: Recipe | None) -> Plan | None:
    """What is to be laid out: the command line's words over the recipe's plan; None where nothing is asked."""
    own = recipe.plan if recipe is not None else None
    if options.mesh is None and (own is None or not own.mesh):
        if options.pin or options.zero is not None:
            raise SpecError(Diagnostic("E0944", "pins and a ZeRO stage need a mesh", hint="--mesh data=2,tensor=2"))
        if options.schedule is not None or options.balance is not None:
            raise SpecError(Diagnostic("E0420", "a pipeline needs a mesh", hint=f"--mesh {PIPE}=2"))
        return None
    plan = own or Plan()
    if options.mesh is not None:
        plan = replace(plan, mesh=mesh_axes(options.mesh))
    pins = tuple(_pin(word) for word in options.pin)
    kept = tuple(pin for pin in plan.pins if pin[0] not in dict(pins))
    plan = replace(plan, pins=(*kept, *pins), zero=plan.zero if options.zero is None else options.zero)
    return pipeline_of(options, plan, None if recipe is None else recipe.rows)


def pipeline_of(options: argparse.Namespace, plan: Plan, rows: Rows | None) -> Plan:
    """The plan with the command line's schedule and balance. Raises SpecError E0420 for what does not fit."""
    written = [key for key in ("schedule", "balance") if getattr(options, key) is not None]
    if options.schedule is not None:
        try:
            plan = replace(plan, schedule=str(parse_form(options.schedule)))
        except FormFault as fault:
            raise SpecError(Diagnostic("E0420", str(fault), hint=fault.hint)) from None
    if options.balance is not None:
        plan = replace(plan, balance=_numbers(options.balance))
    for _, title, hint in pipeline_faults(plan, written, rows):
        raise SpecError(Diagnostic("E0420", title, hint=hint))
    return plan


def _numbers(said: str) -> tuple[int, ...]:
    """`4,4,3` as numbers from 1 on."""
    words = [word.strip() for word in said.split(",")]
    if not all(word.isdecimal() and 0 < int(word) < 1 << 20 for word in words):
        hint = "for instance --balance 4,4,4,3"
        raise SpecError(Diagnostic("E0420", f"`--balance {said}` is not a list of numbers", hint=hint))
    return tuple(int(word) for word in words)


def mesh_axes(text: str) -> tuple[tuple[str, int], ...]:
    """`data=2,tensor=4` as axes. Raises SpecError E0944."""
    axes: list[tuple[str, int]] = []
    for word in text.split(","):
        name, equals, size = (piece.strip() for piece in word.partition("="))
        good = equals and name.isidentifier() and size.isdecimal() and 0 < int(size) < 1 << 20
        if not good or name in dict(axes):
            said = "stands there twice" if good else "is not AXIS=SIZE"
            raise SpecError(Diagnostic("E0944", f"`{word.strip()}` {said}", hint="for instance --mesh data=2,tensor=4"))
        axes.append((name, int(size)))
    return tuple(axes)


def _pin(word: str) -> tuple[str, str | None]:
    dim, equals, axis = (piece.strip() for piece in word.partition("="))
    if not equals or not dim or not axis:
        raise SpecError(Diagnostic("E0944", f"`--pin {word}` is not DIM=AXIS", hint="for instance --pin H=tensor"))
    return dim, None if axis == "none" else axis


def cluster_of(options: argparse.Namespace, spec: Spec) -> Cluster | None:
    """The machines that `--cluster` names; None where it is not given."""
    return None if options.cluster is None else cluster_from(options.cluster, spec)


def decision_of(bound: Bound, plan: Plan, cluster: Cluster | None = None) -> Decision:
    """The step of a spec laid out as planned, on a cluster, or on the recipe's."""
    if bound.recipe is None:
        mesh, wishes = Mesh(plan.mesh), wishes_of(plan)
        priced = machines(mesh, plan, cluster)
        return partitioned([step_of(bound)], mesh.without(PIPE), wishes, *priced)
    return pipeline.partitioned_step(bound.spec, bound.recipe, plan, cluster=cluster)


def mesh_json(decision: Decision) -> dict[str, object]:
    """A device's figures, exactly."""
    found = account(decision.graph, decision.mesh)
    return {
        "mesh": dict(decision.mesh.axes),
        "parameter_bytes": found.parameter_bytes,
        "gradient_bytes": found.gradient_bytes,
        "state_bytes": found.state_bytes,
        "activation_bytes": found.activation_bytes,
        "sent_bytes": dict(found.sent_bytes),
        "messages": dict(found.messages),
        "seconds": decision.solution.seconds,
        "gap": decision.solution.gap,
    }


def warn_of_idle(decision: Decision) -> None:
    """Says on standard error which axes are of no use."""
    warn(idle_axes(decision.graph, decision.mesh))


def warn(found: Sequence[Diagnostic]) -> None:
    """Warnings on standard error."""
    if found:
        print(render_all(found, sys.stderr.isatty() and "NO_COLOR" not in os.environ), file=sys.stderr)


def stages_of(
    spec: Spec, recipe: Recipe | None, plan: Plan, decision: Decision, cluster: Cluster | None = None
) -> list[StageAccount]:
    """What a device of each stage of a pipeline holds and sends; none where there is no pipeline. Raises SpecError."""
    whole, inner = Mesh(plan.mesh), decision.mesh
    if dict(whole.axes).get(PIPE, 1) == 1:
        return []
    named = cluster or (None if recipe is None else recipe_cluster(spec, recipe))
    wanted = Pipeline(plan.schedule, plan.balance, *machines(whole, plan, named), plan.offload)
    first = next(iter(inner.coordinates()))
    local = localize(decision.graph, inner, first) if inner.devices > 1 else decision.graph
    return stage_accounts(without_scans(local), inner.across(PIPE, whole), wanted)


def print_stages(found: Sequence[StageAccount], console: Console) -> None:
    """A row for each stage."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    hosted = ("host",) if any(one.host_bytes for one in found) else ()
    titles = ("parameters", "gradients", "states", "activations", "in flight", "holds", *hosted, "sends a step")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for at, one in enumerate(found):
        blocks = " and ".join(a if a == b else f"{a} … {b}" for a, b in one.blocks)
        sizes = (one.parameter_bytes, one.gradient_bytes, one.state_bytes, one.activation_bytes)
        sent = ", ".join(f"{axis} {bytes_text(n)} in {one.messages[axis]}" for axis, n in one.sent_bytes.items())
        there = (bytes_text(one.host_bytes),) if hosted else ()
        own = (*map(bytes_text, sizes), str(one.in_flight), bytes_text(one.peak_bytes), *there)
        table.add_row(f"{at}: {blocks}", *own, sent)
    console.print(table)


def print_mesh(decision: Decision, console: Console) -> None:
    """What one device holds and sends in a step."""
    found = account(decision.graph, decision.mesh)
    console.print(f"\non {decision.mesh}, each device", highlight=False)
    held = {
        "parameters": found.parameter_bytes,
        "gradients": found.gradient_bytes,
        "optimizer states": found.state_bytes,
        "activations": found.activation_bytes,
    }
    console.print("  holds " + ", ".join(f"{name} {bytes_text(size)}" for name, size in held.items()), soft_wrap=True)
    console.print(f"  takes {seconds_text(decision.solution.seconds)} a step, as its kernels and links are priced")
    for axis, size in found.sent_bytes.items():
        console.print(f"  sends along {axis} {bytes_text(size)} a step, in {found.messages[axis]} messages")
    uneven = uneven_dims(decision)
    if uneven:
        console.print(f"  uneven: {', '.join(uneven)}", soft_wrap=True)


def uneven_dims(decision: Decision) -> list[str]:
    """Dims whose parts differ, and by how much the largest is longer than an even one."""
    found: dict[str, None] = {}
    for node in decision.graph:
        for out, layout in zip(node.outs, node.layouts, strict=True):
            for dim, axes in zip(out.dims, layout.shards, strict=True):
                parts = 1
                for axis in axes:
                    parts *= decision.mesh.size(axis)
                size = dim.size or 0
                if size % parts:
                    more = 100 * (-(-size // parts) * parts / size - 1)
                    found[f"{dim} = {size} over {parts} (the longest part {more:.2g}% over an even one)"] = None
    return list(found)
