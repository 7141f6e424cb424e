"""Kernels of the structural operators: views, but for stack and concat, which copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ...ir.types import Dim, Dims, Node
from ..emit import Emitter, Rule, Value, shape, size

aten = torch.ops.aten


def split_dim(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """x[H -> (G R)]."""
    return [e.reshape(e.tensor(values[0], node.uses[0].dtype), shape(node.outs[0].dims))]


def merge_dims(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """x[(G R) -> H]; the merged dims are brought together where the first of them stands."""
    merged = cast(Dims, node.attrs["dims"])
    order: list[Dim] = []
    for dim in node.uses[0].dims:
        if dim not in merged:
            order.append(dim)
        elif not set(order) & set(merged):
            order.extend(merged)
    x = e.permute(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, tuple(order))
    return [e.reshape(x, shape(node.outs[0].dims))]


def expand(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The same values along new dims, without a copy."""
    out = node.outs[0]
    x = e.spread(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, out.dims)
    return [e.expand(x, shape(out.dims))]


def transpose(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The axes in another order, without a copy."""
    return [e.permute(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, node.outs[0].dims)]


def stack(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Tensors along a new first axis."""
    rest = node.outs[0].dims[1:]
    parts = [e.permute(e.tensor(v, u.dtype), u.dims, rest) for u, v in zip(node.uses, values, strict=True)]
    return [e.call(aten.stack.default, parts, 0)]


def unstack(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The slices along an axis."""
    use = node.uses[0]
    axis = use.dims.index(cast(Dim, node.attrs["dim"]))
    return e.calls(aten.unbind.int, e.tensor(values[0], use.dtype), axis)


def concat(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Tensors one behind the other along an axis."""
    whole, parts = cast(Dim, node.attrs["dim"]), cast(Dims, node.attrs["parts"])
    out = node.outs[0].dims
    tensors = [
        e.permute(e.tensor(value, use.dtype), use.dims, tuple(part if d == whole else d for d in out))
        for use, value, part in zip(node.uses, values, parts, strict=True)
    ]
    return [e.call(aten.cat.default, tensors, out.index(whole))]


def split(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The inverse of concat: views."""
    use, parts = node.uses[0], cast(Dims, node.attrs["parts"])
    axis = use.dims.index(cast(Dim, node.attrs["dim"]))
    x = e.tensor(values[0], use.dtype)
    return e.calls(aten.split_with_sizes.default, x, [size(part) for part in parts], axis)


RULES: dict[str, Rule] = {
    "split_dim": split_dim,
    "merge_dims": merge_dims,
    "expand": expand,
    "transpose": transpose,
    "stack": stack,
    "unstack": unstack,
    "concat": concat,
    "split": split,
}
