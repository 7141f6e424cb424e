"""`partita explain`: why a value of a step lies on the mesh as it does, and what else it could be at what cost.

Of a spec, laid out anew, or of a build folder, which keeps what its layout was the answer to. Without a node: every
choice, the most expensive first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..compiler.base.diagnostic import did_you_mean
from ..compiler.ir.layout import PIPE, Mesh
from ..compiler.ir.types import Node
from ..compiler.partition import kept
from ..compiler.partition.decide import Decision
from ..compiler.partition.explain import Alternative, all_chosen, explain
from ..runtime.program import Build
from ..runtime.program_json import ProgramFormatError, from_json
from .arguments import add_spec, add_which, sets_of
from .fault import CommandFault
from .mesh import add_mesh, cluster_of, decision_of, plan_of, stages_of
from .numbers import bytes_text, seconds_text
from .specs import bind

EXAMPLE = "partita explain specs/recipes/tour.partita head.dot --mesh data=2,tensor=2"
SHOWN = 20  # choices


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser, help="a .partita file, or a build folder that was compiled for a mesh")
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="a node of the step, as `partita passes` prints it (default: all)"
    )
    add_which(parser)
    add_mesh(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the chosen layout and its alternatives, or all choices."""
    decision = decision_for(options)
    if options.node is None:
        print_all(decision)
    elif options.node in decision.folded.of:
        print_node(decision, options.node)
    else:
        raise CommandFault(f"the step has no node `{options.node}`", did_you_mean(options.node, decision.folded.of))
    return 0


def decision_for(options: argparse.Namespace) -> Decision:
    """The layout of a build folder, or of a spec as the command line asks for it."""
    if Path(options.spec).is_dir():
        return decision_of_build(Path(options.spec))
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe)
    plan = plan_of(options, bound.recipe)
    if plan is None:
        raise CommandFault("a layout needs a mesh", "--mesh data=2,tensor=2")
    cluster, mesh = cluster_of(options, bound.spec), Mesh(plan.mesh)
    decision = decision_of(bound, plan, cluster)
    if only_stages(mesh):
        stages = told([stage.blocks for stage in stages_of(bound.spec, bound.recipe, plan, decision, cluster)])
        raise CommandFault(nothing_laid_out(mesh), stages)
    return decision


def decision_of_build(folder: Path) -> Decision:
    """What was decided for the build, decided again."""
    try:
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in (kept.GRAPH, kept.QUESTION)}
    except (OSError, UnicodeDecodeError):
        build = build_of(folder)
        if build is not None and only_stages(mesh := Mesh(build.mesh.axes)):
            held = [
                [item.name for item in build.parameters if build.has(item, rank)] or ["no parameter"]
                for rank in range(mesh.devices)
            ]
            stages = told([[(names[0], names[-1])] for names in held])
            raise CommandFault(f"{folder}: {nothing_laid_out(mesh)}", stages) from None
        hint = "it is kept in builds that are compiled for several devices: partita compile --mesh …"
        raise CommandFault(f"{folder} has no layout to explain", hint) from None
    try:
        return kept.asked_again(texts)
    except kept.NotKept as fault:
        raise CommandFault(f"{folder}: {fault}", "compile it again") from None


def build_of(folder: Path) -> Build | None:
    """What a folder holds; None where it is no build."""
    try:
        return from_json((folder / "program.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ProgramFormatError):
        return None


def only_stages(mesh: Mesh) -> bool:
    """Whether a mesh has stages of one device each, so that only blocks were placed."""
    return mesh.devices > 1 and mesh.without(PIPE).devices == 1


def nothing_laid_out(mesh: Mesh) -> str:
    """Why there is nothing to explain."""
    return f"on {mesh} a stage is one device, which holds and computes its blocks whole: nothing is laid out"


def told(stages: Sequence[Sequence[tuple[str, str]]]) -> str:
    """The first and last of what each stage has, chunk by chunk."""
    return "; ".join(
        f"stage {at}: " + " and ".join(" … ".join(dict.fromkeys(ends)) for ends in chunks)
        for at, chunks in enumerate(stages)
    )


def print_node(decision: Decision, name: str) -> None:
    """One value: how it lies, what decided it, what else it could be."""
    found = explain(decision, name)
    alike = decision.folded.counts[decision.folded.of[name]]
    print(f"{name}: {found.node.op}{_place(found.node)}" + (f", one of {alike} alike" if alike > 1 else ""))
    chosen, *others = found.alternatives
    print(f"  {chosen.layout}  {bytes_text(chosen.bytes_)} a device: {chosen.cut}")
    print(f"  because {found.forced}")
    for other in others:
        print(f"  {_cost(other):>26}  {other.layout}  {bytes_text(other.bytes_)} a device: {other.cut}")
    if found.unpriced:
        print(f"  and {found.unpriced} more")


def print_all(decision: Decision) -> None:
    """Every choice, the most expensive first."""
    every = all_chosen(decision)
    step = decision.solution.seconds
    print(f"on {decision.mesh}, {seconds_text(step)} a step, of {len(every)} choices the most expensive")
    for one in every[:SHOWN]:
        alike = f" × {one.count}" if one.count > 1 else ""
        messages = f", messages {seconds_text(one.messages_s)} ({', '.join(one.messages)})" if one.messages else ""
        print(f"  {one.node.id}: {one.node.op}{alike}{_place(one.node)}")
        print(f"    {one.layout}: {one.cut}")
        print(f"    {seconds_text(one.compute_s)}{messages}")


def _place(node: Node) -> str:
    return f"  {node.origin[0].file}:{node.origin[0].line}" if node.origin else ""


def _cost(other: Alternative) -> str:
    """What a step would take more, and a device hold more."""
    if other.more_s is None:
        return "does not fit"
    size = bytes_text(abs(other.more_bytes))
    held = "" if not other.more_bytes else f" {'+' if other.more_bytes > 0 else '−'}{size}"
    return f"+{max(other.more_s, 0.0) * 1e3:.3g} ms{held}"
