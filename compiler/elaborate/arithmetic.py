"""Operators of expressions: numbers are folded at once, tensors become elementwise nodes.

All operands of an elementwise node have one dtype: integers and truth values are cast where a float stands beside them
or where the operator makes one (`/`, `^`, `exp`), and a number becomes a constant in the other operand's dtype. What a
constant decides (`x * 1`, `keep and true`) needs no node.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..base.diagnostic import Label
from ..base.span import Span
from ..ir.types import DType, Use
from .frame import Fault, Frame
from .values import UNKNOWN, Absent, Chain, Function, Instance, Primitive, Scalar, Value, describe, is_number

_WIDTH = MappingProxyType({DType.F16: 1, DType.BF16: 2, DType.F32: 3, DType.F64: 4})
_MAX_INT = 2**62

NODES: Mapping[str, str] = MappingProxyType(
    {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "rem", "^": "pow",
     "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "and": "logical_and", "or": "logical_or"}
)  # fmt: skip
_FOLD: Mapping[str, Callable[[Scalar, Scalar], Scalar]] = MappingProxyType(
    {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod, "==": operator.eq, "!=": operator.ne,
     "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)  # fmt: skip


# ---- from values to operands


def tensor(frame: Frame, value: Value, dtype: DType, span: Span) -> Use:
    """A value as an edge of a dtype: a constant is made, a cast is added where one is needed."""
    if isinstance(value, Use):
        if value.dtype is dtype:
            return value
        return frame.emit1("cast", value, span=span, to=dtype)
    if isinstance(value, int | float):
        return constant(frame, value, dtype, span)
    raise not_a_tensor(frame, value, span)


def constant(frame: Frame, value: Scalar, dtype: DType, span: Span) -> Use:
    """A number as a node."""
    cast = bool(value) if dtype is DType.BOOL else float(value) if dtype.is_float else int(value)
    return frame.emit1("constant", span=span, hint="const", value=cast, dims=(), dtype=dtype)


def not_a_tensor(frame: Frame, value: Value, span: Span) -> Fault:
    """Report a value where a tensor or a number is needed."""
    if value is UNKNOWN:
        return Fault()
    if isinstance(value, Absent):
        label = "made only if this holds"
        from_condition = _label(value, label)
        return frame.fault("E0109", f"`{value.name}` is absent here", span, others=from_condition)
    text = span.text if len(span.text) < 40 else "it"
    if isinstance(value, Instance | Chain):
        return frame.fault("E0105", f"`{text}` is {describe(value)}, not a tensor", span, hint=f"apply it: {text}(x)")
    if isinstance(value, Function):
        lacks = [formal.name.text for formal in value.decl.formals] if value.dims is None else []
        use = f"{text}[{', '.join(lacks)}](x)" if lacks else f"{text}(x)"
        return frame.fault("E0105", f"`{text}` is {describe(value)}, not a tensor", span, hint=f"apply it: {use}")
    if isinstance(value, Primitive):
        return frame.fault("E0105", f"`{text}` is {describe(value)}, not a tensor", span, hint=f"apply it: {text}(x)")
    return frame.fault("E0105", f"a tensor or a number is needed, this is {describe(value)}", span)


def _label(value: Absent, text: str) -> tuple[Label, ...]:
    return (Label(value.condition, text),)


def float_dtype(frame: Frame, *values: Value) -> DType:
    """The widest float among the operands, else the model's."""
    found = [v.dtype for v in values if isinstance(v, Use) and v.dtype.is_float]
    return max(found, key=_WIDTH.__getitem__) if found else frame.context.dtype


def common_dtype(frame: Frame, *values: Value) -> DType:
    """The dtype in which values meet."""
    tensors = [v for v in values if isinstance(v, Use)]
    floats = any(v.dtype.is_float for v in tensors) or any(isinstance(v, float) for v in values)
    if floats or not tensors or all(v.dtype is DType.BOOL for v in tensors):
        return float_dtype(frame, *values)
    return DType.I64


# ---- binary operators


