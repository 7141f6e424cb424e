"""Factors of a mesh axis: where a dim is shorter than the axis that is to cut it, the axis is written as a product.

In: a graph, a mesh, what is wished. Out: the mesh with such axes factored, and the wishes in its names. Eight key-value
heads over sixteen devices are the case: queries are cut by both factors of 8 × 2, keys and values by the first, and
over the second they are whole, their gradients terms. Which axis is factored how follows from sizes alone (the greatest
common divisor with a short dim that splits off a long one); what each factor does is the solver's choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ..ir.graph import Graph
from ..ir.layout import FACTOR, Axes, Mesh
from ..ir.types import Dim
from ..ops.structure import axis_pair
from .choices import Wishes
from .strategies import parts_of


def factored(graph: Graph, mesh: Mesh, wishes: Wishes) -> tuple[Mesh, Wishes]:
    """The mesh and the wishes in factors; as they are where no axis needs any, or some axis has them already."""
    if any(FACTOR in name for name in mesh.names):
        return mesh, wishes
    splits = set(_splits(graph))
    axes = [one for name, size in mesh.axes for one in _named(name, _factors(splits, name, size, wishes))]
    if len(axes) == len(mesh.axes):
        return mesh, wishes
    finer = Mesh(tuple(axes))
    dims = graph.dims()
    pins = {name: _pinned(dims.get(name), cut, finer) for name, cut in wishes.pins.items()}
    return finer, replace(wishes, pins=pins)


def _splits(graph: Graph) -> Iterator[tuple[Dim, Dim]]:
    """The long dims that are split or merged, each with the slowest of its parts."""
    for node in graph:
        pair = axis_pair(node)
        if pair is not None:
            slow = next((part for part in parts_of(node) if part.size != 1), None)
            if slow is not None:
                yield pair[0], slow


def _factors(splits: set[tuple[Dim, Dim]], axis: str, size: int, wishes: Wishes) -> list[int]:
    """Of 16, for a short dim of 8, [8, 2]."""
    found = [size]
    pinned = {name for name, axes in wishes.pins.items() if axis in axes}
    for long, short in sorted(splits, key=lambda pair: (pair[1].size or 0, pair[0].name)):
        common = math.gcd(short.size or 0, found[-1])
        meant = not pinned or pinned & {long.name, short.name}
        if meant and (short.size or 0) < size <= (long.size or 0) and 1 < common < found[-1]:
            found[-1:] = [common, found[-1] // common]
    return found


def _named(axis: str, factors: list[int]) -> Iterator[tuple[str, int]]:
    for number, size in enumerate(factors, 1):
        yield (axis if len(factors) == 1 else f"{axis}{FACTOR}{number}"), size


def _pinned(dim: Dim | None, axes: Axes, mesh: Mesh) -> Axes:
    """The factors of a pin's axes that the dim is long enough for; all of them, if it is so for none."""
    found: list[str] = []
    known = dict(mesh.whole_axes)
    every = [factor for axis in axes for factor in known.get(axis, (axis,))]
    parts = 1
    for factor in every:
        parts *= mesh.size(factor) if factor in mesh.names else 1
        if dim is None or parts <= (dim.size or 0):
            found.append(factor)
    return tuple(found or every)
