"""Kernels of attention and rotary.

Attention: PyTorch's fused kernels over [batch, head, position, K] views of whatever layout the operands have; groups of
query heads share a key-value head without copies on CPU. The start operands carry no tensor here: a plan that slices T
gives both sides the same start, and the causal mask is aligned at its top left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from ...ir.types import Dim, Dims, DType, Node
from ..emit import Emitter, Rule, Value, count, meta, shape

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Axes:
    """The dims of one attention, by role. H = (G R) are the query heads."""

    batch: Dims
    t: Dims
    s: Dims
    k: Dims
    v: Dims
    g: Dims
    r: Dims

    @staticmethod
    def of(node: Node, q: Dims, v: Dims) -> Axes:
        """The roles of the dims of an attention node."""
        t, s, k, g, r = (cast(tuple[Dim, ...], node.attrs[name]) for name in ("T", "S", "K", "G", "R"))
        named = {*t, *s, *k, *g, *r}
        batch = tuple(d for d in q if d not in named)
        width = k if set(k) <= set(v) else tuple(d for d in v if d not in named and d not in batch)
        return Axes(batch, t, s, k, width, g, r)

    @property
    def queries(self) -> list[Dims]:
        return [self.batch, (*self.g, *self.r), self.t, self.k]

    @property
    def keys(self) -> list[Dims]:
        return [self.batch, self.g, self.s, self.k]

    @property
    def sums(self) -> list[Dims]:
        return [self.batch, (*self.g, *self.r), self.t]


def _take(e: Emitter, node: Node, values: Sequence[Value], operand: int, groups: Sequence[Dims]) -> fx.Node:
    use = node.uses[operand]
    value = e.tensor(values[operand], use.dtype)
    wanted = tuple(d for group in groups for d in group)
    if set(use.dims) != set(wanted):
        value = e.expand(e.align(value, use.dims, wanted), shape(wanted))
        return e.reshape(value, [count(group) for group in groups])
    return e.flatten(value, use.dims, groups)


def _give(e: Emitter, value: fx.Node, groups: Sequence[Dims], dims: Dims) -> fx.Node:
    order = tuple(d for group in groups for d in group)
    return e.permute(e.reshape(value, shape(order)), order, dims)


def _options(node: Node) -> tuple[bool, float]:
    mask = node.attrs["mask"]
    assert mask in ("causal", "full"), f"{node.id}: no fused kernel for the mask {mask}"
    assert node.attrs["score"] is None and not node.attrs["drop"], f"{node.id}: no fused kernel for score or dropout"
    return mask == "causal", float(cast(float, node.attrs["scale"]))


def attention(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """y = softmax(scale q kᵀ + mask) v; saves the log-sum-exp of the scores."""
    axes = Axes.of(node, node.uses[0].dims, node.uses[2].dims)
    causal, scale = _options(node)
    q = _take(e, node, values, 0, axes.queries)
    k = _take(e, node, values, 1, axes.keys)
    v = _take(e, node, values, 2, axes.keys)
    y, lse = _cpu_forward(e, q, k, v, causal, scale) if e.device == "cpu" else _cuda_forward(e, q, k, v, causal, scale)
    saved = _give(e, lse, axes.sums, node.outs[1].dims) if e.wanted(1) else None
    return [_give(e, y, axes.queries, node.outs[0].dims), saved]


def attention_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The gradients of q, k and v from dy, q, k, v, y and the log-sum-exp."""
    axes = Axes.of(node, node.uses[1].dims, node.uses[3].dims)
    causal, scale = _options(node)
    dy, q, y = (_take(e, node, values, i, axes.queries) for i in (0, 1, 4))
    k, v = (_take(e, node, values, i, axes.keys) for i in (2, 3))
    lse = _take(e, node, values, 5, axes.sums)
    backward = _cpu_backward if e.device == "cpu" else _cuda_backward
    dq, dk, dv = backward(e, (dy, q, k, v, y, lse), causal, scale)
    outs = node.outs
    return [
        _give(e, dq, axes.queries, outs[0].dims),
        _give(e, dk, axes.keys, outs[1].dims),
        _give(e, dv, axes.keys, outs[2].dims),
    ]


