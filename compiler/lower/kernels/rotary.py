"""Kernels of rotary position embedding: pairs of channels turned by position times frequency.

The tables are [T, K/2], made where they are used: they cost a share 1 / (batch · heads) of the rotation itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ...ir.types import Dims, DType, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, meta, shape

aten = torch.ops.aten


def _tables(e: Emitter, node: Node, start: Value, dtype: DType, sign: float) -> tuple[fx.Node, fx.Node]:
    """cos and sin of [T, K/2], computed in float32 at least."""
    t = count(cast(Dims, node.attrs["T"]))
    wide = DType.F64 if dtype is DType.F64 else DType.F32
    position = e.call(aten.arange.default, t, dtype=torch.int64, device=e.device)
    if isinstance(start, fx.Node) or start != 0:
        position = e.call(aten.add.Tensor, position, start)
    position = e.reshape(e.cast(position, TORCH_DTYPES[wide]), [t, 1])
    frequency = _frequency_row(e, node, wide)
    angle = e.call(aten.mul.Tensor, position, frequency)
    cos, sin = e.call(aten.cos.default, angle), e.call(aten.sin.default, angle)
    if sign < 0:
        sin = e.call(aten.neg.default, sin)
    return e.cast(cos, TORCH_DTYPES[dtype]), e.cast(sin, TORCH_DTYPES[dtype])


def _frequency_row(e: Emitter, node: Node, dtype: DType) -> fx.Node:
    half = count(cast(Dims, node.attrs["K"])) // 2
    assert node.attrs["scale"] is None, f"{node.id}: a scaled rotary is computed by its body"
    steps = e.call(aten.arange.default, half, dtype=TORCH_DTYPES[dtype], device=e.device)
    exponent = e.call(aten.mul.Tensor, steps, -1.0 / half)
    return e.call(aten.pow.Scalar, float(cast(float, node.attrs["base"])), exponent)


def turn(sign: float) -> Rule:
    """(a, b) -> (a cos - b sin, b cos + a sin); the backward turns the other way."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        use, out = node.uses[0], node.outs[0]
        over_t, over_k = cast(Dims, node.attrs["T"]), cast(Dims, node.attrs["K"])
        lead = tuple(d for d in use.dims if d not in (*over_t, *over_k))
        # Keep the axes' physical order where T stands: [.., T, .., K] with K last.
        order = (*(d for d in use.dims if d not in over_k), *over_k)
        assert len(over_t) == 1, f"{node.id}: rotary wants one T"
        x = e.permute(e.tensor(values[0], use.dtype), use.dims, order)
        half, t = count(over_k) // 2, over_t[0]
        outer = order[: len(order) - len(over_k)]
        split = [2, half] if node.attrs["half"] else [half, 2]
        x = e.reshape(x, [*shape(outer), *split])
        cos, sin = _tables(e, node, values[-1], use.dtype, sign)
        sizes = [count((d,)) if d == t else 1 for d in outer]
        cos, sin = e.reshape(cos, [*sizes, half]), e.reshape(sin, [*sizes, half])
        axis = len(outer) if node.attrs["half"] else len(outer) + 1
        y = _rotate(e, x, cos, sin, axis)
        assert len(lead) + 1 + len(over_k) == len(order), f"{node.id}: dims do not add up"
        return [e.permute(e.reshape(y, shape(order)), order, out.dims)]

    return rule


def _rotate(e: Emitter, x: fx.Node, cos: fx.Node, sin: fx.Node, axis: int) -> fx.Node:
    a, b = (e.call(aten.select.int, x, axis, i) for i in (0, 1))
    if e.functional:
        p = e.call(aten.sub.Tensor, e.call(aten.mul.Tensor, a, cos), e.call(aten.mul.Tensor, b, sin))
        q = e.call(aten.add.Tensor, e.call(aten.mul.Tensor, b, cos), e.call(aten.mul.Tensor, a, sin))
        return e.call(aten.stack.default, [p, q], axis)
    y = e.call(aten.mul.Tensor, x, e.call(aten.unsqueeze.default, cos, axis))
    y = y if meta(y).is_contiguous() else e.contiguous(y)
    e.call(aten.addcmul_.default, e.call(aten.select.int, y, axis, 0), b, sin, value=-1)
    e.call(aten.addcmul_.default, e.call(aten.select.int, y, axis, 1), a, sin)
    return y


RULES: dict[str, Rule] = {"rotary": turn(1.0), "rotary_backward": turn(-1.0)}
