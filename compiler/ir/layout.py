"""Layouts: which part of a value each device of a mesh holds, in the terms of PyTorch's DTensor.

A mesh names its axes, the first outermost; a device is a coordinate, its rank the row-major index. A layout says of
each dim of a value which axes cut it (Shard), and over which axes the devices hold terms that are still to be joined
(Partial); over an axis that it does not name all devices hold the same (Replicate).

The chunk rule (torch.chunk's): a dim of n over an axis of k is cut every ceil(n / k), so the last parts may be shorter
or empty. A dim over several axes is cut by them one after the other, in the order of the mesh.

An axis may be written as factors, `tensor` of 16 as `tensor.1` of 8 and `tensor.2` of 2, so that a dim of 8 is cut by
one of them (the sub-axes of Shardy and of XLA's iota tile assignments). The axis' own name still means all its devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product

from .types import Dim, Dims

FACTOR = "."  # between an axis and the number of its factor; no name that a user gives has one
PIPE = "pipe"  # the axis whose devices hold the stages of a pipeline: it cuts graphs, not values

Coordinate = tuple[int, ...]
Axes = tuple[str, ...]


class Reduction(Enum):
    """How the terms of a partial value are joined."""

    SUM = "sum"
    MAX = "max"
    LSE = "lse"  # log(sum(exp(terms)))

    __hash__ = object.__hash__  # of an Enum it is computed


@dataclass(frozen=True, slots=True)
class Mesh:
    """The axes' names and sizes, the first outermost. names: of the axes, the outermost first."""

    axes: tuple[tuple[str, int], ...]
    names: Axes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(name for name, _ in self.axes))  # asked for more than all else
        assert len(set(self.names)) == len(self.axes), "an axis is named once"
        assert all(size > 0 for _, size in self.axes), "an axis has devices"

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return math.prod(size for _, size in self.axes)

    @property
    def whole_axes(self) -> tuple[tuple[str, Axes], ...]:
        """The axes that a user named, each with its factors: itself where it has none."""
        found: dict[str, Axes] = {}
        for name in self.names:
            base = name.partition(FACTOR)[0]
            found[base] = (*found.get(base, ()), name)
        return tuple(found.items())

    def without(self, axis: str) -> Mesh:
        """The mesh across one axis."""
        return Mesh(tuple(one for one in self.axes if one[0] != axis))

    def across(self, axis: str, whole: Mesh) -> Mesh:
        """This mesh with an axis of `whole`, where that has it; axes here may be in factors."""
        before = whole.names[: whole.names.index(axis)]
        at = sum(name.partition(FACTOR)[0] in before for name in self.names)
        return Mesh((*self.axes[:at], (axis, whole.size(axis)), *self.axes[at:]))

    def members(self, axis: str) -> Axes:
        """The factors of an axis, the outermost first; itself where it has none."""
        return (axis,) if axis in self.names else dict(self.whole_axes)[axis]

    def size(self, axis: str) -> int:
        """How many devices lie along an axis."""
        if axis in self.names:
            return self.axes[self.names.index(axis)][1]
        return math.prod(self.size(one) for one in self.members(axis))

    def order(self, axis: str) -> int:
        """The axis' place among the axes; of one with factors, the place of its first."""
        return self.names.index(axis if axis in self.names else self.members(axis)[0])

    def coordinates(self) -> Iterator[Coordinate]:
        """Every device, in the order of ranks."""
        return product(*(range(size) for _, size in self.axes))

    def rank(self, coordinate: Coordinate) -> int:
        """The row-major index of a device."""
        found = 0
        for (_, size), place in zip(self.axes, coordinate, strict=True):
            found = found * size + place
        return found

    def __str__(self) -> str:
        return " × ".join(self._words(name, factors) for name, factors in self.whole_axes) or "one device"

    def _words(self, name: str, factors: Axes) -> str:
        inside = f" ({' × '.join(str(self.size(one)) for one in factors)})" if len(factors) > 1 else ""
        return f"{name} {self.size(name)}{inside}"


