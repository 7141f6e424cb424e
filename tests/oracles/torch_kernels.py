"""Kernel functions as PyTorch's own on named axes, written apart from the compiler's lowering and references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from partita.compiler.ir.types import DType, Node
from torch import Tensor

from .torch_axes import align, axes_of, contract, dims_of


def cross_entropy(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    logits, target = operands
    (axis,) = axes_of(node, "V")
    kept = tuple(dim for dim in node.uses[0].dims if dim not in dims_of(node, "V"))
    target = align(target, node.uses[1].dims, kept)
    loss = torch.logsumexp(logits, axis) - logits.gather(axis, target.unsqueeze(axis)).squeeze(axis)
    return [loss, torch.logsumexp(logits, axis)]


def layer_norm(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    x, gain, *bias = operands
    over: Any = axes_of(node, "D")
    eps: Any = node.attrs["eps"]
    mean, variance = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
    rstd = (variance + eps) ** -0.5
    y = (x - mean) * rstd * align(gain, node.uses[1].dims, node.uses[0].dims)
    if bias:
        y = y + align(bias[0], node.uses[2].dims, node.uses[0].dims)
    return [y, mean.squeeze(over), rstd.squeeze(over)]


def rms_norm(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    x, gain = operands
    over: Any = axes_of(node, "D")
    eps: Any = node.attrs["eps"]
    offset: Any = node.attrs["offset"]
    rstd = (x.square().mean(over, keepdim=True) + eps) ** -0.5
    return [x * rstd * (align(gain, node.uses[1].dims, node.uses[0].dims) + offset), rstd.squeeze(over)]


def attention(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    """softmax(scale · q k) v, the scores written out."""
    q, k, v = operands[:3]
    extras = list(zip(operands[3:], node.uses[3:], strict=True))
    starts = [x for x, use in extras if not use.dims]
    (t,), (s,), channels = dims_of(node, "T"), dims_of(node, "S"), dims_of(node, "K")
    scale: Any = node.attrs["scale"]
    q_dims, k_dims, v_dims = (use.dims for use in node.uses[:3])
    rows = (*(dim for dim in q_dims if dim not in channels), s)
    scores = scale * contract((q, q_dims), (k, k_dims), rows)
    documents = [align(x, use.dims, rows) for x, use in extras if use.dims and use.dtype is DType.I64]
    if documents:
        scores = scores.masked_fill(documents[0] != documents[1], -math.inf)
    if node.attrs["mask"] == "causal":
        at_t = align(starts[0] + torch.arange(t.size or 0), (t,), rows)
        at_s = align(starts[1] + torch.arange(s.size or 0), (s,), rows)
        scores = scores.masked_fill(at_t < at_s, -math.inf)
    weights = torch.softmax(scores, len(rows) - 1)
    return [contract((weights, rows), (v, v_dims), node.outs[0].dims), torch.logsumexp(scores, len(rows) - 1)]


def rotary(node: Node, operands: list[Tensor]) -> Tensor:
    """Pairs as complex numbers, turned by exp(i t base^(-m/M))."""
    x, start = operands
    (t,), (k,) = dims_of(node, "T"), dims_of(node, "K")
    base: Any = node.attrs["base"]
    dims = node.uses[0].dims
    rest = (*(dim for dim in dims if dim not in (t, k)), t, k)
    x = align(x, dims, rest)
    pairs = (k.size or 0) // 2
    if node.attrs["half"]:
        z = torch.complex(x[..., :pairs], x[..., pairs:])
    else:
        z = torch.complex(x[..., ::2], x[..., 1::2])
    angle = (start + torch.arange(t.size or 0)).to(torch.float64)[:, None] * base ** (
        -torch.arange(pairs, dtype=torch.float64) / pairs
    )
    z = z * torch.polar(torch.ones_like(angle), angle)
    y = torch.cat([z.real, z.imag], -1) if node.attrs["half"] else torch.stack([z.real, z.imag], -1).reshape(x.shape)
    return align(y, rest, dims)


_F = torch.nn.functional