def binary(frame: Frame, op: str, left: Value, right: Value, span: Span, hint: str | None = None) -> Value:
    """`left op right`, by arithmetic or a comparison; `span` is the operator's."""
    numbers = isinstance(left, Use | int | float) and isinstance(right, Use | int | float)
    if not (isinstance(left, Use) or isinstance(right, Use)) or (op in ("==", "!=") and not numbers):
        return fold(frame, op, left, right, span)
    for value in (left, right):
        if not isinstance(value, Use | int | float):
            raise not_a_tensor(frame, value, span)
    same = _decided(frame, op, left, right)
    if same is not None:
        return same
    if op == "^" and isinstance(left, Use) and is_number(right):
        special = _power(frame, left, right, span, hint)
        if special is not None:
            return special
    dtype = float_dtype(frame, left, right) if op in "/^" else common_dtype(frame, left, right)
    if op in ("==", "!=") and _both_bool(left, right):
        dtype = DType.BOOL
    a, b = tensor(frame, left, dtype, span), tensor(frame, right, dtype, span)
    return joined(frame, frame.emit1(NODES[op], a, b, span=span, hint=hint), (a, b), span)


def joined(frame: Frame, result: Use, operands: tuple[Use, ...], span: Span) -> Use:
    """Remember where two values met of which neither has all axes of the other: a later misfit points here."""
    first = operands[0]
    for other in operands[1:]:
        if set(first.dims) - set(other.dims) and set(other.dims) - set(first.dims):
            frame.context.meetings.setdefault(result.node, (span, first.dims, other.dims))
    return result


def _both_bool(left: Value, right: Value) -> bool:
    return all(isinstance(v, bool) or (isinstance(v, Use) and v.dtype is DType.BOOL) for v in (left, right))


def _decided(frame: Frame, op: str, left: Value, right: Value) -> Use | None:
    """x + 0, x - 0, x * 1, x / 1, x ^ 1 are x, if x is a float."""
    neutral = {"+": 0, "-": 0, "*": 1, "/": 1, "^": 1}.get(op)
    for value, other in ((left, right), (right, left)):
        if not isinstance(value, Use) or not value.dtype.is_float or not is_number(other) or other != neutral:
            continue
        if value is left or op in "+*":
            return value
    return None


def _power(frame: Frame, base: Use, exponent: Value, span: Span, hint: str | None) -> Use | None:
    """Small powers without `pow`: x ^ 2 = x * x, x ^ 0.5 = sqrt(x), x ^ -0.5 = rsqrt(x)."""
    x = tensor(frame, base, float_dtype(frame, base), span)
    if exponent == 2:
        return frame.emit1("mul", x, x, span=span, hint=hint)
    if exponent == 3:
        return frame.emit1("mul", frame.emit1("mul", x, x, span=span), x, span=span, hint=hint)
    if exponent in (0.5, -0.5):
        return frame.emit1("sqrt" if exponent == 0.5 else "rsqrt", x, span=span, hint=hint)
    return None


def add_all(frame: Frame, values: list[Value], span: Span, hint: str | None) -> Value | None:
    """A sum of three or more tensors of one dtype is one node; None if these are not."""
    uses = [value for value in values if isinstance(value, Use)]
    if len(uses) != len(values) or len({use.dtype for use in uses}) != 1 or uses[0].dtype is DType.BOOL:
        return None
    return joined(frame, frame.emit1("add", *uses, span=span, hint=hint), tuple(uses), span)


def fold(frame: Frame, op: str, left: Value, right: Value, span: Span) -> Value:
    """Arithmetic of the compile time. Whole numbers stay whole where the result is."""
    if op in ("==", "!=") and not (isinstance(left, int | float) and isinstance(right, int | float)):
        # `scale == none`: what is no number equals itself alone
        if left is UNKNOWN or right is UNKNOWN:
            raise Fault
        same = left is right or (isinstance(left, str) and left == right)
        return same if op == "==" else not same
    for value in (left, right):
        if not isinstance(value, int | float):
            raise not_a_tensor(frame, value, span)
    assert isinstance(left, int | float) and isinstance(right, int | float), "numbers"
    try:
        return _bounded(_calculate(op, left, right))
    except ZeroDivisionError:
        raise frame.fault("E0304", "division by zero", span) from None
    except (OverflowError, ValueError):
        raise frame.fault("E0304", f"{left} {op} {right} is too large or not a real number", span) from None


