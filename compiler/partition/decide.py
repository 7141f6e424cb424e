"""From a graph and wishes to its best layout: what the pass does, with all that it knew when it chose.

In: a graph with sizes, a mesh, the cluster that it is priced on, pins, a ZeRO stage, the memory of a device. Out: the
partitioned graph and the choice behind it, for figures and explanations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..cost.cluster import Cluster
from ..ir.graph import Graph
from ..ir.layout import Axes, Mesh
from ..ir.types import Dim, Node, Phase
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from .choices import DATA, Choices, Wishes, choices, compute_copies
from .fold import ClassId, Folded, fold
from .price import Prices
from .relayout import Paths
from .rewrite import rewrite
from .solve import Infeasible, Program, Solution
from .strategies import Strategy, options


@dataclass(frozen=True)
class Decision:
    """graph: partitioned. before: as it was. The rest: what was wished, and what was chosen from what."""

    graph: Graph
    before: Graph
    wishes: Wishes
    mesh: Mesh
    folded: Folded
    chosen: Choices
    solution: Solution
    program: Program


def decide(
    graph: Graph, mesh: Mesh, cluster: Cluster, wishes: Wishes | None = None, memory_bytes: int | None = None
) -> Decision:
    """The best layout. Raises SpecError (E0941-E0943) where a wish cannot be fulfilled."""
    wishes = wishes or Wishes()
    check_pins(graph, mesh, wishes.pins)
    folded = fold(graph)
    chosen = choices(folded, mesh, wishes)
    prices = Prices(mesh, cluster)
    again = compute_copies(folded) if wishes.zero == 3 and DATA in mesh.names else frozenset[ClassId]()
    program = Program(folded, chosen, prices, graph.microbatches, memory_bytes, again)
    try:
        solution = program.solve()
    except Infeasible:
        raise SpecError(_too_large(folded, chosen, program, memory_bytes or 0)) from None
    strategies = {node.id: _of(node, folded, solution) for node in graph}
    dropped = frozenset(node.id for node in graph if folded.of[node.id] in again)
    laid = rewrite(graph, mesh, strategies, Paths(mesh, prices.move_s), dropped)
    return Decision(laid, graph, wishes, mesh, folded, chosen, solution, program)


def _of(node: Node, folded: Folded, solution: Solution) -> Strategy:
    """The strategy of a node: that of its class, in its own dims where it is taken apart along them."""
    name = folded.of[node.id]
    strategy, stands = solution.strategies[name], folded.nodes[name]
    if stands is node or not any(option.apart for option in strategy):
        return strategy
    names = dict(zip(_dims(stands), _dims(node), strict=True))
    return tuple(replace(option, cut=tuple(names[d] for d in option.cut)) for option in strategy)


def _dims(node: Node) -> list[Dim]:
    return [d for use in node.uses for d in use.dims] + [d for out in node.outs for d in out.dims]


# ---- wishes that cannot be fulfilled


def check_pins(graph: Graph, mesh: Mesh, pins: Mapping[str, Axes]) -> None:
    """Raises SpecError where a pin names what is not there, or a dim that no operator can cut so."""
    dims = graph.dims()
    for name, axes in pins.items():
        for axis in axes:
            if axis not in mesh.names:
                hint = did_you_mean(axis, mesh.names) or f"the mesh is {mesh}"
                raise SpecError(
                    Diagnostic("E0941", f"the pin `{name} -> {axis}`: the mesh has no axis {axis}", hint=hint)
                )
        if name not in dims:
            hint = did_you_mean(name, dims)
            raise SpecError(Diagnostic("E0941", f"a pin of `{name}`: the graph has no dim {name}", hint=hint))
        if axes:
            _check_pin(graph, mesh, dims[name], axes)


def _check_pin(graph: Graph, mesh: Mesh, dim: Dim, axes: Axes) -> None:
    size = 1
    for axis in axes:
        size *= mesh.size(axis)
    have = dim.size or 0
    if have < size:
        hint = f"an axis of {math.gcd(have, size)} would do, or pin another dim"
        raise SpecError(
            Diagnostic("E0942", f"`{dim} -> {axes[0]}`: {dim} = {have} cannot be cut over {size} devices", hint=hint)
        )
    named = [n for n in graph if n.phase in (Phase.FORWARD, Phase.BACKWARD) and dim in _dims(n) and n.uses]
    if named and not any(dim in option.cut for node in named for option in options(node)):
        others = sorted({d.name for d, role in REGISTRY[named[0].op].roles(named[0]).items() if role is not Role.WHOLE})
        hint = f"{named[0].op} can be cut along {', '.join(others)}" if others else None
        raise SpecError(
            Diagnostic("E0942", f"`{dim} -> {axes[0]}`: `{named[0].id}` ({named[0].op}) needs {dim} whole", hint=hint)
        )


def _too_large(folded: Folded, chosen: Choices, program: Program, limit: int) -> Diagnostic:
    """What is the least that a device must hold, and of what the most of it is."""
    kinds = {"parameter": "parameters", "state": "optimizer states", "accumulate": "gradients"}
    least: dict[str, int] = {}
    for name, bytes_ in program.least_resident().items():
        kind = kinds.get(folded.nodes[name].op, "activations")
        least[kind] = least.get(kind, 0) + bytes_
    parts = ", ".join(f"{kind} {size / 1e9:.3g} GB" for kind, size in sorted(least.items(), key=lambda one: -one[1]))
    title = f"{program.mesh} with {limit / 1e9:.3g} GB a device cannot hold the step"
    return Diagnostic("E0943", title, hint=f"cut as far as it goes, a device still holds {parts}: take more devices")
