"""Elementwise arithmetic: add (n-ary), sub, mul, div, rem, pow, neg, maximum, minimum, abs, floor.

Operands have one dtype and broadcast by name: the result has the dims of the operand with most dims, then the others'.
"""

# ruff: noqa: PLW0108 - numpy is loaded at first use, so its functions are named inside lambdas

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from ..ir.types import Attr, Node, TensorType, Use
from . import costs
from .arrays import aligned
from .common import Linear, Reference, in_all, in_each, in_first, nowhere, primitive
from .definition import Array, Build, Cost, GradientRule, OpDef
from .derive import fit, like, one, only
from .numerics import np
from .shapes import agree, count, elements, floating, same_dtype, union


def elementwise_type(low: int, high: int) -> Callable[..., tuple[TensorType, ...]]:
    """The shape rule of `low` to `high` operands of one dtype."""

    def infer(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
        count(operands, low, high)
        agree(operands)
        dtype = same_dtype(operands)
        return (TensorType(union([o.dims for o in operands]), dtype),)

    return infer


def floating_type(operands: int) -> Callable[..., tuple[TensorType, ...]]:
    """The same for operators that need floats."""
    plain = elementwise_type(operands, operands)

    def infer(types: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
        found = plain(types, attrs)
        floating(types[0])
        return found

    return infer


Pointwise = Callable[[Any], Any] | Callable[[Any, Any], Any] | Callable[[Any, Any, Any], Any]


def pointwise(compute: Pointwise) -> Reference:
    """The reference that applies a numpy function to aligned operands."""
    apply: Callable[..., Any] = compute

    def reference(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
        return (np.asarray(apply(*aligned(node, arrays))),)

    return reference


def elementwise(
    name: str, operands: int, compute: Pointwise, gradient: GradientRule, linear: Linear = nowhere
) -> OpDef:
    """An operator of so many operands of one dtype."""
    return primitive(
        name, infer=elementwise_type(operands, operands), reference=pointwise(compute), gradient=gradient, linear=linear
    )


MANY = 1 << 20

# Below, g is the cotangent of the result y, and every da is summed over the dims that a lacks (`fit`).

Cotangents = Sequence[Use | None]


# y = a + b + …        da = g, db = g, …
def _add_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    return [fit(b, g, use) if want else None for use, want in zip(node.uses, wanted, strict=True)]


# y = a - c            da = g, dc = -g
def _sub_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    return [fit(b, g, a) if wanted[0] else None, one(b, "neg", fit(b, g, c)) if wanted[1] else None]


# y = a * c            da = g * c, dc = g * a
def _mul_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    return [
        fit(b, one(b, "mul", g, c), a) if wanted[0] else None,
        fit(b, one(b, "mul", g, a), c) if wanted[1] else None,
    ]


# y = a / c            da = g / c, dc = -g * y / c
def _div_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    share = one(b, "div", g, c)
    return [
        fit(b, share, a) if wanted[0] else None,
        fit(b, one(b, "neg", one(b, "mul", share, node.out())), c) if wanted[1] else None,
    ]


# y = a - c * floor(a / c)        da = g, dc = -g * floor(a / c)
def _rem_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    da = fit(b, g, a) if wanted[0] else None
    if not wanted[1]:
        return [da, None]
    times = one(b, "floor", one(b, "div", a, c))
    return [da, fit(b, one(b, "neg", one(b, "mul", g, times)), c)]


# y = a ^ c            da = g * c * a ^ (c - 1), and 0 where c = 0 (0 * inf otherwise)
#                      dc = g * y * log(a), and 0 where a <= 0 (the logarithm is taken of 1 there)
def _pow_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    a, c = node.uses
    da = dc = None
    if wanted[0]:
        zero = like(b, 0, c)
        slope = one(b, "mul", c, one(b, "pow", a, one(b, "sub", c, like(b, 1, c))))
        da = fit(b, one(b, "mul", g, one(b, "where", one(b, "eq", c, zero), zero, slope)), a)
    if wanted[1]:
        safe = one(b, "where", one(b, "gt", a, like(b, 0, a)), a, like(b, 1, a))
        dc = fit(b, one(b, "mul", g, one(b, "mul", node.out(), one(b, "log", safe))), c)
    return [da, dc]


# y = -a               da = -g
def _neg_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [one(b, "neg", only(cotangents))]


# y = |a|              da = g * sign(a)
def _abs_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    g = only(cotangents)
    (a,) = node.uses
    zero = like(b, 0, a)
    not_negative = one(b, "where", one(b, "gt", a, zero), g, zero)
    return [one(b, "where", one(b, "lt", a, zero), one(b, "neg", g), not_negative)]


# y = floor(a)         da = 0
def _floor_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [None]


def _pick(better: str) -> GradientRule:
    # y = max(a, c)    da = g where a > c, g / 2 where a = c, else 0; dc the same with a and c exchanged
    def gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
        g = only(cotangents)
        half = one(b, "mul", g, like(b, 0.5, g))
        zero = like(b, 0, g)

        def share(mine: Use, other: Use) -> Use:
            tied = one(b, "where", one(b, "eq", mine, other), half, zero)
            return fit(b, one(b, "where", one(b, better, mine, other), g, tied), mine)

        a, c = node.uses
        return [share(a, c) if wanted[0] else None, share(c, a) if wanted[1] else None]

    return gradient


def _add(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (reduce(np.add, aligned(node, arrays)),)


def _add_cost(node: Node) -> Cost:
    return costs.streamed(node, (len(node.uses) - 1) * elements(node.outs[0].dims))


ARITHMETIC = (
    primitive(
        "add",
        infer=elementwise_type(2, MANY),
        reference=_add,
        gradient=_add_gradient,
        linear=in_all,
        cost=_add_cost,
    ),
    elementwise("sub", 2, lambda a, c: a - c, _sub_gradient, in_all),
    elementwise("mul", 2, lambda a, c: a * c, _mul_gradient, in_each),
    primitive(
        "div",
        infer=floating_type(2),
        reference=pointwise(lambda a, c: a / c),
        gradient=_div_gradient,
        linear=in_first,
    ),
    elementwise("rem", 2, lambda a, c: np.mod(a, c), _rem_gradient),
    elementwise("pow", 2, lambda a, c: np.power(a, c), _pow_gradient),
    elementwise("neg", 1, lambda a: -a, _neg_gradient, in_first),
    elementwise("abs", 1, lambda a: np.abs(a), _abs_gradient),
    elementwise("floor", 1, lambda a: np.floor(a).astype(a.dtype), _floor_gradient),
    elementwise("maximum", 2, lambda a, c: np.maximum(a, c), _pick("gt")),
    elementwise("minimum", 2, lambda a, c: np.minimum(a, c), _pick("lt")),
)
