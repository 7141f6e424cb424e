"""linear_cross_entropy: the head's product, the loss on it and both gradients of the product, some rows at a time.

    z = Σ[D] h w,   loss = logsumexp[V](z) - z[V = target],   dz = dloss (exp(z - lse) - [v = target])
    dh = Σ[V] dz w,   dw = Σ[rows] dz h

Where the loss's cotangent is known before the loss is, no more than `rows` rows of z ever lie in memory; the tensors
of V elements a row are the largest of a language model. Rows one after another as in Liger Kernel (arXiv 2410.10989,
section 3.2). Of low operands the loss and dw, which is a sum over all rows, are wide. The pass `fuse_loss` makes it;
nobody writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, DType, Node, TensorType
from . import attributes, costs
from .arrays import align, einsum
from .common import primitive, second_order
from .definition import Array, Cost, Precision, Role
from .numerics import np
from .shapes import (
    agree,
    count,
    elements,
    floating,
    holds,
    mapped,
    needs_dtype,
    refuse,
    same_dtype,
    show,
    statistic,
    without,
)
from .softmaxes import log_sum_exp


def _type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 4)
    agree(operands)
    hidden, weight, target, dloss = operands
    summed, classes = attributes.dim(attrs, "D"), attributes.dim(attrs, "V")
    floating(hidden)
    same_dtype((hidden, weight))
    needs_dtype(target, DType.I64)
    wide = statistic(hidden.dtype)
    needs_dtype(dloss, wide)
    holds(hidden.dims, (summed,))
    rows = without(hidden.dims, (summed,))
    if set(weight.dims) != {summed, classes}:
        raise refuse(f"the weight must be {show((classes, summed))}, got {show(weight.dims)}", weight.dims)
    if set(target.dims) != set(rows) or not set(dloss.dims) <= set(rows):
        raise refuse(f"a target for each of {show(rows)} is needed, got {show(target.dims)}", rows, target.dims)
    return (TensorType(rows, wide), hidden, TensorType(weight.dims, wide))


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=(attributes.dim(node.attrs, "D"), attributes.dim(node.attrs, "V")))


# Three contractions of 2 rows D V. The softmax between them is 4 operations an element, left out: model FLOPs count
# contractions alone, and against 6 D of them it is nothing.
def _cost(node: Node) -> Cost:
    hidden = node.uses[0]
    classes, rows = elements((attributes.dim(node.attrs, "V"),)), elements(node.outs[0].dims)
    at_once = min(rows, int(attributes.number(node.attrs, "rows")))
    workspace_bytes = at_once * classes * hidden.dtype.itemsize_bytes
    return costs.streamed(node, 6 * elements(hidden.dims) * classes, workspace_bytes)


def _reference(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    hidden, weight, target, dloss = arrays
    classes = attributes.dim(node.attrs, "V")
    h, w, t, d = (use.dims for use in node.uses)
    rows = node.outs[0].dims
    dims = (*rows, classes)
    z = einsum(dims, (hidden, h), (weight, w))
    lse = log_sum_exp(z, (-1,))
    hit = align(target, t, dims) == align(np.arange(classes.size or 0), (classes,), dims)
    loss = (lse - np.where(hit, z, 0.0).sum(axis=-1, keepdims=True)).squeeze(-1)
    dz = align(dloss, d, dims) * (np.exp(z - lse) - hit)
    return loss, einsum(node.outs[1].dims, (dz, dims), (weight, w)), einsum(node.outs[2].dims, (dz, dims), (hidden, h))


FUSED_LOSS = (
    primitive(
        "linear_cross_entropy",
        attrs={
            "D": "the dim that is contracted",
            "V": "the dim of the classes",
            "rows": "how many are taken at a time",
        },
        infer=_type,
        reference=_reference,
        gradient=second_order("linear_cross_entropy"),
        roles=_roles,
        cost=_cost,
        precision=Precision.CONTRACTION,
    ),
)
