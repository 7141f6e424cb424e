"""Kernels of look-ups: gather is embedding or aten.gather, scatter_add its transpose; index counts a dim; top sorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ...ir.types import Dim, Node
from ..emit import Emitter, Rule, Value, count, shape, size
from .contraction import scatter_into

aten = torch.ops.aten


def index(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """start, start + 1, … along a dim."""
    dim = cast(Dim, node.attrs["dim"])
    counted = e.call(aten.arange.default, size(dim), dtype=torch.int64, device=e.device)
    if not isinstance(values[0], fx.Node) and values[0] == 0:
        return [counted]
    return [e.call(aten.add_.Tensor, counted, values[0])]


def gather(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """table[dim = ids]: a row look-up where table and ids share no dim, else aten.gather."""
    dim = cast(Dim, node.attrs["dim"])
    table, ids = node.uses
    x, at = e.tensor(values[0], table.dtype), e.tensor(values[1], ids.dtype)
    shared = tuple(d for d in table.dims if d in ids.dims)
    rest = tuple(d for d in table.dims if d != dim and d not in shared)
    free = tuple(d for d in ids.dims if d not in shared)
    if not shared:
        rows = e.flatten(x, table.dims, [(dim,), rest])
        found = e.call(aten.embedding.default, rows, at) if rest else e.call(aten.take.default, x, at)
        return [e.reshape(found, shape(node.outs[0].dims))]
    rows = e.flatten(x, table.dims, [shared, (dim,), rest])
    places = e.reshape(e.permute(at, ids.dims, (*shared, *free)), [count(shared), count(free), 1])
    places = e.expand(places, [count(shared), count(free), count(rest)])
    found = e.reshape(e.call(aten.gather.default, rows, 1, places), shape((*shared, *free, *rest)))
    return [e.permute(found, (*shared, *free, *rest), node.outs[0].dims)]


def scatter_add(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Zeros, with values added at ids along a dim."""
    out = node.outs[0]
    zeros = e.full(out.dims, 0, out.dtype)
    return [scatter_into(e, node, values, (0, 1), cast(Dim, node.attrs["dim"]), zeros, out.dims)]


def top(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Truth at the places of the k largest; a stable sort puts the first of equal ones first."""
    use = node.uses[0]
    axis, k = use.dims.index(cast(Dim, node.attrs["dim"])), cast(int, node.attrs["k"])
    _, order = e.calls(aten.sort.stable, e.tensor(values[0], use.dtype), stable=True, dim=axis, descending=True)
    largest = e.call(aten.slice.Tensor, order, axis, 0, k)
    nowhere = e.full(node.outs[0].dims, False, node.outs[0].dtype)
    return [e.call(aten.scatter.value, nowhere, axis, largest, True)]


RULES: dict[str, Rule] = {"index": index, "gather": gather, "scatter_add": scatter_add, "top": top}
