"""Kernels of the elementwise operators: one aten call each, in place where an operand's memory is free.

A constant operand stays a Python number in the call. Operands with fewer dims are views that broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...ir.types import DType, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, aligned, count, meta, shape

aten = torch.ops.aten

MANY_SCALARS = 4  # from here on, scalars are summed as one tensor, not one call after another


def _target(e: Emitter, node: Node, values: Sequence[Value]) -> int | None:
    """An operand that the result may be written over."""
    return next((index for index in range(len(values)) if _writable(e, node, values, index)), None)


def _writable(e: Emitter, node: Node, values: Sequence[Value], index: int) -> bool:
    """Whether the result may be written over an operand: it dies, and has the result's shape and type."""
    out, value = node.outs[0], values[index]
    return (
        isinstance(value, fx.Node)
        and node.uses[index].dims == out.dims
        and meta(value).dtype == TORCH_DTYPES[out.dtype]
        and e.dies(index)
    )


def unary(name: str) -> Rule:
    """An operator of one operand with an aten name, and `name_` that works in place."""
    op, in_place = getattr(aten, name).default, getattr(aten, name + "_").default

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        x = e.tensor(values[0], node.uses[0].dtype)
        return [e.call(in_place if _target(e, node, values) == 0 else op, x)]

    return rule


