"""Views of one tensor: split_dim, merge_dims, expand, transpose. They compute nothing; each is another's gradient.

A split dim and the first of its parts are one axis for a partition: both are MAP, and cutting one cuts the other
(`axis_pair`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align, permute
from .common import in_first, primitive
from .definition import Array, Build, Role
from .derive import fit, one, only
from .numerics import np
from .shapes import agree, count, distinct, elements, holds, lacks, mapped, product, refuse, replace, show, without


def _same_size(whole: Dim, parts: Dims) -> None:
    size = product(parts)
    if whole.size is not None and size is not None and size != whole.size:
        raise refuse(f"{show((whole,))} is not {show(parts)}, which has {size} elements", (whole,), parts)


def _split_dim_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim, into = attributes.dim(attrs, "dim"), attributes.dims(attrs, "into")
    holds(operands[0].dims, (dim,))
    distinct(into)
    lacks(without(operands[0].dims, (dim,)), into)
    _same_size(dim, into)
    return (TensorType(replace(operands[0].dims, dim, into), operands[0].dtype),)


def _split_dim_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "into")[1:])


def _split_dim(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (arrays[0].reshape([elements((d,)) for d in node.outs[0].dims]),)


def merged(dims: Dims, parts: Dims, into: Dim) -> Dims:
    """The result of a merge: it stands where the first of the merged dims stood."""
    at = min(dims.index(d) for d in parts)
    before = without(dims[:at], parts)
    return (*before, into, *without(dims[at:], parts))


def _merge_dims_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    parts, into = attributes.dims(attrs, "dims"), attributes.dim(attrs, "into")
    distinct(parts)
    holds(operands[0].dims, parts)
    lacks(without(operands[0].dims, parts), (into,))
    _same_size(into, parts)
    return (TensorType(merged(operands[0].dims, parts, into), operands[0].dtype),)


def _merge_dims_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "dims")[1:])


def _merge_dims(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    parts, into = attributes.dims(node.attrs, "dims"), attributes.dim(node.attrs, "into")
    unmerged = replace(node.outs[0].dims, into, parts)
    x = permute(arrays[0], node.uses[0].dims, unmerged)
    return (x.reshape([elements((d,)) for d in node.outs[0].dims]),)


def axis_pair(node: Node) -> tuple[Dim, Dim] | None:
    """For a split or a merge: the long dim and the first (slowest) of its parts, which are cut together."""
    if node.op == "split_dim":
        return attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "into")[0]
    if node.op == "merge_dims":
        return attributes.dim(node.attrs, "into"), attributes.dims(node.attrs, "dims")[0]
    return None


# y = x[D -> (A B)]    dx = g[(A B) -> D]
def _split_dim_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    dim, into = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "into")
    return [one(b, "merge_dims", only(cotangents), dims=into, into=dim)]


# y = x[(A B) -> D]    dx = g[D -> (A B)], the parts back where they stood
def _merge_dims_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    parts, into = attributes.dims(node.attrs, "dims"), attributes.dim(node.attrs, "into")
    return [fit(b, one(b, "split_dim", only(cotangents), dim=into, into=parts), node.uses[0])]


def _expand_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    dims = attributes.dims(attrs, "dims")
    agree((TensorType(dims, operands[0].dtype), operands[0]))
    holds(dims, operands[0].dims)
    return (TensorType(dims, operands[0].dtype),)


def _expand(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    out = node.outs[0].dims
    x = align(arrays[0], node.uses[0].dims, out)
    return (np.broadcast_to(x, [elements((d,)) for d in out]),)


# y = x, again and again along new dims        dx = sum[new dims](g)
def _expand_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [fit(b, only(cotangents), node.uses[0])]


def _transpose_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    dims = attributes.dims(attrs, "dims")
    distinct(dims)
    if set(dims) != set(operands[0].dims):
        raise refuse(f"{show(dims)} is not an order of {show(operands[0].dims)}", dims, operands[0].dims)
    return (TensorType(dims, operands[0].dtype),)


def _transpose(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (permute(arrays[0], node.uses[0].dims, node.outs[0].dims),)


STRUCTURE = (
    primitive(
        "split_dim",
        attrs={"dim": "the dim that is split", "into": "its parts, the slowest first"},
        infer=_split_dim_type,
        reference=_split_dim,
        gradient=_split_dim_gradient,
        roles=_split_dim_roles,
        linear=in_first,
        cost=costs.free,
    ),
    primitive(
        "merge_dims",
        attrs={"dims": "the dims that are merged, the slowest first", "into": "the dim that they become"},
        infer=_merge_dims_type,
        reference=_merge_dims,
        gradient=_merge_dims_gradient,
        roles=_merge_dims_roles,
        linear=in_first,
        cost=costs.free,
    ),
    primitive(
        "expand",
        attrs={"dims": "the axes of the result, in order"},
        infer=_expand_type,
        reference=_expand,
        gradient=_expand_gradient,
        linear=in_first,
        cost=costs.free,
    ),
    primitive(
        "transpose",
        attrs={"dims": "the axes in their new order"},
        infer=_transpose_type,
        reference=_transpose,
        gradient=_expand_gradient,
        linear=in_first,
        cost=costs.free,
    ),
)
