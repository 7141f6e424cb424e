"""Why a value lies as it does: what else it could be, and what that would cost with everything else laid out for it.

In: a decision and a node. Out: its alternatives, the chosen one first, each with the seconds that a whole step would
take more, the bytes that a device would hold more, and what left the choice no other way. Every figure is that of the
integer program solved anew with that one choice made, priced message by message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..ir.layout import Axes
from ..ir.levels import RELAYOUTS
from ..ir.types import Node, Phase
from .choices import Wishes, choices
from .decide import Decision, best_near
from .fold import ClassId
from .solve import Infeasible
from .strategies import Strategy, operand_layouts, result_layouts

MOST = 12  # alternatives that are priced
_ONCE = (Phase.PREPARE, Phase.UPDATE)


@dataclass(frozen=True, slots=True)
class Alternative:
    """cut: what the axes do, in words. layout: of the results. more_s: of a step, over the chosen; None where nothing
    else fits it. bytes_: of its results on a device. more_bytes: of all that a device keeps, over the chosen."""

    cut: str
    layout: str
    more_s: float | None
    bytes_: int
    more_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """node: as it was before it was laid out. alternatives: the chosen one first, then by what they cost. unpriced: how
    many more there are. forced: what decided it, in words."""

    node: Node
    alternatives: tuple[Alternative, ...]
    unpriced: int
    forced: str


def explain(decision: Decision, node_id: str) -> Explanation:
    """What a node could be instead, and what that costs."""
    name = decision.folded.of[node_id]
    node = decision.folded.nodes[name]
    chosen = decision.solution.strategies[name]
    others = [one for one in decision.chosen.strategies[name] if one != chosen]
    first = _alternative(decision, node, chosen, 0.0, 0)
    found = [_alternative(decision, node, one, *_more(decision, name, one)) for one in others[:MOST]]
    found.sort(key=lambda one: float("inf") if one.more_s is None else one.more_s)
    forced = _forced(decision, name, found)
    return Explanation(decision.before[node_id], (first, *found), max(0, len(others) - MOST), forced)


def _more(decision: Decision, name: ClassId, strategy: Strategy) -> tuple[float | None, int]:
    """What a step takes more, and a device holds more, with this choice made and all others made for it."""
    program = decision.program
    try:
        found = best_near(decision.exact, program.solve({name: strategy}), (name,))
    except Infeasible:
        return None, 0
    more = program.resident.bytes(found.strategies) - program.resident.bytes(decision.solution.strategies)
    return found.seconds - decision.solution.seconds, more


def _forced(decision: Decision, name: ClassId, others: list[Alternative]) -> str:
    """What decided: the operator, a wish, the memory, or the time."""
    left_out = _left_out(decision, name)
    if not others:
        return f"{left_out} leaves nothing else" if left_out else "the operator can be computed in no other way here"
    cheaper = [one for one in others if one.more_s is not None]
    if not cheaper:
        return f"every other way takes more memory than {decision.program.memory_bytes or 0:,} bytes"
    said = "it takes the least time" if cheaper[0].more_s else "others take as long"
    return f"{said} of {len(others) + 1} ways" + (f"; {left_out} leaves out others" if left_out else "")


def _left_out(decision: Decision, name: ClassId) -> str:
    """The wishes without which a node could lie otherwise too."""
    now = len(decision.chosen.strategies[name])
    wishes = decision.wishes
    pins = (
        (f"the pin {dim} -> {', '.join(axes) or 'none'}", _without(wishes.pins, dim))
        for dim, axes in wishes.pins.items()
    )
    asked = [(said, replace(wishes, pins=rest)) for said, rest in pins]
    asked += [(f"ZeRO stage {wishes.zero}", replace(wishes, zero=None))] if wishes.zero is not None else []
    found = [said for said, others in asked if _ways(decision, name, others) > now]
    if not found and asked and _ways(decision, name, Wishes(leaves=wishes.leaves)) > now:
        found = [said for said, _ in asked]
    return " and ".join(found)


def _ways(decision: Decision, name: ClassId, wishes: Wishes) -> int:
    return len(choices(decision.folded, decision.mesh, wishes).strategies[name])


def _without(pins: Mapping[str, Axes], dim: str) -> dict[str, Axes]:
    return {name: axes for name, axes in pins.items() if name != dim}


# ---- all choices


@dataclass(frozen=True, slots=True)
class Chosen:
    """A class of nodes: its first, how many are alike, how they lie, and what of a step's seconds goes to computing
    them and to messages about what they make."""

    node: Node
    count: int
    layout: str
    cut: str
    compute_s: float
    messages_s: float
    messages: tuple[str, ...]


def all_chosen(decision: Decision) -> list[Chosen]:
    """Every choice, the most expensive first."""
    messages: dict[ClassId, dict[str, float]] = {}
    for name, text, seconds in _messages(decision):
        of = messages.setdefault(name, {})
        of[text] = of.get(text, 0.0) + seconds
    found: list[Chosen] = []
    for name, node in decision.folded.nodes.items():
        if not node.outs:
            continue
        strategy, count = decision.solution.strategies[name], decision.folded.counts[name]
        seconds = count * _times(decision, node) * decision.program.prices.node_s(node, strategy)
        lies = _alternative(decision, node, strategy, 0.0, 0)
        said = messages.get(name, {})
        found.append(Chosen(node, count, lies.layout, lies.cut, seconds, sum(said.values()), tuple(said)))
    return sorted(found, key=lambda one: -(one.compute_s + one.messages_s))


def _messages(decision: Decision) -> Iterator[tuple[ClassId, str, float]]:
    """Each change of layout: the class whose value it moves, what it is, its seconds in a step."""
    graph, prices = decision.graph, decision.program.prices
    for node in graph:
        if node.op not in RELAYOUTS:
            continue
        source, use = node, node.uses[0]
        while source.op in RELAYOUTS:
            source = graph[source.uses[0].node]
        layout = node.layouts[0] if node.op == "all_gather" else graph[use.node].layouts[use.output]
        axis, out = str(node.attrs["axis"]), node.outs[0]
        seconds = prices.collective_s(node.op, axis, prices.part_bytes(out, layout)) * _times(decision, node)
        name = decision.folded.of.get(source.id) or decision.folded.of.get(source.id.rpartition(".")[0])
        if name is not None:
            yield name, f"{node.op} over {axis}", seconds


def _times(decision: Decision, node: Node) -> int:
    return 1 if node.phase in _ONCE else decision.before.microbatches


def _alternative(
    decision: Decision, node: Node, strategy: Strategy, more_s: float | None, more_bytes: int
) -> Alternative:
    mesh = decision.mesh
    layouts = result_layouts(node, strategy, mesh) or operand_layouts(node, strategy, mesh)
    typed = node.outs or tuple(use.type for use in node.uses)
    text = ", ".join(layout.text(out.dims) for layout, out in zip(layouts, typed, strict=True))
    held = sum(decision.program.prices.part_bytes(out, layout) for out, layout in zip(typed, layouts, strict=True))
    return Alternative(_words(strategy, mesh.names), text, more_s, held, more_bytes)


def _words(strategy: Strategy, axes: tuple[str, ...]) -> str:
    """`data cuts batch, tensor lets sums through`."""
    said: list[str] = []
    for axis, option in zip(axes, strategy, strict=True):
        if option.passes:
            said.append(f"{axis} lets sums through")
        elif option.cut:
            said.append(f"{axis} cuts {', '.join(str(dim) for dim in option.cut)}")
    return "; ".join(said) or "whole on every device"
