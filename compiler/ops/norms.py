"""layer_norm and rms_norm with their gradients; the statistics (mean, rstd) are saved results, float32 at least.

D is what is normalised; gain and bias have exactly its axes. The gradients of gain and bias lack the other dims: those
are MAP, and a part of a cut gives a share of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, axes, einsum
from .common import fused, in_first, second_order, single
from .definition import Array, Build, Precision, Role
from .derive import backward, only
from .numerics import np
from .shapes import (
    agree,
    as_wide,
    count,
    floating,
    holds,
    mapped,
    refuse,
    same_axes,
    same_dtype,
    show,
    statistic,
    without,
)


def _check(operands: Sequence[TensorType], attrs: Mapping[str, Attr]) -> TensorType:
    """x and its gains fit; gives the type of a statistic."""
    agree(operands)
    x, *gains = operands
    same_dtype(gains)
    as_wide(x, gains[0])
    over = attributes.dims(attrs, "D")
    floating(x)
    holds(x.dims, over)
    for gain in gains:
        if set(gain.dims) != set(over):
            raise refuse(
                f"gain {show(gain.dims)} must have the axes that are normalised: {show(over)}", gain.dims, over
            )
    return TensorType(without(x.dims, over), statistic(x.dtype))


def _layer_norm_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2, 3)
    row = _check(operands, attrs)
    return (operands[0], row, row)


def _layer_norm_backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 5)
    dy, x, gain, mean, rstd = operands
    same_dtype((dy, x))
    row = _check((x, gain), attrs)
    same_axes((x, dy), "a gradient has the axes of its value")
    same_axes((row, mean, rstd), "statistics have the axes that are not normalised")
    return (x, gain, gain) if attributes.flag(attrs, "bias") else (x, gain)


def _rms_norm_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    return (operands[0], _check(operands, attrs))


def _rms_norm_backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 4)
    dy, x, gain, rstd = operands
    same_dtype((dy, x))
    row = _check((x, gain), attrs)
    same_axes((x, dy), "a gradient has the axes of its value")
    same_axes((row, rstd), "statistics have the axes that are not normalised")
    return (x, gain)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "D"))


# y = gain c rstd + bias, c = x - mean[D](x), rstd = (mean[D](c^2) + eps)^-1/2
def _layer_norm(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.uses[0].dims
    over = axes(dims, attributes.dims(node.attrs, "D"))
    x, gain, *bias = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    mean = x.mean(axis=over, keepdims=True)
    rstd = ((x - mean) ** 2).mean(axis=over, keepdims=True)
    rstd = 1 / np.sqrt(rstd + attributes.number(node.attrs, "eps"))
    y = gain * (x - mean) * rstd
    return (y + bias[0] if bias else y), mean.squeeze(over), rstd.squeeze(over)


# n = (x - mean) rstd, u = gain dy:   dx = rstd (u - mean[D](u) - n mean[D](u n)),  dgain = sum(dy n),  dbias = sum(dy)
def _layer_norm_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims, gain_dims = node.uses[0].dims, node.uses[2].dims
    over = axes(dims, attributes.dims(node.attrs, "D"))
    dy, x, gain, mean, rstd = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    n, u = (x - mean) * rstd, gain * dy
    dx = rstd * (u - u.mean(axis=over, keepdims=True) - n * (u * n).mean(axis=over, keepdims=True))
    found = (dx, einsum(gain_dims, (dy * n, dims)))
    return (*found, einsum(gain_dims, (dy, dims))) if attributes.flag(node.attrs, "bias") else found


# y = (offset + gain) x rstd, rstd = (mean[D](x^2) + eps)^-1/2
def _rms_norm(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.uses[0].dims
    over = axes(dims, attributes.dims(node.attrs, "D"))
    x, gain = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    rstd = 1 / np.sqrt((x * x).mean(axis=over, keepdims=True) + attributes.number(node.attrs, "eps"))
    return (attributes.number(node.attrs, "offset") + gain) * x * rstd, rstd.squeeze(over)


# n = x rstd, u = (offset + gain) dy:   dx = rstd (u - n mean[D](u n)),  dgain = sum(dy n)
def _rms_norm_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.uses[0].dims
    over = axes(dims, attributes.dims(node.attrs, "D"))
    dy, x, gain, rstd = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    n, u = x * rstd, (attributes.number(node.attrs, "offset") + gain) * dy
    dx = rstd * (u - n * (u * n).mean(axis=over, keepdims=True))
    return dx, einsum(node.uses[2].dims, (dy * n, dims))


def _layer_norm_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    x, gain, *bias = node.uses
    operands = (only(cotangents), x, gain, node.out(1), node.out(2))
    found = backward(b, node, *operands, bias=bool(bias))
    if bias and bias[0].dims != gain.dims:
        (turned,) = b("transpose", found[2], dims=bias[0].dims)
        return [*found[:2], turned]
    return found


def _rms_norm_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    operands = (only(cotangents), *node.uses, node.out(1))
    return backward(b, node, *operands)


_LAYER = {"D": "the dims that are normalised", "eps": "added to the variance"}
_RMS = {**_LAYER, "offset": "added to the gain"}

NORMS = (
    fused(
        "layer_norm",
        "layer_norm",
        attrs=_LAYER,
        infer=_layer_norm_type,
        reference=_layer_norm,
        gradient=_layer_norm_gradient,
        roles=_roles,
        cost=costs.per_element(8),
        precision=Precision.INSIDE,
        wide=frozenset({1, 2}),
        covers=single("D"),
    ),
    fused(
        "layer_norm_backward",
        "layer_norm",
        attrs={**_LAYER, "bias": "whether there is a bias, whose gradient is the third result"},
        infer=_layer_norm_backward_type,
        reference=_layer_norm_backward,
        gradient=second_order("layer_norm"),
        roles=_roles,
        linear=in_first,
        cost=costs.per_element(14),
        precision=Precision.INSIDE,
        wide=frozenset({2, 3, 4}),
        covers=single("D"),
    ),
    fused(
        "rms_norm",
        "rms_norm",
        attrs=_RMS,
        infer=_rms_norm_type,
        reference=_rms_norm,
        gradient=_rms_norm_gradient,
        roles=_roles,
        cost=costs.per_element(5),
        precision=Precision.INSIDE,
        wide=frozenset({1}),
        covers=single("D"),
    ),
    fused(
        "rms_norm_backward",
        "rms_norm",
        attrs=_RMS,
        infer=_rms_norm_backward_type,
        reference=_rms_norm_backward,
        gradient=second_order("rms_norm"),
        roles=_roles,
        linear=in_first,
        cost=costs.per_element(11),
        precision=Precision.INSIDE,
        wide=frozenset({2, 3}),
        covers=single("D"),
    ),
)