def _cpu_forward(e: Emitter, q: fx.Node, k: fx.Node, v: fx.Node, causal: bool, scale: float) -> tuple[fx.Node, ...]:
    return e.calls(aten._scaled_dot_product_flash_attention_for_cpu.default, q, k, v, 0.0, causal, scale=scale)


def _cpu_backward(e: Emitter, saved: tuple[fx.Node, ...], causal: bool, scale: float) -> tuple[fx.Node, ...]:
    op = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    return e.calls(op, *saved, 0.0, causal, scale=scale)


# ---- CUDA: flash for 16-bit types, the memory-efficient kernel for float32


def _half(value: fx.Node) -> bool:
    return meta(value).dtype in (torch.float16, torch.bfloat16)


def _repeat(e: Emitter, q: fx.Node, k: fx.Node) -> fx.Node:
    """Key-value heads once per query head; no copy where there is one query head each."""
    heads, groups = meta(q).shape[1], meta(k).shape[1]
    if heads == groups:
        return k
    batch, _, length, width = meta(k).shape
    wide = e.expand(e.call(aten.unsqueeze.default, k, 2), [batch, groups, heads // groups, length, width])
    return e.call(aten.reshape.default, wide, [batch, heads, length, width])


def _fold(e: Emitter, q: fx.Node, dk: fx.Node, k: fx.Node) -> fx.Node:
    """The gradient of `_repeat`."""
    heads, groups = meta(q).shape[1], meta(k).shape[1]
    if heads == groups:
        return dk
    batch, _, length, width = meta(k).shape
    split = e.call(aten.reshape.default, dk, [batch, groups, heads // groups, length, width])
    return e.call(aten.sum.dim_IntList, split, [2])


def _cuda_forward(e: Emitter, q: fx.Node, k: fx.Node, v: fx.Node, causal: bool, scale: float) -> tuple[fx.Node, ...]:
    keys, values = _repeat(e, q, k), _repeat(e, q, v)
    if _half(q):
        found = e.calls(
            aten._scaled_dot_product_flash_attention.default, q, keys, values, 0.0, causal, False, scale=scale
        )
        return found[0], found[1]
    op = aten._scaled_dot_product_efficient_attention.default
    y, lse, _, _ = e.calls(op, q, keys, values, None, True, 0.0, causal, scale=scale)
    # This kernel pads the log-sum-exp to a multiple of 32 rows.
    return y, e.call(aten.slice.Tensor, lse, 2, 0, meta(q).shape[2])


def _cuda_backward(e: Emitter, saved: tuple[fx.Node, ...], causal: bool, scale: float) -> tuple[fx.Node, ...]:
    dy, q, k, v, y, lse = saved
    keys, values = _repeat(e, q, k), _repeat(e, q, v)
    t, s = meta(q).shape[2], meta(k).shape[2]
    seed: Any = e.full((), 0, DType.I64)
    if _half(q):
        op = aten._scaled_dot_product_flash_attention_backward.default
        lse = e.contiguous(lse)
        args = (dy, q, keys, values, y, lse, None, None, t, s, 0.0, causal, seed, seed)
        dq, dk, dv = e.calls(op, *args, scale=scale)
    else:
        op = aten._scaled_dot_product_efficient_attention_backward.default
        lse = e.call(aten.constant_pad_nd.default, lse, [0, -t % 32], float("inf"))
        args = (dy, q, keys, values, None, y, lse, seed, seed, 0.0, [True, True, True, False], causal)
        dq, dk, dv, _ = e.calls(op, *args, scale=scale)
    return dq, _fold(e, q, dk, k), _fold(e, q, dv, v)


RULES: dict[str, Rule] = {"attention": attention, "attention_backward": attention_backward}
