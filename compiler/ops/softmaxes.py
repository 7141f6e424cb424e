"""softmax and logsumexp, with their gradients. A softmax over nothing kept (all -inf) is 0, its logsumexp -inf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, axes
from .common import fused, in_first, second_order, single
from .definition import Array, Build, Precision, Role
from .derive import backward, only
from .numerics import np
from .shapes import agree, count, floating, holds, mapped, same_axes, same_dtype, statistic, without


def log_sum_exp(x: Array, over: tuple[int, ...]) -> Array:
    """log(sum(exp(x))) with the axes kept; -inf where every x is -inf."""
    top = x.max(axis=over, keepdims=True)
    finite = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(x - finite).sum(axis=over, keepdims=True)
    return np.where(total > 0, np.log(np.where(total > 0, total, 1.0)) + finite, -np.inf)


def normalized(x: Array, lse: Array) -> Array:
    """exp(x - lse), and 0 where nothing is kept."""
    return np.exp(x - np.where(np.isfinite(lse), lse, 0.0))


def _softmax_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    floating(operands[0])
    holds(operands[0].dims, attributes.dims(attrs, "S"))
    return (operands[0],)


def _softmax_backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    same_dtype(operands)
    same_axes(operands, "a gradient has the axes of its value")
    return _softmax_type(operands[:1], attrs)


def _softmax_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "S"))


def _softmax(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    (x,) = arrays
    return (normalized(x, log_sum_exp(x, axes(node.uses[0].dims, attributes.dims(node.attrs, "S")))),)


# dx = y (dy - sum[S](dy y))
def _softmax_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dy, y = arrays
    over = axes(node.uses[0].dims, attributes.dims(node.attrs, "S"))
    return (y * (dy - (dy * y).sum(axis=over, keepdims=True)),)


def _softmax_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return backward(b, node, only(cotangents), node.out())


def _lse_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    floating(operands[0])
    over = attributes.dims(attrs, "V")
    holds(operands[0].dims, over)
    return (TensorType(without(operands[0].dims, over), statistic(operands[0].dtype)),)


def _lse_backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 3)
    dlse, x, lse = operands
    (wanted,) = _lse_type((x,), attrs)
    same_axes((wanted, dlse, lse), "a gradient has the axes of its value")
    return (x,)


def _lse_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, lse=attributes.dims(node.attrs, "V"))


def _lse(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    (x,) = arrays
    over = axes(node.uses[0].dims, attributes.dims(node.attrs, "V"))
    return (log_sum_exp(x, over).squeeze(over),)


# dx = dlse exp(x - lse)
def _lse_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.outs[0].dims
    dlse, x, lse = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    return (dlse * normalized(x, lse),)


def _lse_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return backward(b, node, only(cotangents), node.uses[0], node.out())


_S = {"S": "the dims that the weights sum to one over"}
_V = {"V": "the dims that are reduced"}

SOFTMAXES = (
    fused(
        "softmax",
        "softmax",
        attrs=_S,
        infer=_softmax_type,
        reference=_softmax,
        gradient=_softmax_gradient,
        roles=_softmax_roles,
        cost=costs.per_element(4),
        precision=Precision.INSIDE,
        covers=single("S"),
    ),
    fused(
        "softmax_backward",
        "softmax",
        attrs=_S,
        infer=_softmax_backward_type,
        reference=_softmax_backward,
        gradient=second_order("softmax"),
        roles=_softmax_roles,
        linear=in_first,
        cost=costs.per_element(4),
        precision=Precision.INSIDE,
        overwrites=frozenset({0}),
        covers=single("S"),
    ),
    fused(
        "logsumexp",
        "logsumexp",
        attrs=_V,
        infer=_lse_type,
        reference=_lse,
        gradient=_lse_gradient,
        roles=_lse_roles,
        cost=costs.per_element(3),
        precision=Precision.INSIDE,
        covers=single("V"),
    ),
    fused(
        "logsumexp_backward",
        "logsumexp",
        attrs=_V,
        infer=_lse_backward_type,
        reference=_lse_backward,
        gradient=second_order("logsumexp"),
        linear=in_first,
        cost=costs.per_result(3),
        precision=Precision.INSIDE,
        wide=frozenset({0, 2}),
        covers=single("V"),
    ),
)