def chunk(extent: int, parts: int, index: int) -> tuple[int, int]:
    """Where part `index` of an extent begins and ends."""
    each = -(-extent // parts)
    return min(index * each, extent), min((index + 1) * each, extent)


def part(extent: int, axes: Axes, mesh: Mesh, coordinate: Coordinate) -> tuple[int, int]:
    """Where a device's part of a dim begins and ends, the dim cut by axes one after the other."""
    low, high = 0, extent
    for axis in axes:
        begin, end = chunk(high - low, mesh.size(axis), coordinate[mesh.order(axis)])
        low, high = low + begin, low + end
    return low, high


def largest_part(extent: int, axes: Axes, mesh: Mesh) -> int:
    """The most that any device holds: the first one's."""
    for axis in axes:
        extent = -(-extent // mesh.size(axis))
    return extent


def has_empty_part(extent: int, axes: Axes, mesh: Mesh) -> bool:
    """Whether some device holds nothing."""
    sizes = {extent}
    for axis in axes:
        count = mesh.size(axis)
        parts = (chunk(size, count, index) for size in sizes for index in range(count))
        sizes = {high - low for low, high in parts}
    return 0 in sizes


def local_dim(dim: Dim, axes: Axes, mesh: Mesh, coordinate: Coordinate) -> Dim:
    """The dim that a device has of a dim: `T/data/tensor`, or the dim itself where nothing cuts it."""
    if not axes:
        return dim
    low, high = part(cut_size(dim), axes, mesh, coordinate)
    runs = None if dim.runs is None else replace(dim.runs, part=True)
    return Dim("/".join((dim.name, *axes)), most(dim, high - low), runs)


def cut_size(dim: Dim) -> int:
    """The size that is cut: the dim's own, or of what is sorted, that of what it is sorted by."""
    return _size(dim if dim.runs is None else dim.runs.by)


def most(dim: Dim, held: int) -> int:
    """The most members that come with so many of `cut_size`: of k picks at most m fall among m experts."""
    return held if dim.runs is None else _size(dim) // dim.runs.each * min(dim.runs.each, held)


def largest_size(dim: Dim, axes: Axes, mesh: Mesh) -> int:
    """The most that any device has room for."""
    return most(dim, largest_part(cut_size(dim), axes, mesh)) if axes else _size(dim)


def usual_size(dim: Dim, axes: Axes, mesh: Mesh) -> int:
    """The most that any device has, where what is sorted is picked evenly."""
    return largest_part(_size(dim), axes, mesh)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a value lies on the mesh.

    shards   for each of its dims, the axes that cut it, in the order of the mesh
    partial  the axes over which devices hold terms, in the order of the mesh, and how the terms are joined
    """

    shards: tuple[Axes, ...]
    partial: tuple[tuple[str, Reduction], ...] = ()

    @property
    def axes(self) -> frozenset[str]:
        """Every axis over which devices hold different things."""
        return frozenset(axis for axes in self.shards for axis in axes) | {axis for axis, _ in self.partial}

    @property
    def is_replicated(self) -> bool:
        """Whether every device holds the whole value."""
        return not self.partial and not any(self.shards)

    def reduction(self, axis: str) -> Reduction | None:
        """What the value owes over an axis."""
        return dict(self.partial).get(axis)

    def position(self, axis: str) -> int | None:
        """Which dim an axis cuts."""
        return next((at for at, axes in enumerate(self.shards) if axis in axes), None)

    def with_axis(self, axis: str, to: int | Reduction | None, mesh: Mesh) -> Layout:
        """The layout with one axis (all its factors) changed: cutting a dim, owing a reduction, or replicated."""
        members = mesh.members(axis)
        kept = [tuple(a for a in axes if a not in members) for axes in self.shards]
        partial = {a: how for a, how in self.partial if a not in members}
        if isinstance(to, int):
            kept[to] = tuple(sorted((*kept[to], *members), key=mesh.order))
        elif to is not None:
            partial |= dict.fromkeys(members, to)
        return Layout(tuple(kept), tuple(sorted(partial.items(), key=lambda item: mesh.order(item[0]))))

    def on(self, axis: str) -> int | Reduction | None:
        """What one axis does: the dim that it cuts, the reduction that is owed, or None for replicated."""
        at = self.position(axis)
        return at if at is not None else self.reduction(axis)

    def local_dims(self, dims: Dims, mesh: Mesh, coordinate: Coordinate) -> Dims:
        """A device's own dims of a value."""
        return tuple(local_dim(d, axes, mesh, coordinate) for d, axes in zip(dims, self.shards, strict=True))

    def slices(self, dims: Dims, mesh: Mesh, coordinate: Coordinate) -> tuple[slice, ...]:
        """Where a device's part lies in the whole value."""
        assert not any(d.runs and axes for d, axes in zip(dims, self.shards, strict=True)), (
            "where runs begin, data says"
        )
        extents = [part(_size(d), axes, mesh, coordinate) for d, axes in zip(dims, self.shards, strict=True)]
        return tuple(slice(low, high) for low, high in extents)

    def elements(self, dims: Dims, mesh: Mesh) -> int:
        """The most elements that a device has room for of a value with these dims."""
        return math.prod(largest_size(d, axes, mesh) for d, axes in zip(dims, self.shards, strict=True))

    def usual_elements(self, dims: Dims, mesh: Mesh) -> int:
        """The most elements that a device holds and sends, where what is sorted is picked evenly."""
        return math.prod(usual_size(d, axes, mesh) for d, axes in zip(dims, self.shards, strict=True))

    def text(self, dims: Dims) -> str:
        """`[batch:data T D:tensor]+sum(context)`, for people."""
        cut = (f"{d}:{'.'.join(axes)}" if axes else str(d) for d, axes in zip(dims, self.shards, strict=True))
        return f"[{' '.join(cut)}]" + "".join(f"+{how.value}({axis})" for axis, how in self.partial)


def replicated(dims: Dims) -> Layout:
    """The whole value on every device."""
    return Layout(((),) * len(dims))


def laid(dims: Dims, cut: Mapping[Dim, Axes], partial: tuple[tuple[str, Reduction], ...] = ()) -> Layout:
    """The layout of dims of which some are cut."""
    return Layout(tuple(cut.get(d, ()) for d in dims), partial)


def _size(dim: Dim) -> int:
    assert dim.size is not None, f"{dim} has a size before it is laid out"
    return dim.size
