"""Kernels of attention and rotary.

Attention: PyTorch's fused kernels over [batch, head, position, K] views of whatever layout the operands have; groups of
query heads share a key-value head without copies on CPU. Where queries and keys start at the same position, a causal
mask is the kernel's own (aligned at its top left); where they do not, it is an additive mask made from the two starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from ...ir.types import Dim, Dims, DType, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, meta, shape

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
    """An operand as [batch, head, position, K], or without K."""
    use = node.uses[operand]
    value = e.tensor(values[operand], use.dtype)
    wanted = tuple(d for group in groups for d in group)
    if set(use.dims) != set(wanted):
        found = e.expand(e.spread(value, use.dims, wanted), shape(wanted))
        found = e.reshape(found, [count(group) for group in groups])
    else:
        found = e.flatten(value, use.dims, groups)
    # The kernels walk the last axis (K) without asking for its stride.
    if len(groups) == 3 or meta(found).stride(-1) == 1:
        return found
    return e.call(aten.clone.default, found, memory_format=torch.contiguous_format)


def _give(e: Emitter, value: fx.Node, groups: Sequence[Dims], dims: Dims) -> fx.Node:
    order = tuple(d for group in groups for d in group)
    return e.permute(e.reshape(value, shape(order)), order, dims)


@dataclass(frozen=True, slots=True)
class Options:
    """What a fused kernel is told. `mask` is an additive [T, S] or [batch, 1, T, S] where its own causal one does not
    fit."""

    causal: bool
    scale: float
    mask: fx.Node | None


def _options(e: Emitter, node: Node, values: Sequence[Value], axes: Axes) -> Options:
    kind, scale = node.attrs["mask"], float(cast(float, node.attrs["scale"]))
    assert kind in ("causal", "full"), f"{node.id}: no fused kernel for the mask {kind}"
    assert node.attrs["score"] is None and not node.attrs["drop"], f"{node.id}: no fused kernel for score or dropout"
    documents = [at for at, use in enumerate(node.uses) if use.dtype is DType.I64 and use.dims]
    if documents:
        return Options(False, scale, _document_mask(e, node, values, axes, documents))
    if kind == "full":
        return Options(False, scale, None)
    t_start, s_start = values[-2:]
    literal = not isinstance(t_start, fx.Node) and not isinstance(s_start, fx.Node)
    if node.uses[-2].value == node.uses[-1].value or (literal and t_start == s_start):
        return Options(True, scale, None)
    return Options(False, scale, _causal_mask(e, node, count(axes.t), count(axes.s), t_start, s_start))


def _document_mask(e: Emitter, node: Node, values: Sequence[Value], axes: Axes, documents: Sequence[int]) -> fx.Node:
    """[batch, 1, T, S]: 0 where query and key are of one document (and the key is not behind), else -inf."""
    batch, t, s = count(axes.batch), count(axes.t), count(axes.s)
    numbers: list[fx.Node] = []
    for place, dims, sizes in ((documents[0], axes.t, [batch, 1, t, 1]), (documents[1], axes.s, [batch, 1, 1, s])):
        use, whole = node.uses[place], (*axes.batch, *dims)
        number = e.expand(e.spread(e.tensor(values[place], use.dtype), use.dims, whole), shape(whole))
        numbers.append(e.reshape(number, sizes))
    hidden = e.call(aten.ne.Tensor, *numbers)
    if node.attrs["mask"] == "causal":
        rows = e.call(aten.arange.default, t, dtype=torch.int64, device=e.device)
        columns = e.call(aten.arange.default, s, dtype=torch.int64, device=e.device)
        rows = e.reshape(e.call(aten.add.Tensor, rows, values[-2]), [t, 1])
        behind = e.call(aten.lt.Tensor, rows, e.call(aten.add.Tensor, columns, values[-1]))
        hidden = e.call(aten.logical_or.default, hidden, behind)
    zeros = e.call(aten.zeros.default, [batch, 1, t, s], dtype=TORCH_DTYPES[node.outs[0].dtype], device=e.device)
    return e.call(aten.masked_fill_.Scalar, zeros, hidden, float("-inf"))


def _causal_mask(e: Emitter, node: Node, t: int, s: int, t_start: Value, s_start: Value) -> fx.Node:
    """0 where the query's position is not before the key's, else -inf."""
    rows = e.call(aten.arange.default, t, dtype=torch.int64, device=e.device)
    columns = e.call(aten.arange.default, s, dtype=torch.int64, device=e.device)
    rows = e.reshape(e.call(aten.add.Tensor, rows, t_start), [t, 1])
    hidden = e.call(aten.lt.Tensor, rows, e.call(aten.add.Tensor, columns, s_start))
    zeros = e.call(aten.zeros.default, [t, s], dtype=TORCH_DTYPES[node.outs[0].dtype], device=e.device)
    return e.call(aten.masked_fill.Scalar, zeros, hidden, float("-inf"))


def attention(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """y = softmax(scale q kᵀ + mask) v; saves the log-sum-exp of the scores."""
    axes = Axes.of(node, node.uses[0].dims, node.uses[2].dims)
    options = _options(e, node, values, axes)
    q = _take(e, node, values, 0, axes.queries)
    k = _take(e, node, values, 1, axes.keys)
    v = _take(e, node, values, 2, axes.keys)
    y, lse = (_cpu_forward if e.device == "cpu" else _cuda_forward)(e, q, k, v, options)
    saved = _give(e, lse, axes.sums, node.outs[1].dims) if e.wanted(1) else None
    return [_give(e, y, axes.queries, node.outs[0].dims), saved]


def attention_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The gradients of q, k and v from dy, q, k, v, y and the log-sum-exp."""
    axes = Axes.of(node, node.uses[1].dims, node.uses[3].dims)
    options = _options(e, node, values, axes)
    dy, q, y = (_take(e, node, values, i, axes.queries) for i in (0, 1, 4))
    k, v = (_take(e, node, values, i, axes.keys) for i in (2, 3))
    lse = _take(e, node, values, 5, axes.sums)
    backward = _cpu_backward if e.device == "cpu" else _cuda_backward
    dq, dk, dv = backward(e, (dy, q, k, v, y, lse), options)
    outs = node.outs
    return [
        _give(e, dq, axes.queries, outs[0].dims),
        _give(e, dk, axes.keys, outs[1].dims),
        _give(e, dv, axes.keys, outs[2].dims),
    ]