def add(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The sum of n operands, in an order that does not ask which of them die: in a low type the order decides how the
    sum rounds. The widest first, so that it has its full shape as soon as may be; over one of the first two where one
    dies."""
    out = node.outs[0]
    if not out.dims and len(values) >= MANY_SCALARS:
        scalars = [e.tensor(value, out.dtype) for value in values]
        return [e.call(aten.sum.default, e.call(aten.stack.default, scalars))]
    views = aligned(e, node.uses, values, out.dims)
    order = sorted(range(len(views)), key=lambda i: -count(node.uses[i].dims) if isinstance(views[i], fx.Node) else 1)
    over = next((i for i in order[:2] if _writable(e, node, values, i)), order[0])
    first, second, *rest = order if over == order[0] else [over, order[0], *order[2:]]
    fits = _writable(e, node, values, first)
    total = e.call(aten.add_.Tensor if fits else aten.add.Tensor, e.tensor(views[first], out.dtype), views[second])
    for i in rest:
        fits = not e.functional and list(meta(total).shape) == shape(out.dims)
        total = e.call(aten.add_.Tensor if fits else aten.add.Tensor, total, views[i])
    return [total]


def binary(name: str, commutes: bool) -> Rule:
    """sub, mul, div: `.Tensor` overloads that take numbers too."""
    op, in_place = getattr(aten, name).Tensor, getattr(aten, name + "_").Tensor

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        a, b = aligned(e, node.uses, values, node.outs[0].dims)
        target = _target(e, node, values)
        if target == 0:
            return [e.call(in_place, a, b)]
        if target == 1 and commutes:
            return [e.call(in_place, b, a)]
        if not isinstance(a, fx.Node) and not isinstance(b, fx.Node):
            a = e.tensor(a, node.uses[0].dtype)
        return [e.call(op, a, b)]

    return rule


def remainder(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """a - b floor(a / b)."""
    a, b = aligned(e, node.uses, values, node.outs[0].dims)
    if not isinstance(b, fx.Node):
        op = aten.remainder_.Scalar if _target(e, node, values) == 0 else aten.remainder.Scalar
        return [e.call(op, e.tensor(a, node.uses[0].dtype), b)]
    if not isinstance(a, fx.Node):
        return [e.call(aten.remainder.Scalar_Tensor, a, b)]
    return [e.call(aten.remainder_.Tensor if _target(e, node, values) == 0 else aten.remainder.Tensor, a, b)]


def power(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """a ^ b; a number in the exponent is what aten's special cases want."""
    a, b = aligned(e, node.uses, values, node.outs[0].dims)
    if isinstance(b, fx.Node):
        return [e.call(aten.pow.Tensor_Tensor if isinstance(a, fx.Node) else aten.pow.Scalar, a, b)]
    in_place = _target(e, node, values) == 0
    op = aten.pow_.Scalar if in_place else aten.pow.Tensor_Scalar
    return [e.call(op, e.tensor(a, node.uses[0].dtype), b)]


def comparison(name: str, mirrored: str) -> Rule:
    """A relation; with a number on the left it is mirrored."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        a, b = aligned(e, node.uses, values, node.outs[0].dims)
        if not isinstance(a, fx.Node) and isinstance(b, fx.Node):
            return [e.call(getattr(aten, mirrored).Scalar, b, a)]
        a = e.tensor(a, node.uses[0].dtype)
        return [e.call(getattr(getattr(aten, name), "Tensor" if isinstance(b, fx.Node) else "Scalar"), a, b)]

    return rule


def extremum(name: str, clamp: str) -> Rule:
    """maximum and minimum; with a number, a clamp."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        a, b = aligned(e, node.uses, values, node.outs[0].dims)
        if not isinstance(a, fx.Node):
            a, b = b, a
        a = e.tensor(a, node.uses[0].dtype)
        if not isinstance(b, fx.Node):
            return [e.call(getattr(aten, clamp).default, a, b)]
        return [e.call(getattr(aten, name).default, a, b)]

    return rule


def logical(name: str) -> Rule:
    """and, or of truth values."""
    op = getattr(aten, name).default

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        a, b = (e.tensor(v, DType.BOOL) for v in aligned(e, node.uses, values, node.outs[0].dims))
        return [e.call(op, a, b)]

    return rule


def where(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """a where cond holds, else b. A number beside a dying tensor is filled into it."""
    out = node.outs[0]
    cond, a, b = aligned(e, node.uses, values, out.dims)
    cond = e.tensor(cond, DType.BOOL)
    a_is, b_is = isinstance(a, fx.Node), isinstance(b, fx.Node)
    target = _target(e, node, values)
    if target == 1 and not b_is:
        return [e.call(aten.masked_fill_.Scalar, a, e.call(aten.logical_not.default, cond), b)]
    if target == 2 and not a_is:
        return [e.call(aten.masked_fill_.Scalar, b, cond, a)]
    if a_is and not b_is:
        return [_spread(e, e.call(aten.where.ScalarOther, cond, a, b), out.dims)]
    if b_is and not a_is:
        return [_spread(e, e.call(aten.where.ScalarSelf, cond, a, b), out.dims)]
    a, b = e.tensor(a, out.dtype), e.tensor(b, out.dtype)
    return [_spread(e, e.call(aten.where.self, cond, a, b), out.dims)]


def _spread(e: Emitter, value: fx.Node, dims: Any) -> fx.Node:
    sizes = shape(dims)
    return value if list(meta(value).shape) == sizes else e.expand(value, sizes)


def cast(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Another element type."""
    dtype: Any = node.attrs["to"]
    value = values[0]
    if isinstance(value, fx.Node):
        return [e.cast(value, TORCH_DTYPES[dtype])]
    return [_literal(value, dtype)]


def _literal(value: bool | int | float, dtype: DType) -> bool | int | float:
    if dtype.is_float:
        return float(value)
    return bool(value) if dtype is DType.BOOL else int(value)


def stop(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The value itself; where autograd follows, detached."""
    return [e.call(aten.detach.default, values[0]) if e.functional and isinstance(values[0], fx.Node) else values[0]]


RULES: dict[str, Rule] = {
    "add": add,
    "sub": binary("sub", commutes=False),
    "mul": binary("mul", commutes=True),
    "div": binary("div", commutes=False),
    "rem": remainder,
    "pow": power,
    **{
        name: unary(name)
        for name in ("neg", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "floor", "abs")
    },
    "maximum": extremum("maximum", "clamp_min"),
    "minimum": extremum("minimum", "clamp_max"),
    "eq": comparison("eq", "eq"),
    "ne": comparison("ne", "ne"),
    "lt": comparison("lt", "gt"),
    "le": comparison("le", "ge"),
    "gt": comparison("gt", "lt"),
    "ge": comparison("ge", "le"),
    "logical_and": logical("logical_and"),
    "logical_or": logical("logical_or"),
    "logical_not": unary("logical_not"),
    "where": where,
    "cast": cast,
    "stop": stop,
}
