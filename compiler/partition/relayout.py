"""From one layout to another: the cheapest sequence of collectives, each along one axis.

In: the dims of a value, the layout that it has and the one that is wanted, and what a message costs. Out: the moves.
A shortest path (Dijkstra 1959) over the layouts: there are few of them, and the order matters (what is cut first
makes the messages that follow shorter; only the last axis that cuts a dim can be gathered).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..ir.layout import Axes, Layout, Mesh, Reduction
from ..ir.types import Dim, Dims


@dataclass(frozen=True, slots=True)
class Move:
    """One collective: `op` along `axis`. `dim` is the position that is gathered, scattered, cut or joined; `to` the
    position that an all-to-all cuts; `reduction` how terms are joined."""

    op: str
    axis: str
    before: Layout
    after: Layout
    dim: int | None = None
    to: int | None = None
    reduction: Reduction = Reduction.SUM


# The seconds of a move of a value with these dims and so many bytes an element.
Price = Callable[[Move, Dims, int], float]


def moves(dims: Dims, layout: Layout, mesh: Mesh) -> Iterator[Move]:
    """Every collective that a value so laid out can go through, along an axis or along all factors of one at once."""
    for whole, factors in mesh.whole_axes:
        for axis in factors:
            ends = [at for at, axes in enumerate(layout.shards) if all(mesh.order(a) < mesh.order(axis) for a in axes)]
            bound = _bound(dims, layout, axis)
            free = [at for at in ends if at not in bound and (dims[at].runs is None or not layout.shards[at])]
            if layout.on(axis) not in bound:
                yield from _along(axis, layout.on(axis), free, dims, layout, mesh)
        ways = {layout.on(axis) for axis in factors}
        if len(factors) > 1 and len(ways) == 1:
            (on,) = ways
            bound = _bound(dims, layout, whole)
            even = [
                at for at in range(len(dims)) if at not in bound and _even(dims[at], layout.shards[at], whole, mesh)
            ]
            if not isinstance(on, int) or on in even:
                yield from _along(whole, on, even, dims, layout, mesh)


def _bound(dims: Dims, layout: Layout, axis: str) -> set[int]:
    """The lists of rows that another axis cuts: how many rows a device has there hangs on which lists it has."""
    rows = (d.runs for d, axes in zip(dims, layout.shards, strict=True) if d.runs is not None and set(axes) - {axis})
    names = {name for runs in rows for name in runs.lists}
    return {at for at, dim in enumerate(dims) if dim.name in names}


def _even(dim: Dim, cut: Axes, whole: str, mesh: Mesh) -> bool:
    """Whether a dim, cut by some axes, has the same parts by all of an axis at once as by its factors in turn."""
    others = [axis for axis in cut if axis not in mesh.members(whole)]
    last = all(mesh.order(axis) < mesh.order(whole) for axis in others)
    return last and dim.runs is None and (dim.size or 0) % math.prod(map(mesh.size, (*others, whole))) == 0


def _along(
    axis: str, on: int | Reduction | None, ends: list[int], dims: Dims, layout: Layout, mesh: Mesh
) -> Iterator[Move]:
    rows = [at for at in ends if dims[at].runs is not None]
    if isinstance(on, Reduction):
        yield Move("all_reduce", axis, layout, layout.with_axis(axis, None, mesh), reduction=on)
        for at in (one for one in ends if one not in rows) if on is Reduction.SUM else ():
            yield Move("reduce_scatter", axis, layout, layout.with_axis(axis, at, mesh), dim=at)
    elif on is None:
        for at in ends:
            yield Move("shard", axis, layout, layout.with_axis(axis, at, mesh), dim=at)
        if all(how is Reduction.SUM for _, how in layout.partial) and axis in mesh.names:
            yield Move("partial", axis, layout, layout.with_axis(axis, Reduction.SUM, mesh))
    elif layout.shards[on][-1] == mesh.members(axis)[-1]:
        if dims[on].runs is None:
            yield Move("all_gather", axis, layout, layout.with_axis(axis, None, mesh), dim=on)
        elif all(how is Reduction.SUM for _, how in layout.partial):
            yield Move("spread", axis, layout, layout.with_axis(axis, Reduction.SUM, mesh), dim=on)
        for at in ends:
            if at != on and all(_sent_as_lists(dims, row, other) for row, other in ((at, on), (on, at))):
                yield Move("all_to_all", axis, layout, layout.with_axis(axis, at, mesh), dim=on, to=at)


def _sent_as_lists(dims: Dims, at: int, other: int) -> bool:
    """Whether rows, if it is such, can be sent to whom they belong while another dim is cut: if that counts lists."""
    runs = dims[at].runs
    return runs is None or (other < at and tuple(d.name for d in dims[:at]) == runs.lists)


@dataclass
class Paths:
    """The cheapest ways on one mesh, remembered."""

    mesh: Mesh
    price: Price
    edges: dict[tuple[Dims, int, Layout], list[tuple[Move, float]]] = field(
        default_factory=dict[tuple[Dims, int, Layout], list[tuple[Move, float]]]
    )
    known: dict[tuple[Dims, int, Layout, Layout], tuple[float, tuple[Move, ...]]] = field(
        default_factory=dict[tuple[Dims, int, Layout, Layout], tuple[float, tuple[Move, ...]]]
    )

    def find(self, dims: Dims, itemsize: int, source: Layout, target: Layout) -> tuple[float, tuple[Move, ...]]:
        """The seconds and the moves from one layout to another."""
        if source == target:
            return 0.0, ()
        key = (dims, itemsize, source, target)
        if key not in self.known:
            self.known[key] = self._search(dims, itemsize, source, target)
        return self.known[key]

    def _from(self, dims: Dims, itemsize: int, layout: Layout) -> list[tuple[Move, float]]:
        """The moves from a layout, with their seconds."""
        key = (dims, itemsize, layout)
        if key not in self.edges:
            every = moves(dims, layout, self.mesh)
            self.edges[key] = [(move, self.price(move, dims, itemsize)) for move in every]
        return self.edges[key]

    def _search(self, dims: Dims, itemsize: int, source: Layout, target: Layout) -> tuple[float, tuple[Move, ...]]:
        best: dict[Layout, float] = {source: 0.0}
        came: dict[Layout, Move] = {}
        queue: list[tuple[float, int, Layout]] = [(0.0, 0, source)]
        pushed = 0
        while queue:
            seconds, _, layout = heapq.heappop(queue)
            if layout == target:
                return seconds, tuple(_back(came, source, target))
            if seconds > best[layout]:
                continue
            for move, price in self._from(dims, itemsize, layout):
                found = seconds + price
                if found < best.get(move.after, float("inf")):
                    best[move.after], came[move.after] = found, move
                    pushed += 1
                    heapq.heappush(queue, (found, pushed, move.after))
        raise AssertionError(f"no way from {source.text(dims)} to {target.text(dims)}")


def _back(came: dict[Layout, Move], source: Layout, target: Layout) -> Iterator[Move]:
    found: list[Move] = []
    while target != source:
        found.append(came[target])
        target = came[target].before
    yield from reversed(found)
