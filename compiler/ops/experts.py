"""Sparse mixtures: dispatch sorts picked (token, expert) pairs into rows; grouped products give each row its expert.

dispatch(pick)[.., P] = token, expert: the pairs that are picked, by expert, then by token; every token has k of them.
grouped_dot(x, w, ids) contracts row p with w[E = ids[p]]; grouped_outer, its gradient in w, sums the outer products of
the rows that belong to each member of E. A row whose id is beyond E is 0, and in no sum. The kernels want ids that
ascend along their last dim, as dispatch gives them, so that an expert's rows lie together (Gale et al. 2022,
MegaBlocks, section 4: no capacity, no token dropped, no padding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, einsum, permute
from .common import primitive
from .definition import Array, Build, Cost, NotDifferentiable, Precision, Role
from .derive import fit, one, only
from .numerics import np
from .shapes import agree, count, distinct, elements, holds, lacks, mapped, needs_dtype, refuse, same_dtype, without

# ---- dispatch


def _dispatch_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    needs_dtype(operands[0], DType.BOOL)
    dim, experts, into, k = (attributes.dim(attrs, "dim"), attributes.dim(attrs, "experts"),
                             attributes.dim(attrs, "into"), attributes.number(attrs, "k"))  # fmt: skip
    holds(operands[0].dims, (dim, experts))
    distinct((dim, experts))
    rest = without(operands[0].dims, (dim, experts))
    lacks(rest, (into,))
    if dim.size is not None and into.size != dim.size * int(k):
        raise refuse(f"{int(k)} of {experts.name} for each of {dim.name} are not {into.size} rows", operands[0].dims)
    return (TensorType((*rest, into), DType.I64),) * 2


def _dispatch_roles(node: Node) -> Mapping[Dim, Role]:
    whole = (attributes.dim(node.attrs, name) for name in ("dim", "experts", "into"))
    return mapped(node, whole=whole)


def _dispatch(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dim, experts = attributes.dim(node.attrs, "dim"), attributes.dim(node.attrs, "experts")
    dims = node.uses[0].dims
    pick = permute(arrays[0], dims, (*without(dims, (dim, experts)), experts, dim))
    many, each = pick.shape[-1] * int(attributes.number(node.attrs, "k")), pick.shape[:-2]
    found = np.nonzero(pick.reshape(-1, *pick.shape[-2:]))
    assert found[0].size == many * int(np.prod(each)), f"{node.id}: another number of experts than k"
    return found[2].reshape(*each, many), found[1].reshape(*each, many)


# ---- grouped products


def _dot_dims(x: Dims, w: Dims, dim: Dim, over: Dims) -> Dims:
    return without(x, over) + without(w, (dim, *over, *x))


def _dot_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 3)
    agree(operands)
    x, w, ids = operands
    dim, over = attributes.dim(attrs, "dim"), attributes.dims(attrs, "over")
    needs_dtype(ids, DType.I64)
    holds(w.dims, (dim, *over))
    holds(x.dims, (*over, *ids.dims))
    lacks(x.dims, (dim,))
    lacks((*w.dims, *over), ids.dims)
    return (TensorType(_dot_dims(x.dims, w.dims, dim, over), same_dtype((x, w))),)


def _dot_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, gather=(attributes.dim(node.attrs, "dim"),), sum=attributes.dims(node.attrs, "over"))


def _dot(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    x, w, ids = arrays
    dim, (x_use, w_use, ids_use) = attributes.dim(node.attrs, "dim"), node.uses
    known = ids < elements((dim,))
    x = x * align(known, ids_use.dims, x_use.dims)
    mine = w.take(np.where(known, ids, 0).reshape(-1), axis=w_use.dims.index(dim))  # [.., rows, ..] where E was
    others = without(w_use.dims, (dim,))
    mine = np.moveaxis(mine, w_use.dims.index(dim), 0).reshape(*ids.shape, *(elements((d,)) for d in others))
    return (einsum(node.outs[0].dims, (x, x_use.dims), (mine, ids_use.dims + others)),)


def _sorted_bytes(ids: Use, *tensors: TensorType) -> int:
    """Where ids are several lists, rows are put in the order of the experts first: that order, and copies in it."""
    several = elements(ids.dims[:-1]) > 1
    return costs.bytes_of(ids.type) + sum(map(costs.bytes_of, tensors)) if several else 0


# A multiply and an add for every element of the result and of `over`: each row sees one expert alone. Rows are copied
# before they are multiplied, or what they become after.
def _dot_cost(node: Node) -> Cost:
    flops = 2 * elements(node.outs[0].dims) * elements(attributes.dims(node.attrs, "over"))
    larger = max(node.uses[0].type, node.outs[0], key=costs.bytes_of)
    return costs.streamed(node, flops, _sorted_bytes(node.uses[2], larger))


# y[p] = sum[over](x[p] w[ids[p]])   dx[p] = sum(g[p] w[ids[p]]), dw[e] = sum over p with ids[p] = e of x[p] g[p]
def _dot_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    x, w, ids = node.uses
    dim = attributes.dim(node.attrs, "dim")
    return [
        fit(b, _contract(b, g, w, ids, dim, x), x) if wanted[0] else None,
        one(b, "grouped_outer", x, g, ids, dim=dim, dims=w.dims) if wanted[1] else None,
        None,
    ]


def _contract(b: Build, g: Use, w: Use, ids: Use, dim: Dim, wanted: Use) -> Use:
    """Each row of g times its expert's w, summed over all that `wanted` lacks."""
    over = tuple(d for d in w.dims if d in g.dims and d not in wanted.dims)
    return one(b, "grouped_dot", g, w, ids, dim=dim, over=over)