def _calculate(op: str, left: Scalar, right: Scalar) -> Scalar:
    if op == "/":
        if isinstance(left, int) and isinstance(right, int) and left % right == 0:
            return left // right
        return left / right
    if op == "^":
        if isinstance(left, int) and isinstance(right, int) and 0 <= right <= 64:
            return left**right
        result = float(left) ** right
        if isinstance(result, complex):
            raise ValueError
        return result
    return _FOLD[op](left, right)


def _bounded(value: Scalar) -> Scalar:
    return float(value) if isinstance(value, int) and abs(value) > _MAX_INT else value


# ---- unary operators and functions of one number

_NUMBERS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh, "erf": math.erf, "sin": math.sin,
     "cos": math.cos, "sigmoid": lambda x: 1 / (1 + math.exp(-x))}
)  # fmt: skip
UNARY = frozenset({*_NUMBERS, "floor"})


def unary(frame: Frame, name: str, value: Value, span: Span, hint: str | None = None) -> Value:
    """exp, log, … of a number or a tensor; floor gives whole numbers, which may index."""
    if isinstance(value, int | float):
        try:
            return math.floor(value) if name == "floor" else _NUMBERS[name](value)
        except (ValueError, OverflowError):
            raise frame.fault("E0304", f"{name}({value}) is no real number", span) from None
    if not isinstance(value, Use):
        raise not_a_tensor(frame, value, span)
    if name != "floor":
        return frame.emit1(name, tensor(frame, value, float_dtype(frame, value), span), span=span, hint=hint)
    if not value.dtype.is_float:
        return value
    return frame.emit1("cast", frame.emit1("floor", value, span=span), span=span, hint=hint, to=DType.I64)


def negative(frame: Frame, value: Value, span: Span, hint: str | None = None) -> Value:
    """`-x`"""
    if isinstance(value, Use):
        dtype = value.dtype if value.dtype is not DType.BOOL else DType.I64
        return frame.emit1("neg", tensor(frame, value, dtype, span), span=span, hint=hint)
    if isinstance(value, int | float):
        return -value
    raise not_a_tensor(frame, value, span)


# ---- truth


def logical_not(frame: Frame, value: Value, span: Span, hint: str | None = None) -> Value:
    """`not x`"""
    if isinstance(value, Use):
        return frame.emit1("logical_not", truth(frame, value, span), span=span, hint=hint)
    return not decided(frame, value, span)


def logical(frame: Frame, op: str, left: Value, right: Value, span: Span, hint: str | None = None) -> Value:
    """`and`, `or` of which at least one side is a tensor; a side that is known decides or falls away."""
    for value, other in ((left, right), (right, left)):
        if not isinstance(value, Use):
            known = decided(frame, value, span)
            return known if known == (op == "or") else other
    a, b = truth(frame, left, span), truth(frame, right, span)
    return joined(frame, frame.emit1(NODES[op], a, b, span=span, hint=hint), (a, b), span)


def truth(frame: Frame, value: Value, span: Span) -> Use:
    """A tensor of truth values."""
    if isinstance(value, bool):
        return constant(frame, value, DType.BOOL, span)
    if isinstance(value, Use) and value.dtype is DType.BOOL:
        return value
    if value is UNKNOWN:
        raise Fault
    hint = "compare it: x > 0" if isinstance(value, Use) else None
    raise frame.fault("E0303", f"true or false is needed, this is {describe(value)}", span, hint=hint)


def decided(frame: Frame, value: Value, span: Span) -> bool:
    """A truth value of the compile time."""
    if isinstance(value, bool):
        return value
    if value is UNKNOWN:
        raise Fault
    raise frame.fault("E0303", f"true or false is needed, this is {describe(value)}", span)
