"""Several tensors to one and back: stack and unstack along a new dim, concat and split along a dim of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align
from .common import in_all, in_first, primitive
from .definition import Array, Build, Role
from .derive import like, one
from .numerics import np
from .shapes import agree, count, distinct, elements, holds, lacks, mapped, refuse, replace, same_dtype, show


def _filled(b: Build, node: Node, cotangents: Cotangents) -> list[Use]:
    """The cotangents, zeros for results that nothing uses."""
    some = next(c for c in cotangents if c is not None)
    return [c if c is not None else like(b, 0, some, t.dims) for c, t in zip(cotangents, node.outs, strict=True)]


def _stack_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    dim = attributes.dim(attrs, "dim")
    agree(operands)
    if dim.size != len(operands):
        raise refuse(f"{len(operands)} operands do not fill {show((dim,))}", (dim,))
    lacks(operands[0].dims, (dim,))
    for other in operands[1:]:
        if set(other.dims) != set(operands[0].dims):
            first = operands[0].dims
            raise refuse(f"{show(first)} met {show(other.dims)}: all must have the same axes", first, other.dims)
    return (TensorType((dim, *operands[0].dims), same_dtype(operands)),)


def _along(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=(attributes.dim(node.attrs, "dim"),))


def _stack(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dims = node.outs[0].dims[1:]
    return (np.stack([align(a, u.dims, dims) for a, u in zip(arrays, node.uses, strict=True)]),)


# y = stack[P](a, c, …)        da, dc, … = unstack[P](g)
def _stack_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    (g,) = cotangents
    assert g is not None, "a rule is asked for a gradient without a cotangent of the result"
    parts = b("unstack", g, dim=attributes.dim(node.attrs, "dim"))
    return [
        (part if part.dims == use.dims else one(b, "transpose", part, dims=use.dims)) if want else None
        for part, use, want in zip(parts, node.uses, wanted, strict=True)
    ]


def _unstack_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim = attributes.dim(attrs, "dim")
    holds(operands[0].dims, (dim,))
    if dim.size is None:
        raise refuse(f"{dim.name} must have a size to be unstacked", operands[0].dims)
    return (TensorType(replace(operands[0].dims, dim, ()), operands[0].dtype),) * dim.size


def _unstack(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    at = node.uses[0].dims.index(attributes.dim(node.attrs, "dim"))
    return tuple(np.moveaxis(arrays[0], at, 0))


# a, c, … = unstack[P](x)      dx = stack[P](da, dc, …), zeros for what is not used
def _unstack_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    stacked = one(b, "stack", *_filled(b, node, cotangents), dim=attributes.dim(node.attrs, "dim"))
    x = node.uses[0]
    return [stacked if stacked.dims == x.dims else one(b, "transpose", stacked, dims=x.dims)]


def _check_parts(dim: Dim, parts: Dims) -> None:
    sizes = [p.size for p in parts]
    if dim.size is not None and None not in sizes and sum(s or 0 for s in sizes) != dim.size:
        raise refuse(f"{show(parts)} end to end are not {show((dim,))}", parts, (dim,))


def _concat_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    dim, parts = attributes.dim(attrs, "dim"), attributes.dims(attrs, "parts")
    count(operands, len(parts))
    agree(operands)
    _check_parts(dim, parts)
    found: list[Dims] = []
    for operand, part in zip(operands, parts, strict=True):
        holds(operand.dims, (part,))
        found.append(replace(operand.dims, part, (dim,)))
        distinct(found[-1])
        if set(found[-1]) != set(found[0]):
            first = operands[0].dims
            raise refuse(f"{show(first)} met {show(operand.dims)}: the other axes must agree", first, operand.dims)
    return (TensorType(found[0], same_dtype(operands)),)


def _parts_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=(attributes.dim(node.attrs, "dim"), *attributes.dims(node.attrs, "parts")))


def _concat(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dim, parts, out = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "parts"), node.outs[0].dims
    pieces = zip(arrays, node.uses, parts, strict=True)
    rows = [align(a, u.dims, replace(out, dim, (part,))) for a, u, part in pieces]
    return (np.concatenate(rows, axis=out.index(dim)),)


# y = concat(a, c, …)          da, dc, … = split(g)
def _concat_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    (g,) = cotangents
    assert g is not None, "a rule is asked for a gradient without a cotangent of the result"
    dim, parts = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "parts")
    found = b("split", g, dim=dim, parts=parts)
    return [
        (piece if piece.dims == use.dims else one(b, "transpose", piece, dims=use.dims)) if want else None
        for piece, use, want in zip(found, node.uses, wanted, strict=True)
    ]


def _split_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim, parts = attributes.dim(attrs, "dim"), attributes.dims(attrs, "parts")
    holds(operands[0].dims, (dim,))
    _check_parts(dim, parts)
    found = [replace(operands[0].dims, dim, (part,)) for part in parts]
    for dims in found:
        distinct(dims)
    return tuple(TensorType(dims, operands[0].dtype) for dims in found)


def _split(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dim, parts = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "parts")
    ends = np.cumsum([elements((p,)) for p in parts])[:-1]
    return tuple(np.split(arrays[0], ends, axis=node.uses[0].dims.index(dim)))


# a, c, … = split(x)           dx = concat(da, dc, …), zeros for what is not used
def _split_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    dim, parts = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "parts")
    return [one(b, "concat", *_filled(b, node, cotangents), dim=dim, parts=parts)]


_DIM = {"dim": "the dim that counts the operands"}
_PARTS = {"dim": "the whole", "parts": "its pieces, end to end"}

JOINING = (
    primitive(
        "stack",
        attrs=_DIM,
        infer=_stack_type,
        reference=_stack,
        gradient=_stack_gradient,
        roles=_along,
        linear=in_all,
        cost=costs.per_result(0),
    ),
    primitive(
        "unstack",
        attrs={"dim": "the dim that counts the results"},
        infer=_unstack_type,
        reference=_unstack,
        gradient=_unstack_gradient,
        roles=_along,
        linear=in_first,
        cost=costs.free,
    ),
    primitive(
        "concat",
        attrs=_PARTS,
        infer=_concat_type,
        reference=_concat,
        gradient=_concat_gradient,
        roles=_parts_roles,
        linear=in_all,
        cost=costs.per_result(0),
    ),
    primitive(
        "split",
        attrs=_PARTS,
        infer=_split_type,
        reference=_split,
        gradient=_split_gradient,
        roles=_parts_roles,
        linear=in_first,
        cost=costs.free,
    ),
)
