"""`partita passes`: runs passes on a spec's graph or on a graph's text, and prints the graph after each.

Without `--run` they are the very passes that compile the recipe, in its order and with its options (see
compiler/pipeline.py); for a model without a recipe, those of its forward graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from ..compiler import pipeline
from ..compiler.base.diagnostic import did_you_mean
from ..compiler.elaborate.loss import elaborate_loss
from ..compiler.ir.graph import Graph
from ..compiler.ir.levels import GRADIENT, LOSS, MODEL, STEP, Level
from ..compiler.ir.parse import parse_graph
from ..compiler.ir.text import print_graph
from ..compiler.ir.types import Phase
from ..compiler.passes import PASSES
from ..compiler.passes.definition import Pass, run_passes
from ..compiler.passes.update import Update
from .arguments import STDIN, add_choices, add_update, add_which, read_text, sets_of
from .brief import brief
from .fault import CommandFault
from .specs import bind

EXAMPLE = "partita passes specs/recipes/docs_demo.partita --run inline,differentiate,simplify --last --brief"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "spec",
        metavar="SPEC",
        nargs="?",
        help="a .partita file, or a graph's text (.graph, `-`); none: list the passes",
    )
    add_choices(parser)
    add_which(parser)
    add_update(parser)
    parser.add_argument(
        "--run", metavar="NAMES", help="passes, in order, separated by commas (default: those that compile the recipe)"
    )
    parser.add_argument("--last", action="store_true", help="print only the graph after the last pass")
    parser.add_argument("--brief", action="store_true", help="print for reading: aligned, without what the types say")
    parser.add_argument("--list", action="store_true", help="say what passes there are")


def run(options: argparse.Namespace) -> int:
    """Prints the graph as it comes, then after each pass; or the list of passes."""
    if options.list or options.spec is None:
        print(listing())
        return 0
    graph, own, told = graph_of(options)
    passes = list(own) if options.run is None else chosen(options.run, own)
    level = level_of(graph)
    if told:
        print(f"# assumed: {', '.join(told)}")
    check_levels(passes, level)
    form = brief if options.brief else print_graph
    if not options.last or not passes:
        show("as it comes", graph, form)

    def after(transform: Pass, result: Graph) -> None:
        nonlocal count
        count += 1
        if not options.last or count == len(passes):
            show(f"after {transform.name}", result, form)

    count = 0
    run_passes(graph, passes, level, after)
    return 0


def listing() -> str:
    """Each pass and what it does, in the order of the pipeline."""
    return "\n".join(f"{name:<15}{summary(kind)}" for name, kind in known().items())


def known() -> Mapping[str, type[Pass]]:
    """Every pass by its name, in the order of the pipeline."""
    before = {name: kind for name, kind in PASSES.items() if name != "microbatch"}
    return {**before, Update.name: Update, **PASSES}


def summary(kind: type[Pass]) -> str:
    """The first sentence of the module that holds the pass, without its name."""
    words = " ".join((sys.modules[kind.__module__].__doc__ or "").split("\n\n")[0].split())
    return words.partition(": ")[2].rstrip(".")


def chosen(names: str, own: Sequence[Pass]) -> list[Pass]:
    """The passes of those names, with the recipe's options where there is a recipe."""
    made: dict[str, Pass] = {}
    for one in own:
        made.setdefault(one.name, one)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return [made[name] if name in made else named(name) for name in wanted]


def check_levels(passes: Sequence[Pass], level: Level) -> None:
    """Raises CommandFault where a pass would meet a graph at a level that it is not for."""
    for transform in passes:
        allowed = [one.name for one in transform.levels]
        if level.name not in allowed:
            hint = f"{transform.name} wants a graph at level {' or '.join(allowed)}"
            raise CommandFault(f"{transform.name} cannot run on a graph at level {level.name}", hint)
        level = transform.gives or level


def named(name: str) -> Pass:
    """A pass with its default options, by its name."""
    if name == Update.name:
        raise CommandFault("`update` has the optimizer of a recipe", "give a spec with a `train` record")
    make: Callable[[], Pass] | None = PASSES.get(name)
    if make is None:
        raise CommandFault(f"no pass `{name}`", did_you_mean(name, known()) or f"there are {', '.join(known())}")
    return make()


def graph_of(options: argparse.Namespace) -> tuple[Graph, Sequence[Pass], tuple[str, ...]]:
    """The graph of a spec, or the one that a text (`.graph`, `-`) describes; the passes that are its own, and what was
    assumed for it."""
    if options.spec == STDIN or options.spec.endswith(".graph"):
        source = read_text(options.spec)
        return parse_graph(source.text, source.path), (), ()
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe, options.update)
    if bound.recipe is None:
        return bound.model, pipeline.forward_passes(), ()
    loss, _ = elaborate_loss(bound.spec, bound.recipe)
    return loss, pipeline.step_passes(bound.spec, bound.recipe), bound.assumed


def level_of(graph: Graph) -> Level:
    """The lowest level that the graph can be at."""
    phases = {node.phase for node in graph}
    if Phase.UPDATE in phases:
        return STEP
    if any(name.startswith("grad/") for name in graph.outputs):
        return GRADIENT
    return LOSS if "loss" in graph.outputs else MODEL


def show(title: str, graph: Graph, form: Callable[[Graph], str]) -> None:
    """The graph's text under a comment."""
    print(f"# {title}: {len(graph)} nodes\n{form(graph)}")
