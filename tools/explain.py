"""`partita explain`: why a value of a step lies on the mesh as it does, and what else it could be at what cost."""

from __future__ import annotations

import argparse

from ..compiler.base.diagnostic import did_you_mean
from ..compiler.partition.explain import Alternative, explain
from .arguments import add_spec, add_which, sets_of
from .fault import CommandFault
from .mesh import add_mesh, cluster_of, decision_of, plan_of
from .numbers import bytes_text
from .specs import bind

EXAMPLE = "partita explain specs/recipes/tour.partita head.dot --mesh data=2,tensor=2"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("node", metavar="NODE", help="a node of the step, as `partita passes` prints it")
    add_which(parser)
    add_mesh(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the chosen layout and its alternatives."""
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe)
    plan = plan_of(options, bound.recipe)
    if plan is None:
        raise CommandFault("a layout needs a mesh", "--mesh data=2,tensor=2")
    decision = decision_of(bound, plan, cluster_of(options, bound.spec))
    if options.node not in decision.folded.of:
        raise CommandFault(f"the step has no node `{options.node}`", did_you_mean(options.node, decision.folded.of))
    found = explain(decision, options.node)
    origin = found.node.origin
    place = f"  {origin[0].file}:{origin[0].line}" if origin else ""
    alike = decision.folded.counts[decision.folded.of[options.node]]
    print(f"{options.node}: {found.node.op}{place}" + (f", one of {alike} alike" if alike > 1 else ""))
    chosen, *others = found.alternatives
    print(f"  {chosen.layout}  {bytes_text(chosen.bytes_)} a device: {chosen.cut}")
    if not others:
        print("  nothing else is legal here, or left by pins and ZeRO")
    for other in others:
        print(f"  {_cost(other):>14}  {other.layout}  {bytes_text(other.bytes_)} a device: {other.cut}")
    if found.unpriced:
        print(f"  and {found.unpriced} more")
    return 0


def _cost(other: Alternative) -> str:
    """What a step would take more."""
    return "does not fit" if other.more_s is None else f"+{max(other.more_s, 0.0) * 1e3:.3g} ms"
