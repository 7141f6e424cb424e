"""dot: multiply two tensors and sum over the dims of `over`.

Dims that both operands have and `over` lacks are batch dims. The result has the first operand's kept dims in order,
then the second's others. `over` may be empty: an outer product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import einsum
from .common import in_each, primitive
from .definition import Array, Build, Cost, Precision, Role
from .derive import fit, one, only
from .shapes import agree, count, distinct, elements, holds, mapped, same_dtype, without


def _dot_dims(a: tuple[Dim, ...], c: tuple[Dim, ...], over: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return without(a, over) + without(c, a + over)


def _dot_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    agree(operands)
    over = attributes.dims(attrs, "over")
    distinct(over)
    for operand in operands:
        holds(operand.dims, over)
    a, c = operands
    return (TensorType(_dot_dims(a.dims, c.dims, over), same_dtype(operands)),)


def _dot_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, sum=attributes.dims(node.attrs, "over"))


# 2 M N K: a multiply and an add for every element of the result and of `over`.
def _dot_cost(node: Node) -> Cost:
    over = attributes.dims(node.attrs, "over")
    return costs.streamed(node, 2 * elements(node.outs[0].dims) * elements(over))


def _dot(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    a, c = arrays
    return (einsum(node.outs[0].dims, (a, node.uses[0].dims), (c, node.uses[1].dims)),)


def _contract(b: Build, g: Use, other: Use, operand: Use) -> Use:
    """g times `other`, summed over all that `operand` lacks, written so that its axes come out in order if they can."""
    over = tuple(d for d in other.dims if d in g.dims and d not in operand.dims)
    straight = _dot_dims(g.dims, other.dims, over) == operand.dims
    first, second = (g, other) if straight else (other, g)
    return fit(b, one(b, "dot", first, second, over=over), operand)


# y = sum[over](a c)   da = sum[dims of c that a lacks](g c), dc = sum[dims of a that c lacks](g a)
def _dot_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    return [_contract(b, g, c, a) if wanted[0] else None, _contract(b, g, a, c) if wanted[1] else None]


CONTRACTION = (
    primitive(
        "dot",
        attrs={"over": "the dims that are multiplied and summed"},
        infer=_dot_type,
        reference=_dot,
        gradient=_dot_gradient,
        roles=_dot_roles,
        linear=in_each,
        cost=_dot_cost,
        precision=Precision.CONTRACTION,
    ),
)
