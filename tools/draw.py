"""`partita render`: a model, or its whole training step, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..compiler.ir.graph import Graph
from ..compiler.ir.parse import parse_graph
from .arguments import add_spec, add_update, add_which, read_text, sets_of
from .fault import CommandFault
from .fold import fold
from .mesh import add_mesh, cluster_of, decision_of, plan_of
from .picture import picture
from .render import FORMATS, draw, to_dot
from .specs import bind, drawn_model, step_of

EXAMPLE = "partita render specs/models/gpt2.partita --size small --fold -o gpt2.svg"
MOST_NODES = 3000  # more are no picture but a wall, and minutes of layout


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    add_update(parser)
    parser.add_argument(
        "--stage",
        choices=("model", "step", "partitioned"),
        default="model",
        help="the forward graph, the whole step, or the step laid out on a mesh",
    )
    add_mesh(parser)
    parser.add_argument("--fold", action="store_true", help="one box for a block, a chain of layers drawn once")
    parser.add_argument("-o", "--out", metavar="FILE", help="a name that ends in .svg, .png, .pdf or .dot")


def run(options: argparse.Namespace) -> int:
    """Draws to the file; says where it is."""
    out = Path(options.out or f"{Path(options.spec).stem}.svg")
    if out.suffix.removeprefix(".").lower() not in FORMATS:
        raise CommandFault(f"cannot draw to `{out}`", f"end the name in {', '.join('.' + f for f in FORMATS)}")
    graph, told = graph_of(options)
    drawn = fold(graph) if options.fold else picture(graph)
    if len(drawn.boxes) > MOST_NODES:
        hint = None if options.fold else "--fold draws one box for a block and a chain of layers once"
        raise CommandFault(f"{len(drawn.boxes)} boxes are too many for a picture (most: {MOST_NODES})", hint)
    draw(to_dot(drawn), out)
    print(f"{out}  ({len(drawn.boxes)} boxes for {len(graph)} nodes)")
    if told:
        print(f"assumed: {', '.join(told)}")
    return 0


def graph_of(options: argparse.Namespace) -> tuple[Graph, tuple[str, ...]]:
    """The graph that was asked for: of a spec, or of a graph's own text; and what was assumed for it."""
    if options.spec.endswith(".graph"):
        return parse_graph(read_text(options.spec).text, options.spec), ()
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe, options.update)
    if options.stage == "partitioned":
        plan = plan_of(options, bound.recipe)
        if plan is None:
            raise CommandFault("a partitioned step needs a mesh", "--mesh data=2,tensor=2")
        return decision_of(bound, plan, cluster_of(options, bound.spec)).graph, bound.assumed
    return step_of(bound) if options.stage == "step" else drawn_model(bound), bound.assumed
