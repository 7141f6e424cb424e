"""Why a value lies as it does: what else it could be, and what that would cost with everything else laid out for it.

In: a decision and a node. Out: its alternatives, the chosen one first, each with the seconds that a whole step would
take more and the bytes of its results on a device. Every figure is the integer program's, solved anew with that one
choice made.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.types import Node
from .decide import Decision
from .solve import Infeasible
from .strategies import Strategy, operand_layouts, result_layouts

MOST = 12  # alternatives that are priced


@dataclass(frozen=True, slots=True)
class Alternative:
    """cut: what the axes do, in words. layout: of the results. more_s: of a step, over the chosen; None where nothing
    else fits it. bytes_: of its results on a device."""

    cut: str
    layout: str
    more_s: float | None
    bytes_: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """node: as it was before it was laid out. alternatives: the chosen one first, then by what they cost. unpriced: how
    many more there are."""

    node: Node
    alternatives: tuple[Alternative, ...]
    unpriced: int


def explain(decision: Decision, node_id: str) -> Explanation:
    """What a node could be instead, and what that costs."""
    name = decision.folded.of[node_id]
    node = decision.folded.nodes[name]
    chosen = decision.solution.strategies[name]
    others = [one for one in decision.chosen.strategies[name] if one != chosen]
    first = _alternative(decision, node, chosen, 0.0)
    found = [_alternative(decision, node, one, _more_s(decision, name, one)) for one in others[:MOST]]
    found.sort(key=lambda one: float("inf") if one.more_s is None else one.more_s)
    return Explanation(node, (first, *found), max(0, len(others) - MOST))


def _more_s(decision: Decision, name: str, strategy: Strategy) -> float | None:
    """What a step takes more with this choice made, and all others made for it."""
    program = decision.program
    try:
        return program.solve({name: strategy}).seconds - decision.solution.seconds
    except Infeasible:
        return None


def _alternative(decision: Decision, node: Node, strategy: Strategy, more_s: float | None) -> Alternative:
    mesh = decision.mesh
    layouts = result_layouts(node, strategy, mesh) or operand_layouts(node, strategy, mesh)
    typed = node.outs or tuple(use.type for use in node.uses)
    text = ", ".join(layout.text(out.dims) for layout, out in zip(layouts, typed, strict=True))
    held = sum(decision.program.prices.part_bytes(out, layout) for out, layout in zip(typed, layouts, strict=True))
    return Alternative(_words(strategy, mesh.names), text, more_s, held)


def _words(strategy: Strategy, axes: tuple[str, ...]) -> str:
    """`data cuts batch, tensor lets sums through`."""
    said: list[str] = []
    for axis, option in zip(axes, strategy, strict=True):
        if option.passes:
            said.append(f"{axis} lets sums through")
        elif option.cut:
            said.append(f"{axis} cuts {', '.join(str(dim) for dim in option.cut)}")
    return "; ".join(said) or "whole on every device"
