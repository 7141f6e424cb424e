"""Kernels of sparse mixtures: dispatch finds what is picked, expert by expert; grouped products loop over experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Dim, Dims, Node
from ..emit import Emitter, Rule, Value, count, shape, size

aten = torch.ops.aten


def dispatch(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The places of the picks in the order (row, expert, token): their number is known, so nothing waits for it."""
    use, (token, expert) = node.uses[0], node.outs
    dim, experts = cast(Dim, node.attrs["dim"]), cast(Dim, node.attrs["experts"])
    rest = tuple(d for d in use.dims if d not in (dim, experts))
    pick = e.flatten(e.tensor(values[0], use.dtype), use.dims, [rest, (experts,), (dim,)])
    places = e.call(aten.nonzero_static.default, pick, size=count(token.dims), fill_value=0)
    return [
        e.reshape(e.contiguous(e.call(aten.select.int, places, 1, axis)), shape(out.dims))
        for axis, out in ((2, token), (1, expert))
    ]


@dataclass(frozen=True, slots=True)
class Groups:
    """How the dims of a grouped product fall; `rows` are the ids'."""

    shared: Dims  # in both factors and the result
    rows: Dims
    left: Dims  # what a row holds several of
    inner: Dims  # K
    outer: Dims  # N

    def row(self, last: Dims) -> list[Dims]:
        return [self.shared, self.rows, self.left, last]

    def ids(self, e: Emitter, node: Node, value: Value) -> fx.Node:
        use = node.uses[2]
        lists, each = use.dims[:-1], use.dims[-1:]
        return e.reshape(e.tensor(value, use.dtype), [count(lists), count(each)])


def grouped_dot(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Each row times the matrix of its expert."""
    x, w, ids = node.uses
    dim, over = cast(Dim, node.attrs["dim"]), cast(Dims, node.attrs["over"])
    shared = tuple(d for d in w.dims if d in x.dims and d not in over)
    left = tuple(d for d in x.dims if d not in (*shared, *ids.dims, *over))
    outer = tuple(d for d in w.dims if d not in (dim, *over, *shared))
    groups = Groups(shared, ids.dims, left, over, outer)
    rows = e.flatten(e.tensor(values[0], x.dtype), x.dims, groups.row(over))
    matrices = e.flatten(e.tensor(values[1], w.dtype), w.dims, [shared, (dim,), over, outer])
    found = e.call(kernels.grouped_dot, rows, matrices, groups.ids(e, node, values[2]))
    order = (*shared, *ids.dims, *left, *outer)
    return [e.permute(e.reshape(found, shape(order)), order, node.outs[0].dims)]


def grouped_outer(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The sum of the outer products of each expert's rows."""
    a, g, ids = node.uses
    dim, dims = cast(Dim, node.attrs["dim"]), cast(Dims, node.attrs["dims"])
    both = tuple(d for d in a.dims if d in g.dims and d not in ids.dims)
    shared = tuple(d for d in both if d in dims)
    left = tuple(d for d in both if d not in dims)
    inner = tuple(d for d in dims if d in a.dims and d not in shared)
    outer = tuple(d for d in dims if d in g.dims and d not in shared)
    groups = Groups(shared, ids.dims, left, inner, outer)
    rows = e.flatten(e.tensor(values[0], a.dtype), a.dims, groups.row(inner))
    cotangents = e.flatten(e.tensor(values[1], g.dtype), g.dims, groups.row(outer))
    found = e.call(kernels.grouped_outer, rows, cotangents, groups.ids(e, node, values[2]), size(dim))
    order = (*shared, dim, *inner, *outer)
    return [e.permute(e.reshape(found, shape(order)), order, dims)]


RULES: dict[str, Rule] = {"dispatch": dispatch, "grouped_dot": grouped_dot, "grouped_outer": grouped_outer}
