"""`partita compile`: writes the build folder that trains a model, and what is foretold of it.

It needs no device: for one that is not here the time alone is not foretold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..compiler import pipeline
from ..compiler.base.diagnostic import Diagnostic, Label, Severity, did_you_mean
from ..compiler.cost.cluster import Cluster
from ..compiler.cost.table import Table
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.loss import elaborate_loss
from ..compiler.elaborate.recipe import Recipe
from ..compiler.ir.graph import DUMP
from ..compiler.passes.update import idle_groups
from ..runtime.program import Build
from .arguments import add_kernels, add_spec, kernels_of, sets_of
from .calibration import has_device, table_for
from .fault import CommandFault
from .mesh import add_mesh, cluster_of, plan_of, warn
from .numbers import bytes_text, compact, seconds_text
from .specs import open_spec, recipe_of

EXAMPLE = "partita compile specs/recipes/docs_demo.partita -o out/demo/build"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")
    parser.add_argument("-o", "--out", metavar="DIR", help="the build folder (default: out/RECIPE/build)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")
    add_kernels(parser)
    add_mesh(parser)
    parser.add_argument("--dump", metavar="PATH", action="append", default=[], help="keep a named value as an output")


def run(options: argparse.Namespace) -> int:
    """Compiles; says what is foretold."""
    spec, recipe = recipe_for(options)
    folder = Path(options.out or f"out/{recipe.name}/build")
    cluster, dump = cluster_of(options, spec), tuple(options.dump)
    table = table_for(options.device) if has_device(options.device) else None
    build = compile_recipe(spec, recipe, folder, options.device, table, dump, cluster)
    print(f"{folder}  {foretold(build)}")
    return 0


def recipe_for(options: argparse.Namespace) -> tuple[Spec, Recipe]:
    """The spec and the recipe that a command line names."""
    spec = open_spec(options.spec)
    recipe = recipe_of(spec, sets_of(options), options.size, options.recipe)
    if recipe is None:
        raise CommandFault(
            f"{options.spec} has no recipe", "declare `train NAME { … }`, or name a file in specs/recipes"
        )
    return spec, replace(recipe, kernels=kernels_of(options), plan=plan_of(options, recipe) or recipe.plan)


def compile_recipe(
    spec: Spec, recipe: Recipe, folder: Path, device: str, table: Table | None, dump: tuple[str, ...] = (),
    cluster: Cluster | None = None,
) -> Build:  # fmt: skip
    """Writes the build folder. Raises SpecError; then nothing was written."""
    if dump:
        _check_known(dump, spec, recipe)
    kind = device.partition(":")[0]
    try:
        build = pipeline.compile_recipe(
            spec, recipe, folder, device=kind, table=table, dump=dump, cluster=cluster, warn=warn
        )
    except OSError as fault:
        raise CommandFault(f"cannot write {folder}: {fault.strerror}", exit_code=1) from fault
    warn(idle(recipe, [item.name for item in build.parameters if item.trained]))
    return build


def idle(recipe: Recipe, names: Sequence[str]) -> list[Diagnostic]:
    """A warning for each pattern of `optimizer` that none of these parameters falls to."""
    return [
        Diagnostic(
            "E0417",
            f"no parameter falls to the pattern `{group.pattern}`",
            (Label(group.span, "updates nothing"),) if group.span else (),
            hint=did_you_mean(group.pattern, names) or "patterns are tried in order, and the first that fits takes all",
            severity=Severity.WARNING,
        )
        for group in idle_groups(recipe.optimizer, names)
        if group.pattern != "*"  # for whatever is left; there may be nothing
    ]


def _check_known(names: tuple[str, ...], spec: Spec, recipe: Recipe) -> None:
    """Raises CommandFault for a name that neither the step nor the model before any pass has."""
    step = pipeline.step_graph(spec, recipe, keep=names)
    for name in names:
        if name not in step and DUMP + name not in step.outputs:
            model, _ = elaborate_loss(spec, recipe.turns[0])
            ids = dict.fromkeys(node.id for graph in (model, step) for node in graph)
            raise CommandFault(
                f"the step has no value `{name}`", did_you_mean(name, ids) or "`partita passes` lists them"
            )


def foretold(build: Build) -> str:
    """The predictions in a line."""
    hopes = build.predictions
    time = ""
    if "step_seconds" in hopes:
        bound = "about" if hopes["timed_kernels"] else "no less than"
        time = f" in {bound} {seconds_text(hopes['step_seconds'])}"
    return (
        f"{hopes['parameters']:,.0f} parameters, {compact(hopes['step_flops'], 'G')}FLOP a step{time}, "
        f"peak memory {bytes_text(hopes['peak_bytes'])}"
    )
