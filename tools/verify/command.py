"""`partita verify`: runs a recipe's step in every form that the compiler gives it, down to the programs of a mesh.

Where two forms differ, the first pass and the first node that differ are named. Everything is float64, on weights near
their initial values; sizes are small unless they are asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...compiler.elaborate.recipe import Recipe
from ...compiler.ir.layout import Mesh
from ..arguments import add_kernels, add_spec, add_which, kernels_of, sets_of
from ..fault import CommandFault
from ..mesh import add_mesh, cluster_of, plan_of
from ..specs import open_spec, recipe_of
from .chain import Chain, Fault
from .program import Verification
from .small import LARGEST, elements_of, loss_graph, shrunk
from .values import Gap

EXAMPLE = "partita verify specs/recipes/tour.partita --mesh data=2,tensor=2"
MOST = 40 * LARGEST  # what --whole may ask for: a gigabyte, minutes
DEVICES = 64


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    add_mesh(parser)
    add_kernels(parser)
    parser.add_argument(
        "--dim", metavar="NAME=SIZE", action="append", default=[], help="the size of a dim; may be repeated"
    )
    parser.add_argument("--whole", action="store_true", help="do not make the recipe's dims small")
    parser.add_argument("--json", action="store_true", help="what was compared, as JSON")


def run(options: argparse.Namespace) -> int:
    """Prints a line for each form; 1 if two of them differ."""
    spec = open_spec(options.spec)
    recipe = recipe_of(spec, (*sets_of(options), *_dims(options)), options.size, options.recipe)
    if recipe is None:
        raise CommandFault(f"{options.spec} has no recipe", "what is verified is a training step: declare `train NAME`")
    recipe = replace(recipe, kernels=kernels_of(options))
    plan = plan_of(options, recipe)
    mesh, cluster = Mesh(plan.mesh if plan else ()), cluster_of(options, spec)
    if mesh.devices > DEVICES:
        raise CommandFault(f"{mesh} has {mesh.devices} devices", f"all run in this process: take {DEVICES} at most")
    recipe = replace(recipe, plan=plan or recipe.plan)
    whole, told = recipe, ""
    if not options.whole and not options.dim:
        recipe, told = shrunk(spec, recipe, max((size for _, size in mesh.axes), default=1))
        plan = recipe.plan if plan else None
    _check_size(recipe, count := elements_of(loss_graph(spec, recipe)))
    small = f"; made small: {told}" if told else ""
    say(options, f"{recipe.name} on {mesh}, float64, {count:,} values a forward{small}")
    chains: list[Chain] = []
    cluster = cluster_of(options, spec)
    for chain in Verification(spec, recipe, plan, whole if told else None, cluster=cluster).chains():
        chains.append(chain)
        say(options, table(chain))
        if chain.fault is not None:
            break
    if options.json:
        print(json.dumps([_plain(chain) for chain in chains], indent=1))
    return 1 if any(chain.fault for chain in chains) else 0


def _dims(options: argparse.Namespace) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for word in options.dim:
        name, equals, size = (piece.strip() for piece in word.partition("="))
        if not equals or not name or not size.isdecimal() or not int(size):
            raise CommandFault(f"`--dim {word}` is not NAME=SIZE", "for instance --dim T=16")
        found.append((f"dims.{name}", size))
    return found


def _check_size(recipe: Recipe, count: int) -> None:
    if count > MOST:
        hint = "take smaller ones with --dim NAME=SIZE, --set batch=N, or leave --whole out"
        raise CommandFault(f"{recipe.name} computes {count:,} values a forward: too many to verify in numpy", hint)


# ---- what is said


def say(options: argparse.Namespace, text: str) -> None:
    """A line as soon as it is known, where people read."""
    if not options.json:
        print(text, flush=True)


def table(chain: Chain) -> str:
    """A line for each form, and the fault."""
    lines = [f"{chain.name}", f"  {'after':<15}{'nodes':>6}{'shared':>8}  largest error of its results"]
    for line in chain.lines:
        error = "" if line.name == "elaborate" else f"{line.error:.0e}"
        lines.append(f"  {line.name:<15}{line.nodes:>6}{line.compared or '':>8}  {error:<7} {line.note}".rstrip())
    if chain.fault is None:
        return "\n".join([*lines, "  all forms agree"])
    return "\n".join([*lines, *_said(chain.fault)])


def _said(fault: Fault) -> list[str]:
    lines = [f"  {fault.after:<15}DIFFERS: {_some(fault.results)}" if fault.results else f"  {fault.after:<15}FAILS"]
    if fault.node is not None:
        node = fault.node
        place = f"  {node.origin[0].file}:{node.origin[0].line}" if node.origin else ""
        lines.append(f"first at {node.id}: {node.op}{place}")
        reads = [use.node for use in node.uses]
        lines += [f"  reads     {_some(reads)}"] if reads else []
    if fault.gap is not None:
        lines += _gap(fault.gap)
    return [*lines, *(f"  {line}" for line in fault.said.splitlines()[:12])]


def _gap(gap: Gap) -> list[str]:
    found, wanted = np.asarray(gap.found), np.asarray(gap.wanted)
    lines = [f"  error     {gap.error:.2g} of its norm" + (f", on {gap.where}" if gap.where else "")]
    if found.shape != wanted.shape or not found.size:
        return [*lines, f"  expected  shape {list(wanted.shape)}", f"  found     shape {list(found.shape)}"]
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.subtract(found, wanted, dtype=np.float64))
    at = np.unravel_index(int(np.nanargmax(np.where(np.isnan(apart), np.inf, apart))), found.shape)
    where = f"  at [{', '.join(map(str, map(int, at)))}]" if found.shape else ""
    return [*lines, f"  expected  {float(wanted[at]):.9g}{where}", f"  found     {float(found[at]):.9g}"]


def _some(every: Sequence[str], most: int = 4) -> str:
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _plain(chain: Chain) -> Mapping[str, object]:
    fault = chain.fault
    return {
        "program": chain.name,
        "forms": [
            {"after": line.name, "nodes": line.nodes, "shared": line.compared, "error": line.error, "note": line.note}
            for line in chain.lines
        ],
        "fault": fault and {
            "after": fault.after,
            "node": fault.node and fault.node.id,
            "place": fault.node and fault.node.origin and f"{fault.node.origin[0].file}:{fault.node.origin[0].line}",
            "results": list(fault.results),
            "error": fault.gap and fault.gap.error,
            "said": fault.said,
        },
    }  # fmt: skip
