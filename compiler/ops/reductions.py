"""sum and max over any dims. (A mean is a sum times a constant; logsumexp is a kernel function.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import axes
from .common import in_first, primitive
from .definition import Array, Build, Precision, Role
from .derive import one, only
from .shapes import agree, count, distinct, holds, mapped, without


def _reduced(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    over = attributes.dims(attrs, "over")
    distinct(over)
    holds(operands[0].dims, over)
    return (TensorType(without(operands[0].dims, over), operands[0].dtype),)


def _sum_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, sum=attributes.dims(node.attrs, "over"))


def _max_roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, max=attributes.dims(node.attrs, "over"))


def _over(node: Node) -> tuple[int, ...]:
    return axes(node.uses[0].dims, attributes.dims(node.attrs, "over"))


def _sum(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (arrays[0].sum(axis=_over(node)),)


def _max(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (arrays[0].max(axis=_over(node)),)


# y = sum[over](x)     dx = g, along every dim of `over`
def _sum_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [one(b, "expand", only(cotangents), dims=node.uses[0].dims)]


# y = max[over](x)     dx = [x = y] g / n, with n = sum[over][x = y]: ties share equally, as PyTorch's amax does
def _max_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    x: Use = node.uses[0]
    hit = one(b, "cast", one(b, "eq", x, node.out()), to=x.dtype)
    ties = one(b, "sum", hit, over=attributes.dims(node.attrs, "over"))
    return [one(b, "mul", hit, one(b, "div", g, ties))]


_OVER = {"over": "the dims that are reduced"}

REDUCTIONS = (
    primitive(
        "sum",
        attrs=_OVER,
        infer=_reduced,
        reference=_sum,
        gradient=_sum_gradient,
        roles=_sum_roles,
        linear=in_first,
        cost=costs.per_element(1),
        precision=Precision.HIGH,
    ),
    primitive(
        "max",
        attrs=_OVER,
        infer=_reduced,
        reference=_max,
        gradient=_max_gradient,
        roles=_max_roles,
        cost=costs.per_element(1),
    ),
)