def _outer_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 3)
    a, g, ids = operands
    dim, dims = attributes.dim(attrs, "dim"), attributes.dims(attrs, "dims")
    agree((*operands, TensorType(dims, a.dtype)))
    needs_dtype(ids, DType.I64)
    holds(dims, (dim,))
    lacks((*a.dims, *g.dims), (dim,))
    lacks(dims, ids.dims)
    holds(a.dims, ids.dims)
    holds(g.dims, ids.dims)
    holds((*a.dims, *g.dims), without(dims, (dim,)))
    summed = without((*a.dims, *g.dims), (*dims, *ids.dims))
    holds(a.dims, summed)
    holds(g.dims, summed)
    return (TensorType(dims, same_dtype((a, g))),)


def _outer_roles(node: Node) -> Mapping[Dim, Role]:
    summed = [d for use in node.uses for d in without(use.dims, node.outs[0].dims)]
    return mapped(node, gather=(attributes.dim(node.attrs, "dim"),), sum=summed)


def _outer(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    a, g, ids = arrays
    dim, (a_use, g_use, ids_use) = attributes.dim(node.attrs, "dim"), node.uses
    dims = node.outs[0].dims
    parts = [
        einsum(without(dims, (dim,)), (a * align(ids == e, ids_use.dims, a_use.dims), a_use.dims), (g, g_use.dims))
        for e in range(elements((dim,)))
    ]
    return (np.stack(parts, axis=dims.index(dim)),)


def _outer_cost(node: Node) -> Cost:
    a, g, ids = node.uses
    return costs.streamed(node, 2 * elements(dict.fromkeys(a.dims + g.dims)), _sorted_bytes(ids, a.type, g.type))


# y[e] = sum over p with ids[p] = e of a[p] g[p]   da[p] = sum(g[p] c[ids[p]]), dg[p] = sum(a[p] c[ids[p]])
def _outer_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    c = only(cotangents)
    a, g, ids = node.uses
    dim = attributes.dim(node.attrs, "dim")
    return [
        fit(b, _contract(b, g, c, ids, dim, a), a) if wanted[0] else None,
        fit(b, _contract(b, a, c, ids, dim, g), g) if wanted[1] else None,
        None,
    ]


def _in_both(node: Node) -> tuple[frozenset[int], ...]:
    return (frozenset({0}), frozenset({1}))


EXPERTS = (
    primitive(
        "dispatch",
        attrs={
            "dim": "the tokens, which are sorted",
            "experts": "what they are sorted by",
            "into": "the rows: k for each token",
            "k": "how many experts each token has",
        },
        infer=_dispatch_type,
        reference=_dispatch,
        gradient=NotDifferentiable("positions have no gradient"),
        roles=_dispatch_roles,
        cost=costs.per_element(1),
        precision=Precision.EXACT,
    ),
    primitive(
        "grouped_dot",
        attrs={"dim": "the dim of the second operand that ids stand for", "over": "what is multiplied and summed"},
        infer=_dot_type,
        reference=_dot,
        gradient=_dot_gradient,
        roles=_dot_roles,
        linear=_in_both,
        cost=_dot_cost,
        precision=Precision.CONTRACTION,
    ),
    primitive(
        "grouped_outer",
        attrs={"dim": "the result's dim that ids stand for", "dims": "the axes of the result"},
        infer=_outer_type,
        reference=_outer,
        gradient=_outer_gradient,
        roles=_outer_roles,
        linear=_in_both,
        cost=_outer_cost,
        precision=Precision.CONTRACTION,
    ),
)