def _masked(options: Options) -> dict[str, fx.Node]:
    return {} if options.mask is None else {"attn_mask": options.mask}


def _cpu_forward(e: Emitter, q: fx.Node, k: fx.Node, v: fx.Node, options: Options) -> tuple[fx.Node, ...]:
    op = aten._scaled_dot_product_flash_attention_for_cpu.default
    return e.calls(op, q, k, v, 0.0, options.causal, **_masked(options), scale=options.scale)


# Below this many queries the CPU kernel's backward goes 32 rows at a time; products of 32 rows cost more in bfloat16
# than in float32: 65 ms against 24 ms, casts included, for 8 rows of 8 heads of 128 queries (torch 2.13, AVX-512 BF16).
FEW_QUERIES = 192


def _cpu_backward(e: Emitter, saved: tuple[fx.Node, ...], options: Options) -> tuple[fx.Node, ...]:
    dtype = meta(saved[1]).dtype
    if dtype.itemsize < 4 and meta(saved[1]).shape[2] < FEW_QUERIES and options.mask is None:
        found = _cpu_backward(e, tuple(e.cast(value, torch.float32) for value in saved), options)
        return tuple(e.cast(value, dtype) for value in found)
    op = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    return e.calls(op, *saved, 0.0, options.causal, **_masked(options), scale=options.scale)


# ---- CUDA: flash for 16-bit types, the memory-efficient kernel for float32 and for masks


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


def _wide_mask(e: Emitter, q: fx.Node, mask: fx.Node | None) -> fx.Node | None:
    """The mask for every batch row and head, without a copy."""
    if mask is None:
        return None
    t, s = meta(mask).shape[-2:]
    return e.expand(mask, [*meta(q).shape[:2], t, s])


def _cuda_forward(e: Emitter, q: fx.Node, k: fx.Node, v: fx.Node, options: Options) -> tuple[fx.Node, ...]:
    keys, values = _repeat(e, q, k), _repeat(e, q, v)
    causal, scale = options.causal, options.scale
    if _half(q) and options.mask is None:
        op = aten._scaled_dot_product_flash_attention.default
        found = e.calls(op, q, keys, values, 0.0, causal, False, scale=scale)
        return found[0], found[1]
    op = aten._scaled_dot_product_efficient_attention.default
    y, lse, _, _ = e.calls(op, q, keys, values, _wide_mask(e, q, options.mask), True, 0.0, causal, scale=scale)
    # This kernel pads the log-sum-exp to a multiple of 32 rows.
    return y, e.call(aten.slice.Tensor, lse, 2, 0, meta(q).shape[2])


def _cuda_backward(e: Emitter, saved: tuple[fx.Node, ...], options: Options) -> tuple[fx.Node, ...]:
    dy, q, k, v, y, lse = saved
    keys, values = _repeat(e, q, k), _repeat(e, q, v)
    t, s = meta(q).shape[2], meta(k).shape[2]
    seed: Any = e.full((), 0, DType.I64)
    if _half(q) and options.mask is None:
        op = aten._scaled_dot_product_flash_attention_backward.default
        args = (dy, q, keys, values, y, e.contiguous(lse), None, None, t, s, 0.0, options.causal, seed, seed)
        dq, dk, dv = e.calls(op, *args, scale=options.scale)
    else:
        op = aten._scaled_dot_product_efficient_attention_backward.default
        lse = e.call(aten.constant_pad_nd.default, lse, [0, -t % 32], float("inf"))
        mask = _wide_mask(e, q, options.mask)
        args = (dy, q, keys, values, mask, y, lse, seed, seed, 0.0, [True, True, True, False], options.causal)
        dq, dk, dv, _ = e.calls(op, *args, scale=options.scale)
    return dq, _fold(e, q, dk, k), _fold(e, q, dv, v)


RULES: dict[str, Rule] = {"attention": attention, "attention_backward": attention_backward}
