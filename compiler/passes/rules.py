"""The local rewrites of `simplify`, as named data: an equation each, and what it needs to hold.

A rule looks at one node, whose operands are simplified already, and gives the edge that can stand in its place, a node
that can, or None. It never changes a type: what it gives has the dims of the node's result, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ..ir.types import Attr, DType, Node, TensorType, Use
from ..ops.definition import Array, OpDef
from ..ops.registry import REGISTRY
from ..ops.shapes import union

Find = Callable[[str], Node]  # the new graph's node of an id


@dataclass(frozen=True, slots=True)
class Rule:
    """name: for reports. ops: the operators that it looks at; empty for all. apply: the rewrite."""

    name: str
    ops: frozenset[str]
    apply: Callable[[Node, Find], Use | Node | None]


def constant_value(use: Use, find: Find) -> bool | int | float | None:
    """The number that every element of the value is, where that is known."""
    node = find(use.node)
    value = node.attrs.get("value") if node.op == "constant" else None
    return value if isinstance(value, bool | int | float) else None


def _instead(node: Node, use: Use) -> Use | None:
    """The edge can stand for the node if its type is the result's, axis by axis."""
    return use if use.type == node.outs[0] else None


def _constant(node: Node, value: Attr) -> Node:
    out = node.outs[0]
    attrs: Mapping[str, Attr] = MappingProxyType({"value": value, "dims": out.dims, "dtype": out.dtype})
    return replace(node, op="constant", uses=(), attrs=attrs, body=None)


# f(c, …) = the number f(c, …), for what works element by element
def _fold(node: Node, find: Find) -> Node | None:
    values = [constant_value(use, find) for use in node.uses]
    if not values or None in values or len(node.outs) != 1:
        return None
    uses = tuple(replace(use, dims=()) for use in node.uses)
    alone = replace(node, uses=uses, outs=(TensorType((), node.outs[0].dtype),))
    with np.errstate(all="ignore"):
        (result,) = _reference(
            REGISTRY[node.op], alone, [_array(v, u.dtype) for v, u in zip(values, uses, strict=True)]
        )
    value = result.item()
    return None if math.isnan(value) else _constant(node, value)  # a NaN is left to the run


def _reference(definition: OpDef, node: Node, arrays: list[Array]) -> tuple[Array, ...]:
    return definition.reference(node, arrays)


def _array(value: bool | int | float | None, dtype: DType) -> Array:
    kind = np.float64 if dtype.is_float else np.bool_ if dtype is DType.BOOL else np.int64
    return np.asarray(value, dtype=kind)


# a reshaped constant is a constant
def _reshape(node: Node, find: Find) -> Node | None:
    value = constant_value(node.uses[0], find)
    return None if value is None else _constant(node, value)


# Σ_over c = c · |over|
def _sum(node: Node, find: Find) -> Node | None:
    value = constant_value(node.uses[0], find)
    sizes = [dim.size for dim in node.uses[0].dims if dim not in node.outs[0].dims]
    if value is None or isinstance(value, bool):
        return None
    for size in sizes:
        if size is None:
            return None
        value *= size
    return _constant(node, value)


# x · 1 = 1 · x = x
def _times_one(node: Node, find: Find) -> Use | None:
    for keep, other in ((0, 1), (1, 0)):
        if constant_value(node.uses[other], find) == 1:
            return _instead(node, node.uses[keep])
    return None


# x + 0 = x, among any number of terms
def _plus_zero(node: Node, find: Find) -> Use | Node | None:
    kept = [use for use in node.uses if constant_value(use, find) != 0]
    if len(kept) == len(node.uses):
        return None
    if len(kept) == 1:
        return _instead(node, kept[0])
    dims = union([use.dims for use in kept])
    return replace(node, uses=tuple(kept)) if kept and dims == node.outs[0].dims else None


# x − 0 = x,  x / 1 = x,  x ** 1 = x
def _right_unit(unit: int) -> Callable[[Node, Find], Use | None]:
    def rule(node: Node, find: Find) -> Use | None:
        return _instead(node, node.uses[0]) if constant_value(node.uses[1], find) == unit else None

    return rule


# −(−x) = x,  ¬¬x = x
def _twice(node: Node, find: Find) -> Use | None:
    inner = find(node.uses[0].node)
    if inner.op != node.op:
        return None
    names = dict(zip(inner.outs[0].dims, node.uses[0].dims, strict=True))
    return _instead(node, inner.uses[0].relabel(names))


# a transpose, an expansion or a cast to what the operand is already
def _already(node: Node, _find: Find) -> Use | None:
    return _instead(node, node.uses[0])


# two transposes are one
def _transposes(node: Node, find: Find) -> Node | None:
    inner = find(node.uses[0].node)
    if inner.op != "transpose":
        return None
    names = dict(zip(inner.outs[0].dims, node.uses[0].dims, strict=True))
    return replace(node, uses=(inner.uses[0].relabel(names),))


_ARITHMETIC = ("add", "sub", "mul", "div", "rem", "pow")
_FUNCTIONS = ("neg", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "floor", "abs", "maximum")
_COMPARISONS = ("minimum", "eq", "ne", "lt", "le", "gt")
_LOGIC = ("ge", "logical_and", "logical_or", "logical_not", "where", "cast")
_ELEMENTWISE = frozenset(_ARITHMETIC + _FUNCTIONS + _COMPARISONS + _LOGIC)
_RESHAPES = frozenset({"split_dim", "merge_dims", "expand", "transpose", "stop"})

RULES = (
    Rule("fold", _ELEMENTWISE, _fold),
    Rule("reshape of a constant", _RESHAPES - {"stop"}, _reshape),
    Rule("sum of a constant", frozenset({"sum"}), _sum),
    Rule("times one", frozenset({"mul"}), _times_one),
    Rule("plus zero", frozenset({"add"}), _plus_zero),
    Rule("minus zero", frozenset({"sub"}), _right_unit(0)),
    Rule("by one", frozenset({"div", "pow"}), _right_unit(1)),
    Rule("twice", frozenset({"neg", "logical_not"}), _twice),
    Rule("already so", frozenset({"transpose", "expand", "cast"}), _already),
    Rule("two transposes", frozenset({"transpose"}), _transposes),
)
# Where nothing will be differentiated any more:  stop(x) = x
AFTER_GRADIENTS = (Rule("stop", frozenset({"stop"}), _already),)
