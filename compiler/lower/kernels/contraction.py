"""Kernels of contractions and of sums of them: mm and bmm over views, gathered by addmm.

`lower.sum` (made by `lower/sums.py`) is a sum whose parts are tensors, contractions, sums of rows and scatters; it may
add into an accumulator. Each contraction is added in place by the matrix product itself (beta = 1): no temporary, no
second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from ...ir.types import Dim, Dims, Node, Use
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, meta, shape
from .reductions import by_product, over_of, summed

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Roles:
    """How a contraction's dims fall: in both and kept, summed, in the left alone, in the right alone."""

    batch: Dims
    summed: Dims
    left: Dims
    right: Dims

    @staticmethod
    def of(a: Dims, b: Dims, over: Dims) -> Roles:
        """The roles of two operands' dims."""
        summed = tuple(d for d in (a if len(a) >= len(b) else b) if d in over)
        return Roles(
            batch=tuple(d for d in a if d in b and d not in over),
            summed=summed,
            left=tuple(d for d in a if d not in b),
            right=tuple(d for d in b if d not in a),
        )


def matrices(e: Emitter, roles: Roles, a: tuple[Use, Value], b: tuple[Use, Value]) -> tuple[fx.Node, fx.Node]:
    """Both operands as [left, summed] and [summed, right], with a batch axis in front where they have one."""
    front = [roles.batch] if roles.batch else []
    left = e.flatten(e.tensor(a[1], a[0].dtype), a[0].dims, [*front, roles.left, roles.summed])
    right = e.flatten(e.tensor(b[1], b[0].dtype), b[0].dims, [*front, roles.summed, roles.right])
    return left, right


