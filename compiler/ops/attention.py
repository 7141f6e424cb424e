"""attention and its gradient: y = softmax[S](mask(scale q k)) v; lse is kept instead of the T x S weights.

Operands: q[.., T, G, R, K], k[.., S, G, K], v[.., S, G, K], then `keep` (bool) if given, then, where rows hold several
documents, the numbers of the queries' and of the keys' documents (i64 [.., T] and [.., S]: a query sees its own
document alone), then, for a causal mask, the global starts of T and of S. Results: y like q, and lse like q without K.
Each of the G key-value heads serves R query heads. Parts along S join by log-sum-exp (Dao et al. 2022):
lse = log sum exp(lse_i), y = sum exp(lse_i - lse) y_i; so S is an LSE dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, axes, einsum
from .common import fused, in_first, second_order, single
from .definition import Array, Build, Cost, Precision, Role
from .derive import backward, only
from .numerics import np
from .shapes import (
    agree,
    count,
    elements,
    floating,
    holds,
    lacks,
    mapped,
    needs_dtype,
    refuse,
    same_axes,
    same_dtype,
    show,
    statistic,
    without,
)
from .softmaxes import log_sum_exp, normalized


def _formal(attrs: Mapping[str, Attr], names: str) -> Dims:
    return tuple(d for name in names for d in attributes.dims(attrs, name))


def _check_extras(extras: Sequence[TensorType], attrs: Mapping[str, Attr]) -> None:
    """After q, k, v: `keep`, then the documents of queries and keys, then starts."""
    integers = [e for e in extras if e.dtype != DType.BOOL]
    for one in integers:
        needs_dtype(one, DType.I64)
    starts, documents = [e for e in integers if not e.dims], [e for e in integers if e.dims]
    if documents:
        count(documents, 2)
        for one, formal in zip(documents, "TS", strict=True):
            holds(one.dims, _formal(attrs, formal))
    if attributes.text(attrs, "mask") == "causal" and len(starts) < 2:
        raise refuse(f"a causal mask needs the starts of T and S, got {len(starts)}")


def _attention_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 3, 16)
    agree(operands)
    q, k, v, *extras = operands
    floating(q)
    same_dtype((q, k, v))
    holds(q.dims, _formal(attrs, "TGRK"))
    lacks(q.dims, _formal(attrs, "S"))
    for other in (k, v):
        holds(other.dims, _formal(attrs, "SGK"))
        lacks(other.dims, _formal(attrs, "TR"))
        if set(without(other.dims, _formal(attrs, "S"))) > set(q.dims):
            raise refuse(f"{show(other.dims)} has axes that the queries {show(q.dims)} lack", other.dims, q.dims)
    _check_extras(extras, attrs)
    return (q, TensorType(without(q.dims, _formal(attrs, "K")), statistic(q.dtype)))


def _backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 6, 19)
    dy, q, k, v, y, lse, *extras = operands
    row = _attention_type((q, k, v, *extras), attrs)[1]
    same_axes((q, dy, y), "a gradient has the axes of its value")
    same_axes((row, lse), "lse has the axes of the queries without K")
    return (q, k, v)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=_formal(node.attrs, "K"), lse=_formal(node.attrs, "S"))


# With y and lse given, parts along S are independent: dk and dv are cut alike, dq owes a sum; along T it is dq that is
# cut and dk and dv that owe.
def _backward_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=_formal(node.attrs, "K"))


def _score_count(node: Node, q: Use) -> int:
    return elements(without(q.dims, _formal(node.attrs, "K"))) * elements(_formal(node.attrs, "S"))


# Two dots, 2 T S K each for every head; a causal mask is counted full, as is the custom in counting models' FLOPs.
def _cost(node: Node) -> Cost:
    scores = _score_count(node, node.uses[0])
    return costs.streamed(node, 4 * scores * elements(_formal(node.attrs, "K")))


# Four dots (dv, dp, dq, dk); the fused kernel's second computation of the scores is its own business and not counted.
def _backward_cost(node: Node) -> Cost:
    scores = _score_count(node, node.uses[1])
    return costs.streamed(node, 8 * scores * elements(_formal(node.attrs, "K")))


def _covers(node: Node) -> bool:
    masks = node.attrs["mask"] in ("full", "causal")
    kept = any(u.dtype == DType.BOOL for u in node.uses)
    return masks and not kept and node.attrs["score"] is None and node.attrs["drop"] == 0 and single(*"TSGRK")(node)


def _masked_scores(node: Node, q: tuple[Array, Dims], k: tuple[Array, Dims], extras: list[tuple[Array, Use]]) -> Array:
    """scale q k over [queries' dims without K, S], -inf where the mask or `keep` says no."""
    attrs = node.attrs
    assert attrs["score"] is None and attrs["drop"] == 0, f"{node.id}: computed by its body"
    dims = _score_dims(node, q[1])
    scores = einsum(dims, q, k) * attributes.number(attrs, "scale")
    starts = [a for a, u in extras if u.dtype != DType.BOOL and not u.dims]
    documents = [align(a, u.dims, dims) for a, u in extras if u.dtype != DType.BOOL and u.dims]
    if documents:
        scores = np.where(documents[0] == documents[1], scores, -np.inf)
    for keep, use in extras:
        if use.dtype == DType.BOOL:
            scores = np.where(align(keep, use.dims, dims), scores, -np.inf)
    mask = attributes.text(attrs, "mask")
    if mask == "causal":
        (time,), (source,) = attributes.dims(attrs, "T"), attributes.dims(attrs, "S")
        rows = starts[0] + align(np.arange(elements((time,))), (time,), dims)
        columns = starts[1] + align(np.arange(elements((source,))), (source,), dims)
        return np.where(rows >= columns, scores, -np.inf)
    assert mask == "full", f"{node.id}: mask {mask} is computed by its body"
    return scores


def _score_dims(node: Node, q: Dims) -> Dims:
    return without(q, _formal(node.attrs, "K")) + _formal(node.attrs, "S")


def _attention(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    q, k, v, *extras = zip(arrays, [u.dims for u in node.uses], strict=True)
    pairs = [(a, u) for (a, _), u in zip(extras, node.uses[3:], strict=True)]
    scores = _masked_scores(node, q, k, pairs)
    dims = _score_dims(node, q[1])
    over = axes(dims, _formal(node.attrs, "S"))
    lse = log_sum_exp(scores, over)
    return einsum(node.outs[0].dims, (normalized(scores, lse), dims), v), lse.squeeze(over)


# p = exp(s - lse):   dv = sum(p dy),  dp = dy v,  ds = p (dp - sum[K](dy y)),  dq = scale ds k,  dk = scale ds q
def _attention_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dy, q, k, v, y, lse, *extras = zip(arrays, [u.dims for u in node.uses], strict=True)
    pairs = [(a, u) for (a, _), u in zip(extras, node.uses[6:], strict=True)]
    dims = _score_dims(node, q[1])
    p = normalized(_masked_scores(node, q, k, pairs), align(*lse, dims))
    delta = einsum(lse[1], (dy[0] * y[0], dy[1]))
    ds = p * (einsum(dims, dy, v) - align(delta, lse[1], dims)) * attributes.number(node.attrs, "scale")
    dq = einsum(q[1], (ds, dims), k)
    dk = einsum(k[1], (ds, dims), q)
    return dq, dk, einsum(v[1], (p, dims), dy)


def _gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    q, k, v, *extras = node.uses
    operands = (only(cotangents), q, k, v, node.out(0), node.out(1), *extras)
    found = backward(b, node, *operands)
    return [*found, *[None] * len(extras)]


_ATTRS = {
    "T": "the queries' positions",
    "S": "the keys' positions",
    "K": "the channels of a head",
    "G": "groups of heads, one key-value head each",
    "R": "query heads in a group",
    "mask": "which keys a query sees: a function of positions, as text",
    "score": "a function of the scores, as text, or None",
    "scale": "what the scores are multiplied by",
    "drop": "the share of weights that is dropped",
}

ATTENTION = (
    fused(
        "attention",
        "attention",
        attrs=_ATTRS,
        infer=_attention_type,
        reference=_attention,
        gradient=_gradient,
        roles=_roles,
        cost=_cost,
        precision=Precision.CONTRACTION,
        covers=_covers,
    ),
    fused(
        "attention_backward",
        "attention",
        attrs=_ATTRS,
        infer=_backward_type,
        reference=_attention_backward,
        gradient=second_order("attention"),
        roles=_backward_roles,
        linear=in_first,
        cost=_backward_cost,
        precision=Precision.CONTRACTION,
        wide=frozenset({5}),
        covers=_covers,
    ),
)
