"""Comparisons, logic, and what stands between types: eq ne lt le gt ge, logical_*, where, cast, stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir.types import Attr, DType, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents, Pointwise, elementwise_type, pointwise
from .arrays import aligned
from .common import in_first, primitive
from .definition import Array, Build, NotDifferentiable, OpDef, Precision
from .derive import fit, like, one, only
from .leaves import numpy_dtype
from .numerics import np
from .shapes import agree, count, needs_dtype, same_dtype, union

_TRUTH = NotDifferentiable("truth values have no gradient")


def _compare_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    (found,) = elementwise_type(2, 2)(operands, attrs)
    return (TensorType(found.dims, DType.BOOL),)


def _logical_type(operands: int) -> Callable[..., tuple[TensorType, ...]]:
    def infer(types: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
        found = elementwise_type(operands, operands)(types, attrs)
        needs_dtype(types[0], DType.BOOL)
        return found

    return infer


def _compare(name: str, compute: Callable[[Array, Array], Any]) -> OpDef:
    return primitive(name, infer=_compare_type, reference=pointwise(compute), gradient=_TRUTH)


def _logical(name: str, operands: int, compute: Pointwise) -> OpDef:
    return primitive(name, infer=_logical_type(operands), reference=pointwise(compute), gradient=_TRUTH)


def _where_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 3)
    agree(operands)
    needs_dtype(operands[0], DType.BOOL)
    return (TensorType(union([o.dims for o in operands]), same_dtype(operands[1:])),)


# y = c ? a : e        da = c ? g : 0, de = c ? 0 : g
def _where_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    c, a, e = node.uses
    zero = like(b, 0, g)
    return [
        None,
        fit(b, one(b, "where", c, g, zero), a) if wanted[1] else None,
        fit(b, one(b, "where", c, zero, g), e) if wanted[2] else None,
    ]


def _choose(c: Array, a: Array, e: Array) -> Array:
    return np.where(c, a, e)


def _where_linear(node: Node) -> tuple[frozenset[int], ...]:
    return (frozenset({1, 2}),)


def _cast_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    return (TensorType(operands[0].dims, attributes.dtype(attrs, "to")),)


# y = cast(a)          da = g in a's own type
def _cast_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [one(b, "cast", only(cotangents), to=node.uses[0].dtype)]


def _cast(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    (x,) = aligned(node, arrays)
    return (x.astype(numpy_dtype(node.outs[0].dtype)),)


def _cast_linear(node: Node) -> tuple[frozenset[int], ...]:
    floats = node.uses[0].dtype.is_float and node.outs[0].dtype.is_float
    return (frozenset({0}),) if floats else ()


# y = stop(a)          da = 0: nothing flows
def _stop_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [None]


LOGIC = (
    _compare("eq", lambda a, c: a == c),
    _compare("ne", lambda a, c: a != c),
    _compare("lt", lambda a, c: a < c),
    _compare("le", lambda a, c: a <= c),
    _compare("gt", lambda a, c: a > c),
    _compare("ge", lambda a, c: a >= c),
    _logical("logical_and", 2, lambda a, c: a & c),
    _logical("logical_or", 2, lambda a, c: a | c),
    _logical("logical_not", 1, lambda a: ~a),
    primitive(
        "where",
        infer=_where_type,
        reference=pointwise(_choose),
        gradient=_where_gradient,
        linear=_where_linear,
    ),
    primitive(
        "cast",
        attrs={"to": "the new element type"},
        infer=_cast_type,
        reference=_cast,
        gradient=_cast_gradient,
        linear=_cast_linear,
        cost=costs.per_result(0),
        precision=Precision.EXACT,
    ),
    primitive(
        "stop",
        infer=elementwise_type(1, 1),
        reference=pointwise(lambda a: a),
        gradient=_stop_gradient,
        linear=in_first,
        cost=costs.free,
    ),
)
