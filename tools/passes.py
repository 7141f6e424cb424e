"""`partita passes`: runs named passes on a spec's graph or on a graph's text, and prints the graph after each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..compiler.base.diagnostic import did_you_mean
from ..compiler.elaborate.loss import elaborate_loss
from ..compiler.ir.graph import Graph
from ..compiler.ir.levels import GRADIENT, LOSS, MODEL, STEP, Level
from ..compiler.ir.parse import parse_graph
from ..compiler.ir.text import print_graph
from ..compiler.ir.types import Phase
from ..compiler.passes import PASSES
from ..compiler.passes.definition import Pass, run_passes
from .arguments import STDIN, add_spec, read_text, sets_of
from .fault import CommandFault
from .specs import bind

EXAMPLE = "partita passes specs/recipes/docs_demo.partita --run inline,differentiate,simplify --last"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("--run", metavar="NAMES", default="", help="passes, in order, separated by commas")
    parser.add_argument("--last", action="store_true", help="print only the graph after the last pass")


def run(options: argparse.Namespace) -> int:
    """Prints the graph as it comes, then after each pass."""
    passes = [named(name.strip()) for name in options.run.split(",") if name.strip()]
    graph = graph_of(options)
    level = level_of(graph)
    check_levels(passes, level)
    if not options.last or not passes:
        show("as it comes", graph)

    def after(transform: Pass, result: Graph) -> None:
        if not options.last or transform is passes[-1]:
            show(f"after {transform.name}", result)

    run_passes(graph, passes, level, after)
    return 0


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
    make: Callable[[], Pass] | None = PASSES.get(name)
    if make is None:
        raise CommandFault(f"no pass `{name}`", did_you_mean(name, PASSES) or f"there are {', '.join(PASSES)}")
    try:
        return make()
    except TypeError as fault:
        raise CommandFault(f"pass `{name}` has options without defaults; it cannot be run by name alone") from fault


def graph_of(options: argparse.Namespace) -> Graph:
    """The graph of a spec, or the one that a text (`.graph`, `-`) describes."""
    if options.spec == STDIN or options.spec.endswith(".graph"):
        source = read_text(options.spec)
        return parse_graph(source.text, source.path)
    bound = bind(options.spec, sets_of(options), options.size)
    return bound.model if bound.recipe is None else elaborate_loss(bound.spec, bound.recipe)[0]


def level_of(graph: Graph) -> Level:
    """The lowest level that the graph can be at."""
    phases = {node.phase for node in graph}
    if Phase.UPDATE in phases:
        return STEP
    if any(name.startswith("grad/") for name in graph.outputs):
        return GRADIENT
    return LOSS if "loss" in graph.outputs else MODEL


def show(title: str, graph: Graph) -> None:
    """The graph's text under a comment."""
    print(f"# {title}: {len(graph)} nodes\n{print_graph(graph)}")
