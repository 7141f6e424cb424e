"""When a stage of a pipeline copies between its device and its host what lies there from forward to backward.

In: a stage, and its graph with `offload` and `fetch` nodes. Out: the stage with these in its parts. What goes down does
so in the forward that made it, and is waited for by who brings it up. What a part's first block reads comes up in a
part of its own, one action of computing ahead of the part, so that its copy runs beside that one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..ir.graph import Graph
from .actions import COMPUTE, Kind
from .stages import Part, Stage

Order = Sequence[tuple[int, int]]


def goes_back_at_once(stage: Stage) -> frozenset[int]:
    """The forward parts whose backward of the same microbatch is, for every microbatch, what is computed next."""
    found = {number for number, part in enumerate(stage.parts) if part[0] is Kind.FORWARD}
    computing = [turn for turn in stage.order if stage.parts[turn[0]][0] in COMPUTE]
    for (part, microbatch), (after, other) in zip(computing, [*computing[1:], (-1, -1)], strict=True):
        kind, *place = stage.parts[after]
        back = kind in (Kind.BACKWARD, Kind.INPUT) and place == list(stage.parts[part][1:])
        if part in found and not (back and microbatch == other):
            found.discard(part)
    return frozenset(found)


def with_copies(stage: Stage, graph: Graph, beside: Mapping[str, str], early: Collection[str]) -> Stage:
    """`beside`: of each copy the node whose part it is in; of those in `early` the one whose part it comes before."""
    reading = sorted({stage.part[beside[name]] for name in early})
    parts, order = list(stage.parts), list(stage.order)
    fetch: dict[int, int] = {}
    for part in reading:
        fetch[part] = len(parts)
        parts.append(_fetch(stage.parts[part]))
        order = _ahead(order, parts, part, fetch[part])
    found = {name: stage.part[node] for name, node in beside.items()}
    found |= {name: fetch[found[name]] for name in early}
    return replace(
        stage, graph=graph, parts=tuple(parts), part={**stage.part, **found}, order=tuple(order), ranks=_ranks(order)
    )


def _fetch(part: Part) -> Part:
    kind, chunk, number = part
    return (Kind.FETCH_WEIGHT if kind is Kind.WEIGHT else Kind.FETCH, chunk, number)


def _ahead(order: Order, parts: Sequence[Part], part: int, fetch: int) -> list[tuple[int, int]]:
    """The order with a fetch before the action of computing that stands before each of this part: but behind the
    forwards of its microbatch."""
    found: list[tuple[int, int]] = []
    computing = 0  # where the latest action of computing stands
    for turn in order:
        if turn[0] == part:
            before, microbatch = found[computing] if found else (-1, -1)
            own = microbatch == turn[1] and parts[before][0] is Kind.FORWARD
            found.insert(len(found) if own else computing, (fetch, turn[1]))
        if parts[turn[0]][0] in COMPUTE:
            computing = len(found)
        found.append(turn)
    return found


def _ranks(order: Order) -> tuple[tuple[int, ...], ...]:
    """The orders in which microbatches go through the parts: of each, the place of every part."""
    places: dict[int, dict[int, int]] = {}
    for part, microbatch in order:
        own = places.setdefault(microbatch, {})
        own[part] = len(own)
    return tuple(dict.fromkeys(tuple(own[part] for part in range(len(own))) for own in places.values()))
