"""cross_entropy and its gradient: loss = logsumexp[V](logits) - logits[V = target], keeping lse alone.

The gradient may be written over the logits, so that no second tensor of their size is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, DType, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, axes
from .common import fused, in_first, second_order, single
from .definition import Array, Build, Precision, Role
from .derive import backward, only
from .numerics import np
from .shapes import (
    agree,
    count,
    floating,
    holds,
    lacks,
    mapped,
    needs_dtype,
    refuse,
    same_axes,
    show,
    statistic,
    without,
)
from .softmaxes import log_sum_exp, normalized


def _loss_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    agree(operands)
    logits, target = operands
    over = attributes.dims(attrs, "V")
    floating(logits)
    needs_dtype(target, DType.I64)
    holds(logits.dims, over)
    lacks(target.dims, over)
    kept = without(logits.dims, over)
    if set(kept) != set(target.dims):
        raise refuse(f"a target for each of {show(kept)} is needed, got {show(target.dims)}", kept, target.dims)
    result = TensorType(kept, statistic(logits.dtype))
    return (result, result)


def _backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 4)
    dloss, logits, target, lse = operands
    (loss, _) = _loss_type((logits, target), attrs)
    same_axes((loss, dloss, lse), "a gradient has the axes of its value")
    return (logits,)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "V"))


# With lse given, a part of V has its own gradient; the target is looked for in it.
def _backward_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, gather=attributes.dims(node.attrs, "V"))


def _is_target(node: Node, ids: Array, ids_dims: tuple[Dim, ...], dims: tuple[Dim, ...]) -> Array:
    (over,) = attributes.dims(node.attrs, "V")
    return align(ids, ids_dims, dims) == align(np.arange(over.size or 0), (over,), dims)


def _cross_entropy(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    logits, target = arrays
    dims = node.uses[0].dims
    over = axes(dims, attributes.dims(node.attrs, "V"))
    lse = log_sum_exp(logits, over).squeeze(over)
    hit = np.where(_is_target(node, target, node.uses[1].dims, dims), logits, 0.0)
    return lse - hit.sum(axis=over), lse


# dlogits = dloss (exp(logits - lse) - [v = target])
def _cross_entropy_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.outs[0].dims
    dloss, logits, _, lse = (align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True))
    hit = _is_target(node, arrays[2], node.uses[2].dims, dims)
    return (dloss * (normalized(logits, lse) - hit),)


def _gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    (dlogits,) = backward(b, node, only(cotangents), *node.uses, node.out(1))
    return [dlogits, None]


_V = {"V": "the dim of the classes"}

LOSSES = (
    fused(
        "cross_entropy",
        "cross_entropy",
        attrs=_V,
        infer=_loss_type,
        reference=_cross_entropy,
        gradient=_gradient,
        roles=_roles,
        cost=costs.widened(4),
        precision=Precision.INSIDE,
        covers=single("V"),
    ),
    fused(
        "cross_entropy_backward",
        "cross_entropy",
        attrs=_V,
        infer=_backward_type,
        reference=_cross_entropy_backward,
        gradient=second_order("cross_entropy"),
        roles=_backward_roles,
        linear=in_first,
        cost=costs.widened(4, operand=1),
        precision=Precision.INSIDE,
        wide=frozenset({0, 3}),
        overwrites=frozenset({1}),
        covers=single("V"),
    ),
)
