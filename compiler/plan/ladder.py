"""What the layers of a unit may compute again within a budget: a ladder, from nothing to all that saves memory.

In: one device's graph of a thin step that keeps everything, and what its nodes take; the whole model's parts. Out: a
`Ladder`. A rung more takes one layer to the next point of its block's frontier (`recompute/frontier.py`), what costs
fewest seconds a byte first: the steps of `recompute/chain.py` from its end, as a budget is compiled. What stands in no
layer is left out: its backward comes first, so nothing that it keeps is in the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..ir.graph import Graph
from ..ir.types import Node
from ..recompute.block import blocks_of
from ..recompute.frontier import frontier
from ..schedule.blocks import Chain
from .parts import Part, Parts


@dataclass(frozen=True, slots=True)
class Point:
    """What a layer takes beside one that makes nothing again: seconds of a microbatch's backward, bytes that it keeps
    less, bytes more while its backward runs. cost: seconds for each byte that the point before it does not save."""

    seconds: float
    saved: int
    momentary: int
    cost: float

    def times(self, rows: float) -> Point:
        """Of so many times the rows: all of it is linear in them."""
        return Point(self.seconds * rows, round(self.saved * rows), round(self.momentary * rows), self.cost)


@dataclass(frozen=True, slots=True)
class Slope:
    """One distinct block. homes: the thin parts that are such layers. points: what costs least a byte first."""

    homes: frozenset[str]
    points: tuple[Point, ...]

    def times(self, rows: float) -> Slope:
        """Of so many times the rows."""
        return replace(self, points=tuple(point.times(rows) for point in self.points))


class Move(NamedTuple):
    """One layer of the whole model goes to a point."""

    part: int
    point: Point


def slopes(local: Graph, seconds: Callable[[Node], float], whole: Callable[[Sequence[str]], list[str]]) -> list[Slope]:
    """Of the layers of a step. whole: from the thin parts' names, of each part of the model the one it stands for."""
    chain = Chain(local)
    often, found = Counter(whole(chain.names)), list[Slope]()
    for block in blocks_of(local, seconds):
        if local[block.nodes[0]].layer is None:
            continue
        homes = frozenset(_home(chain, names.values()) for names in block.alike)
        copies = sum(often[name] for name in homes)
        fastest, *others = frontier(replace(block, flights=max(1, round(copies / len(block.alike)))))[::-1]
        points = [
            Point(
                one.seconds,
                fastest.kept_bytes - one.kept_bytes,
                (one.working_bytes - one.kept_bytes) - (fastest.working_bytes - fastest.kept_bytes),
                (one.seconds - before.seconds) * copies / max(1, before.bytes - one.bytes),
            )
            for before, one in pairwise((fastest, *others))
        ]
        found.append(Slope(homes, tuple(points)))
    return found


def _home(chain: Chain, nodes: Iterable[str]) -> str:
    """The part that most of some nodes are in."""
    return chain.names[Counter(chain.block[name] for name in nodes).most_common(1)[0][0]]


@dataclass(frozen=True)
class Ladder:
    """parts: of the whole model, nothing made again. moves: one for each rung, from there on."""

    parts: Parts
    moves: tuple[Move, ...]
    _made: dict[tuple[int, Point | None], Part] = field(default_factory=dict[tuple[int, "Point | None"], Part])

    def __len__(self) -> int:
        return len(self.moves) + 1

    def at(self, rung: int) -> Parts:
        """The parts on a rung; alike layers are one object on all of them."""
        points = {move.part: move.point for move in self.moves[:rung]}
        return replace(self.parts, parts=tuple(self._at(p, points.get(at)) for at, p in enumerate(self.parts.parts)))

    def _at(self, part: Part, point: Point | None) -> Part:
        key = (id(part), point)
        if key not in self._made:
            self._made[key] = part if point is None else _with(part, point)
        return self._made[key]

    @cached_property
    def saved(self) -> tuple[int, ...]:
        """On each rung the most bytes that all layers together keep less, on it or before."""
        now, course = dict[int, int](), list[int]()
        for part, point in self.moves:
            course.append(point.saved - now.get(part, 0))
            now[part] = point.saved
        return tuple(accumulate(accumulate(course, initial=0), max))


def _with(part: Part, point: Point) -> Part:
    """A part at a point of its frontier."""
    return replace(
        part,
        input_s=part.input_s + point.seconds,
        kept=max(0, part.kept - point.saved),
        momentary=max(0, part.momentary + point.momentary),
        first=max(0, part.first + point.momentary),
    )


def ladder(parts: Parts, names: Sequence[str], found: Sequence[Slope]) -> Ladder:
    """names: of the whole model's parts, each that of the thin one that stands for it. The first layers, whose backward
    is last, compute again first."""
    moves = [
        Move(part, point)
        for slope in found
        for point in slope.points
        for part, name in enumerate(names)
        if name in slope.homes
    ]
    return Ladder(parts, tuple(sorted(moves, key=lambda move: move.point.cost)))