def dot(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """A contraction of two tensors."""
    a, b = node.uses
    over = over_of(node)
    roles = Roles.of(a.dims, b.dims, over)
    if not roles.summed and not roles.batch and not (roles.left and roles.right):
        return [e.call(aten.mul.Tensor, e.tensor(values[0], a.dtype), e.tensor(values[1], b.dtype))]
    if not (roles.batch or roles.left or roles.right):
        # A number: BLAS has a call for it, an order of magnitude faster than a product with one row and one column.
        flat = [e.flatten(e.tensor(v, u.dtype), u.dims, [roles.summed]) for u, v in zip(node.uses, values, strict=True)]
        return [e.call(aten.dot.default, *flat)]
    left, right = matrices(e, roles, (a, values[0]), (b, values[1]))
    product = e.call(aten.bmm.default if roles.batch else aten.mm.default, left, right)
    found = (*roles.batch, *roles.left, *roles.right)
    return [e.permute(e.reshape(product, shape(found)), found, node.outs[0].dims)]


# ---- sums of parts


@dataclass(frozen=True, slots=True)
class Part:
    """One addend of `lower.sum`: which operands it takes and what is done with them."""

    kind: str  # "plain", "dot" (over), "rows" (summed over), "scatter" (over = the scattered dim)
    operands: tuple[int, ...]
    over: Dims


def parts_of(node: Node) -> list[Part]:
    """The addends of a `lower.sum` node."""
    found: list[Part] = []
    position = 0
    for kind, over in cast(tuple[tuple[str, Dims], ...], node.attrs["parts"]):
        width = 1 if kind in ("plain", "rows") else 2
        found.append(Part(kind, tuple(range(position, position + width)), over))
        position += width
    return found


def sum_parts(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """Σ parts, into the accumulator (the last operand) where the node has one, else into what comes cheapest."""
    parts = parts_of(node)
    if node.attrs["accumulates"]:
        total = e.tensor(values[-1], node.uses[-1].dtype)
        for part in parts:
            total = _add_into(e, node, values, part, total)
        return []
    first, total = _base(e, node, values, parts)
    for part in parts:
        if part not in first:
            total = _add_into(e, node, values, part, total)
    return [total]


def _base(e: Emitter, node: Node, values: Sequence[Value], parts: list[Part]) -> tuple[list[Part], fx.Node]:
    """A tensor of the result's shape that may be added into, and the parts that are in it already: a product with its
    bias, else what has that shape, else a product. What dies decides in whose memory, never in which order: in a low
    type the order decides how the sum rounds, and it must be the same whatever else is kept or made again."""
    out = node.outs[0]
    plain = [p for p in parts if p.kind == "plain" and isinstance(values[p.operands[0]], fx.Node)]
    whole = [p for p in plain if node.uses[p.operands[0]].dims == out.dims and _typed(e, node, values, p)]
    product = next((p for p in parts if p.kind == "dot"), None)
    bias = next((p for p in plain if p not in whole and product and _is_bias(node, p, product)), None)
    if product is not None and bias is not None:
        roles, left, right = _matrices(e, node, values, product)
        row = e.spread(e.tensor(values[bias.operands[0]], out.dtype), node.uses[bias.operands[0]].dims, roles.right)
        row = e.reshape(e.expand(row, shape(roles.right)), [count(roles.right)])
        return [bias, product], _shaped(e, roles, e.call(aten.addmm.default, row, left, right), out.dims)
    if whole:
        return _wholes(e, node, values, whole, product)
    if product is not None:
        roles, left, right = _matrices(e, node, values, product)
        return [product], _shaped(e, roles, e.call(aten.mm.default, left, right), out.dims)
    return [], e.full(out.dims, 0, out.dtype)


def _wholes(
    e: Emitter, node: Node, values: Sequence[Value], whole: Sequence[Part], product: Part | None
) -> tuple[list[Part], fx.Node]:
    """Two tensors of the result's shape over one that dies; a lone one that does not, with a product beside it."""
    dying = next((part for part in whole[:2] if e.dies(part.operands[0])), None)
    tensors = [e.tensor(values[part.operands[0]], node.outs[0].dtype) for part in whole[:2]]
    if len(tensors) == 2:
        if dying is whole[1]:
            tensors.reverse()
        return list(whole[:2]), e.call(aten.add.Tensor if dying is None else aten.add_.Tensor, *tensors)
    if dying is not None:
        return [dying], tensors[0]
    if product is None:
        return [whole[0]], e.call(aten.clone.default, tensors[0])
    return [whole[0], product], _plus_product(e, node, values, product, tensors[0], False)


def _plus_product(
    e: Emitter, node: Node, values: Sequence[Value], product: Part, total: fx.Node, owned: bool
) -> fx.Node:
    """total + product, rounded once; over `total` where it is owned and can be seen as a matrix."""
    dims = cast(Dims, node.attrs["dims"])
    roles, left, right = _matrices(e, node, values, product)
    lies = e.viewable(total, dims, [roles.left, roles.right])
    matrix = e.flatten(total, dims, [roles.left, roles.right])
    if e.functional or (lies and not owned):
        return _shaped(e, roles, e.call(aten.addmm.default, matrix, left, right), dims)
    found = e.call(aten.addmm_.default, matrix, left, right)
    return total if lies else _shaped(e, roles, found, dims)


def _is_bias(node: Node, part: Part, product: Part) -> bool:
    """Whether a part is the same for all rows of a product."""
    i, j = product.operands
    right = Roles.of(node.uses[i].dims, node.uses[j].dims, product.over).right
    return set(node.uses[part.operands[0]].dims) <= set(right)


def _typed(e: Emitter, node: Node, values: Sequence[Value], part: Part) -> bool:
    value = values[part.operands[0]]
    return isinstance(value, fx.Node) and meta(value).dtype == TORCH_DTYPES[node.outs[0].dtype]


def _shaped(e: Emitter, roles: Roles, product: fx.Node, dims: Dims) -> fx.Node:
    found = (*roles.left, *roles.right)
    return e.permute(e.reshape(product, shape(found)), found, dims)


def _matrices(e: Emitter, node: Node, values: Sequence[Value], part: Part) -> tuple[Roles, fx.Node, fx.Node]:
    i, j = part.operands
    roles = Roles.of(node.uses[i].dims, node.uses[j].dims, part.over)
    assert not roles.batch, f"{node.id}: a contraction with batch dims does not gather in place"
    return roles, *matrices(e, roles, (node.uses[i], values[i]), (node.uses[j], values[j]))


def _add_into(e: Emitter, node: Node, values: Sequence[Value], part: Part, total: fx.Node) -> fx.Node:
    dims = cast(Dims, node.attrs["dims"])
    add = aten.add.Tensor if e.functional else aten.add_.Tensor
    if part.kind == "plain":
        view = e.align(values[part.operands[0]], node.uses[part.operands[0]].dims, dims)
        return e.call(add, total, view)
    if part.kind == "scatter":
        into = e.call(aten.clone.default, total) if e.functional else total
        return scatter_into(e, node, values, part.operands, part.over[0], into, dims)
    if part.kind == "rows":
        return _add_rows(e, node.uses[part.operands[0]], values[part.operands[0]], part.over, total, dims)
    roles, left, right = _matrices(e, node, values, part)
    if node.attrs["accumulates"] and not e.viewable(total, dims, [roles.left, roles.right]):
        return e.call(add, total, _shaped(e, roles, e.call(aten.mm.default, left, right), dims))
    return _plus_product(e, node, values, part, total, True)


def _add_rows(e: Emitter, use: Use, value: Value, over: Dims, total: fx.Node, dims: Dims) -> fx.Node:
    """total += Σ over the rows of a value: 1ᵀ x, added by the product."""
    x = e.tensor(value, use.dtype)
    inside = not e.functional and meta(x).dtype == meta(total).dtype and e.viewable(total, dims, [(), dims])
    if inside and (product := by_product(e, x, use.dims, over, dims)) is not None:
        e.call(aten.addmm_.default, e.flatten(total, dims, [(), dims]), *product)
        return total
    add = aten.add.Tensor if e.functional else aten.add_.Tensor
    return e.call(add, total, summed(e, x, use.dims, over, dims, meta(total).dtype))


def scatter_into(
    e: Emitter, node: Node, values: Sequence[Value], operands: Sequence[int], dim: Dim, total: fx.Node, dims: Dims
) -> fx.Node:
    """Add rows at ids: index_add_ where the ids share no dim with the result, else scatter_add_."""
    source, ids = (node.uses[i] for i in operands)
    value, index = (e.tensor(values[i], node.uses[i].dtype) for i in operands)
    shared = tuple(d for d in dims if d in ids.dims)
    rest = tuple(d for d in dims if d != dim and d not in shared)
    free = tuple(d for d in ids.dims if d not in shared)
    if not shared:
        rows = e.flatten(value, source.dims, [ids.dims, *[(d,) for d in rest]])
        order = e.permute(total, dims, (dim, *rest))
        e.call(aten.index_add_.default, order, 0, e.reshape(index, [count(ids.dims)]), rows)
        return total
    places = e.reshape(e.permute(index, ids.dims, (*shared, *free)), [*shape(shared), *[1] * len(rest), count(free)])
    places = e.expand(places, [*shape((*shared, *rest)), count(free)])
    rows = e.flatten(value, source.dims, [*[(d,) for d in (*shared, *rest)], free])
    e.call(aten.scatter_add_.default, e.permute(total, dims, (*shared, *rest, dim)), -1, places, rows)
    return total


RULES: dict[str, Rule] = {"dot": dot}
FUSED: dict[str, Rule] = {"lower.sum": sum_parts}
