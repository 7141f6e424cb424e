"""Kernels of gelu, silu and softmax, forward and backward; a backward is written over its dying cotangent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from ...ir.types import Dims, Node
from ..emit import Emitter, Rule, Value, aligned, count, meta

aten = torch.ops.aten


def forward(op: Any, **options: Any) -> Rule:
    """y = f(x)."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        x = e.tensor(values[0], node.uses[0].dtype)
        if e.dies(0):
            in_place = getattr(aten, op._schema.name.removeprefix("aten::") + "_").default
            return [e.call(in_place, x, **options)]
        return [e.call(op, x, **options)]

    return rule


def backward(name: str, **options: Any) -> Rule:
    """dx = f'(x) dy, into dy where it dies."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        dy, x = (e.tensor(v, u.dtype) for u, v in zip(node.uses, values, strict=True))
        dy = e.permute(dy, node.uses[0].dims, node.outs[0].dims)
        x = e.permute(x, node.uses[1].dims, node.outs[0].dims)
        if e.dies(0):
            return [e.call(getattr(aten, name).grad_input, dy, x, grad_input=dy, **options)]
        return [e.call(getattr(aten, name).default, dy, x, **options)]

    return rule


def rows(e: Emitter, value: Value, dims: Dims, over: Dims) -> fx.Node:
    """A matrix whose rows run along `over`."""
    assert isinstance(value, fx.Node), "a number has no rows"
    return e.flatten(value, dims, [tuple(d for d in dims if d not in over), over])


def unrows(e: Emitter, value: fx.Node, dims: Dims, over: Dims) -> fx.Node:
    """The inverse of `rows`."""
    order = (*(d for d in dims if d not in over), *over)
    return e.permute(e.reshape(value, [d.size or 0 for d in order]), order, dims)


def softmax(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """exp(x) / Σ exp(x) over the dims S; 0 where nothing is kept (every x is -inf)."""
    use, over = node.uses[0], cast(Dims, node.attrs["S"])
    if len(over) == 1:
        x, axis = e.tensor(values[0], use.dtype), use.dims.index(over[0])
    else:
        x, axis = rows(e, values[0], use.dims, over), 1
    nothing = e.call(aten.eq.Scalar, e.call(aten.amax.default, x, [axis], True), float("-inf"))
    if e.dies(0) and meta(x).is_contiguous():
        y = e.call(aten._softmax.out, x, axis, False, out=x)
    else:
        y = e.call(aten._softmax.default, x, axis, False)
    y = e.call(aten.masked_fill.Scalar if e.functional else aten.masked_fill_.Scalar, y, nothing, 0.0)
    return [y if len(over) == 1 else unrows(e, y, use.dims, over)]


def softmax_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """dx = y (dy - Σ y dy)."""
    over, out = cast(Dims, node.attrs["S"]), node.outs[0]
    dy, y = (rows(e, v, u.dims, over) for u, v in zip(node.uses, values, strict=True))
    dx = e.call(aten._softmax_backward_data.default, dy, y, 1, meta(y).dtype)
    assert set(node.uses[0].dims) == set(out.dims), f"{node.id}: cotangent and result differ in dims"
    order = (*(d for d in node.uses[1].dims if d not in over), *over)
    return [e.permute(e.reshape(dx, [d.size or 0 for d in order]), order, out.dims)]


def logsumexp(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """log Σ exp(x) over the dims V."""
    use, over = node.uses[0], cast(Dims, node.attrs["V"])
    assert count(over) > 0, f"{node.id}: an empty sum has no logarithm"
    return [e.call(aten.logsumexp.default, values[0], [use.dims.index(d) for d in over])]


def logsumexp_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """dx = dlse exp(x - lse)."""
    out = node.outs[0].dims
    dlse, x, lse = aligned(e, node.uses, values, out)
    # Where nothing is kept (lse = -inf) every x is -inf, and exp(x - 0) is 0.
    lse = e.call(aten.masked_fill.Scalar, lse, e.call(aten.eq.Scalar, lse, float("-inf")), 0.0)
    p = e.call(aten.sub_.Tensor if e.dies(1) else aten.sub.Tensor, x, lse)
    return [e.call(aten.mul_.Tensor, e.call(aten.exp_.default, p), dlse)]


RULES: dict[str, Rule] = {
    "gelu": forward(aten.gelu.default, approximate="none"),
    "gelu_backward": backward("gelu_backward", approximate="none"),
    "gelu_tanh": forward(aten.gelu.default, approximate="tanh"),
    "gelu_tanh_backward": backward("gelu_backward", approximate="tanh"),
    "silu": forward(aten.silu.default),
    "silu_backward": backward("silu_backward"),
    "softmax": softmax,
    "softmax_backward": softmax_backward,
    "logsumexp": logsumexp,
    "logsumexp_backward": logsumexp_backward,
}
