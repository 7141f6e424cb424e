"""`partita train`: compiles a recipe, trains it, and says what came of it beside what was foretold."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from ..compiler.cost.table import Table
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.recipe import Recipe
from ..compiler.ir.graph import DUMP
from ..runtime import train as runtime
from ..runtime.begin import Options
from ..runtime.metrics import StepRecord
from ..runtime.program import Build
from .arguments import add_kernels, add_spec, sets_of
from .calibration import quick_table, table_for
from .compile import compile_recipe, recipe_for
from .fold import fold
from .measured import check_timeline, said, timelines
from .measured import write as write_timelines
from .mesh import add_mesh, cluster_of
from .picture import picture
from .progress import TrainingDisplay, Yardstick, comparison, evaluation_words
from .render import draw, to_dot
from .sample import sample_text
from .specs import bind, drawn_model

EXAMPLE = "partita train specs/recipes/docs_demo.partita --set steps=200 --out out/demo"
LONG = 1_000_000  # tokens of a run that is worth some seconds of timing kernels
FULL_PICTURE = 400  # nodes: a larger graph is drawn folded


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: out/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run")
    parser.add_argument("--data-root", metavar="DIR", help="where the data's paths begin, instead of the spec's folder")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")
    add_kernels(parser)
    add_mesh(parser)
    parser.add_argument(
        "--timeout", metavar="S", type=float, help="seconds that a process waits for another before all leave"
    )
    parser.add_argument(
        "--timeline",
        metavar="FILE",
        help="of a pipeline: draw the last step, measured and foretold (.svg, .html; .json: a Chrome trace)",
    )
    parser.add_argument(
        "--dump", metavar="PATH", action="append", default=[], help="write a named value of the first step"
    )


def run(options: argparse.Namespace) -> int:
    """Trains; the exit code is the run's."""
    spec, recipe = recipe_for(options)
    folder = Path(options.out or f"out/{recipe.name}")
    long, compute = recipe.tokens_per_step * recipe.steps >= LONG, recipe.precision.compute.value
    table = quick_table(options.device, compute) if long else table_for(options.device)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as beside:
        return train(options, spec, recipe, Path(beside) / "build", table)


def train(options: argparse.Namespace, spec: Spec, recipe: Recipe, beside: Path, table: Table) -> int:
    """Trains the build that lies `beside`; it takes its place in the run's folder when the run has really begun."""
    folder = beside.parent.parent
    cluster = cluster_of(options, spec)
    if options.timeline:
        check_timeline(options.timeline, dict(recipe.plan.mesh) if recipe.plan else {})
    build = compile_recipe(spec, recipe, beside, options.device, table, tuple(options.dump), cluster)
    display = TrainingDisplay(
        Yardstick(build.predictions["step_flops"], table.machine.matmul(recipe.precision.compute))
    )
    display.say(f"{recipe.name}: {build.name}, {build.predictions['parameters']:,.0f} parameters, {recipe.steps} steps")

    if build.mesh.size > 1:
        return train_on_mesh(options, recipe, build, beside)

    def begun(record: StepRecord) -> None:
        adopt(beside, folder / "build")
        display.step(record)

    try:
        result = runtime.train(
            beside,
            Options(
                folder=folder,
                resume=options.resume,
                overwrite=options.overwrite,
                data_root=Path(options.data_root) if options.data_root else None,
                device=options.device,
                kernels=recipe.kernels,
                dump=tuple(DUMP + name for name in options.dump),
                on_step=begun,
                on_evaluate=display.evaluation,
                on_warning=lambda words: display.say(f"warning: {words}"),
            ),
        )
    finally:
        display.close()
    adopt(beside, folder / "build")
    if result.exit_code == 0:
        conclude(options, recipe, folder, result)
    return result.exit_code


def train_on_mesh(options: argparse.Namespace, recipe: Recipe, build: Build, beside: Path) -> int:
    """Starts a process for each device of the mesh; the first of them speaks."""
    from ..runtime.launch import launch  # torchrun's agent takes half a second to load

    folder = beside.parent.parent
    code = launch(beside, build.mesh.size, run_words(options, folder, recipe.kernels))
    adopt(beside, folder / "build")
    if code == 0:
        conclude(options, recipe, folder, runtime.result_of(build, folder))
    if code == 0 and options.timeline:
        found = timelines(build, folder)
        write_timelines(Path(options.timeline), found, recipe.name)
        print(f"{said(found)}\ntimeline:   {options.timeline}")
    return code


def run_words(options: argparse.Namespace, folder: Path, kernels: tuple[str, ...]) -> list[str]:
    """The command line of each process, behind the build's folder."""
    words = ["--out", str(folder), "--device", options.device]
    words += ["--resume"] if options.resume else []
    words += ["--overwrite"] if options.overwrite else []
    words += ["--data-root", options.data_root] if options.data_root else []
    words += ["--timeline"] if options.timeline else []
    words += ["--timeout", str(options.timeout)] if options.timeout else []
    words += [word for name in options.dump for word in ("--dump", DUMP + name)]
    return words + [word for name in kernels for word in ("--kernels", name)]


def adopt(beside: Path, build: Path) -> None:
    """Puts the new build in the place of the old one, once."""
    if beside.exists():
        shutil.rmtree(build, ignore_errors=True)
        beside.replace(build)


def conclude(options: argparse.Namespace, recipe: Recipe, folder: Path, result: runtime.Result) -> None:
    """The last lines: held-out loss, a sample, where things lie, predicted beside measured."""
    summary = result.summary
    if summary.held_out is not None:
        print(evaluation_words(summary.held_out))
    if recipe.sample is not None and result.checkpoint is not None and recipe.source and recipe.source.kind != "tokens":
        drawn = sample_text(folder / "build", result.checkpoint, recipe.sample, options.device, recipe.kernels)
        print(f"sample:\n{drawn}\n")
    graph = drawn_model(bind(options.spec, sets_of(options), options.size, None, options.recipe))
    draw(to_dot(picture(graph) if len(graph) <= FULL_PICTURE else fold(graph)), folder / "graph.svg")
    print(f"graph:      {folder / 'graph.svg'}")
    print(f"checkpoint: {result.checkpoint}")
    print(comparison(summary))
