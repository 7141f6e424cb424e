"""The value of each kind of expression: a table from the syntax tree's types to rules.

Names are looked up in the frame, then among its dims (a dim's name is its size), then in the files. The arguments of a
call are evaluated before the dims in its brackets, because they may name new ones: `attention[T, S](q, k[T -> S])`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..base.diagnostic import did_you_mean
from ..base.span import Span
from ..ir.types import Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from .frame import Arguments, Fault, Frame
from .functions import bind_dims
from .load import brought_by_std
from .primitives import PRIMITIVES, size_of
from .values import UNKNOWN, Absent, Chain, Function, Initialiser, Instance, Primitive, Value, describe
from .views import view

_NUMBERS = MappingProxyType({"pi": math.pi, "inf": math.inf})
_WORDS = ("training", "true", "false", "none")


# ---- names


def _ref(frame: Frame, expr: s.Ref, hint: str | None) -> Value:
    name = expr.name
    if name in frame.names:
        return frame.names[name]
    if name in frame.dims:
        return size_of(frame, frame.dims[name], expr.span)
    if name == "training":
        return frame.context.training
    if name in _NUMBERS:
        return _NUMBERS[name]
    found = frame.module.find(name)
    if len(found) > 1:
        places = ", ".join(module.name for _, module in found)
        hint = f"write {found[0][1].name}.{name}"
        raise frame.fault("E0106", f"`{name}` is declared in several of the files used: {places}", expr.span, hint=hint)
    if found:
        return _declared(frame, *found[0], expr.span)
    if name in PRIMITIVES:
        return Primitive(name)
    raise _no_name(frame, name, expr.span)


def _declared(frame: Frame, decl: object, module: Any, span: Span) -> Value:
    if isinstance(decl, s.Fn):
        return Function(decl, module)
    assert isinstance(decl, s.Block | s.Model | s.Derived), "a declaration"
    form = f"f : {decl.name}[…], then f(x)"
    raise frame.fault("E0105", f"`{decl.name}` is a block, not a value", span, hint=f"make an instance of it: {form}")


def _no_name(frame: Frame, name: str, span: Span) -> Fault:
    if any(d.called(dim, name) for dim in frame.carried):
        fault = d.unknown_dim(frame, name, span)
        assert isinstance(fault, Fault), "reported"
        return fault
    known = {*frame.names, *frame.dims, *frame.module.visible(), *PRIMITIVES, *_NUMBERS, *_WORDS}
    hint = brought_by_std(frame.module, name) or did_you_mean(name, known)
    return frame.fault("E0101", f"there is no `{name}` here", span, hint=hint)


def _member(frame: Frame, expr: s.Member, hint: str | None) -> Value:
    """`wte.table`, `std.gelu`"""
    name = expr.name.text
    if isinstance(expr.target, s.Ref) and expr.target.name not in frame.names:
        module = frame.module.used(expr.target.name)
        if module is not None and name in module.own:
            return _declared(frame, module.own[name], module, expr.span)
    target = frame.evaluate(expr.target)
    if isinstance(target, Chain):
        hint = "the layers of a chain have no names in expressions"
        raise frame.fault("E0107", f"`{expr.target.span.text}` is a chain", expr.name.span, hint=hint)
    if target is UNKNOWN:
        raise Fault
    if not isinstance(target, Instance):
        callable_ = name in PRIMITIVES or any(isinstance(decl, s.Fn) for decl, _ in frame.module.find(name))
        hint = f"functions stand before what they take: {name}(x, …), or x |> {name}(…)" if callable_ else None
        if name in ("shape", "size", "dim", "ndim") and isinstance(target, Use):
            hint = "a size is the name of its dim: T, or T * D"
        raise frame.fault("E0107", f"{describe(target)} has no parts", expr.name.span, hint=hint)
    value = target.names.get(name)
    if isinstance(value, Use):
        return value.relabel(target.boundary) if _one_to_one(value, target) else value
    if isinstance(value, Instance | Chain | Absent):
        return value
    owned = [key for key, part in target.names.items() if isinstance(part, Use | Instance | Chain)]
    title = f"`{expr.target.span.text}` owns no `{name}`"
    raise frame.fault("E0107", title, expr.name.span, hint=did_you_mean(name, owned), expected=", ".join(owned) or None)


def _one_to_one(value: Use, target: Instance) -> bool:
    outer = [target.boundary.get(dim, dim) for dim in value.dims]
    return len(set(outer)) == len(outer)


# ---- literals


def _number(frame: Frame, expr: s.Number, hint: str | None) -> Value:
    if expr.unit is not None:
        raise frame.fault("E0306", f"a quantity with a unit ({expr.unit}) stands only in records", expr.span)
    return expr.value


def _tuple(frame: Frame, expr: s.TupleLit, hint: str | None) -> Value:
    return tuple(frame.evaluate(item) for item in expr.items)


def _list(frame: Frame, expr: s.ListLit, hint: str | None) -> Value:
    raise frame.fault("E0306", "a list stands only in records", expr.span)


# ---- operators


def _binary(frame: Frame, expr: s.Binary, hint: str | None) -> Value:
    """A long sum leans to the left: it is walked, not recursed into, and three tensors or more are one node."""
    spine: list[s.Binary] = []
    left: s.Expr = expr
    while isinstance(left, s.Binary):
        spine.append(left)
        left = left.left
    spine.reverse()
    value = frame.evaluate(left)
    at = 0
    while at < len(spine):
        run = at
        while run < len(spine) and spine[run].op == "+":
            run += 1
        last = run if run - at > 1 else at + 1
        rights = [frame.evaluate(step.right) for step in spine[at:last]]
        name = hint if last == len(spine) else None
        whole = a.add_all(frame, [value, *rights], spine[at].op_span, name) if len(rights) > 1 else None
        value = whole if whole is not None else _one_by_one(frame, spine[at:last], value, rights, name)
        at = last
    return value


def _one_by_one(frame: Frame, steps: list[s.Binary], value: Value, rights: list[Value], hint: str | None) -> Value:
    for step, right in zip(steps, rights, strict=True):
        _operand(frame, value, step.left.span)
        _operand(frame, right, step.right.span)
        value = a.binary(frame, step.op, value, right, step.op_span, hint if step is steps[-1] else None)
    return value


def _operand(frame: Frame, value: Value, span: Span) -> None:
    if not isinstance(value, Use | int | float):
        raise a.not_a_tensor(frame, value, span)


def _compare(frame: Frame, expr: s.Compare, hint: str | None) -> Value:
    left, right = frame.evaluate(expr.left), frame.evaluate(expr.right)
    if expr.op not in ("==", "!=") or (isinstance(left, Use | int | float) and isinstance(right, Use | int | float)):
        _operand(frame, left, expr.left.span)
        _operand(frame, right, expr.right.span)
    return a.binary(frame, expr.op, left, right, expr.op_span, hint)


def _unary(frame: Frame, expr: s.Unary, hint: str | None) -> Value:
    value = frame.evaluate(expr.operand)
    apply = a.negative if expr.op == "-" else a.logical_not
    return apply(frame, value, expr.operand.span, hint)


def _bool_op(frame: Frame, expr: s.BoolOp, hint: str | None) -> Value:
    left = frame.evaluate(expr.left)
    if not isinstance(left, Use):
        known = a.decided(frame, left, expr.left.span)
        if known == (expr.op == "or"):
            return known
    right = frame.evaluate(expr.right, hint if not isinstance(left, Use) else None)
    return a.logical(frame, expr.op, left, right, expr.span, hint)


def _if(frame: Frame, expr: s.IfThenElse, hint: str | None) -> Value:
    condition = frame.evaluate(expr.condition)
    if isinstance(condition, Use):
        fix = "use where(condition, then, else)"
        title = "`if` chooses while compiling; this is a tensor"
        raise frame.fault("E0307", title, expr.condition.span, describe(condition), hint=fix)
    chosen = expr.then if a.decided(frame, condition, expr.condition.span) else expr.otherwise
    return frame.evaluate(chosen, hint)


# ---- application


def _view(frame: Frame, expr: s.View, hint: str | None) -> Value:
    """`x[T -> S]` of a tensor; `mask[T, S]`, `zeros[C]` of a function."""
    target = frame.evaluate(expr.target)
    if isinstance(target, Use):
        return view(frame, target, expr.items, hint)
    return apply(frame, target, expr.items, Arguments(), expr.span, hint, expr.target.span)


def _call(frame: Frame, expr: s.Call, hint: str | None) -> Value:
    return call(frame, expr, None, hint)


def call(frame: Frame, expr: s.Call, first: tuple[Value, Span] | None, hint: str | None) -> Value:
    """Apply; `first` is what a pipe puts in front of the arguments."""
    callee, items = expr.callee, None
    if isinstance(callee, s.View):
        callee, items = callee.target, callee.items
    target = frame.evaluate(callee)
    args = arguments(frame, expr.args, first)
    return apply(frame, target, items, args, expr.span, hint, callee.span)


def arguments(frame: Frame, written: tuple[s.Argument, ...], first: tuple[Value, Span] | None = None) -> Arguments:
    """Evaluate what stands in parentheses."""
    positional = [] if first is None else [first]
    named: dict[str, tuple[Value, Span]] = {}
    for arg in written:
        if isinstance(arg, s.KwArg):
            if arg.name.text in named:
                raise frame.fault("E0302", f"`{arg.name}` is given twice", arg.span)
            named[arg.name.text] = (frame.evaluate(arg.value), arg.span)
        else:
            positional.append((frame.evaluate(arg), arg.span))
    return Arguments(tuple(positional), named)


def apply(
    frame: Frame, target: Value, items: tuple[s.ViewItem, ...] | None, args: Arguments, span: Span, hint: str | None,
    callee: Span,
) -> Value:  # fmt: skip
    """Apply a function, a primitive or an instance."""
    rules = frame.context.rules
    if isinstance(target, Function):
        return rules.function(frame, bind_dims(frame, target, items, args, span), args, span, hint)
    if isinstance(target, Primitive):
        return rules.primitive(frame, target.name, items, args, span, hint)
    if isinstance(target, Instance | Chain):
        return rules.instance(frame, target, items or (), args, span)
    if target is UNKNOWN:
        raise Fault
    if isinstance(target, Absent | Initialiser):
        raise a.not_a_tensor(frame, target, callee)
    raise frame.fault("E0108", f"`{callee.text}` is {describe(target)}, which cannot be applied", callee)


def _pipe(frame: Frame, expr: s.Pipe, hint: str | None) -> Value:
    """`x |> f` is f(x), `x |> f(a)` is f(x, a)."""
    stages: list[s.Expr] = []
    left: s.Expr = expr
    while isinstance(left, s.Pipe):
        stages.append(left.right)
        left = left.left
    value, span = frame.evaluate(left), left.span
    for stage in reversed(stages):
        name = hint if stage is stages[0] else None
        if isinstance(stage, s.Call):
            value = call(frame, stage, (value, span), name)
        else:
            value = call(frame, s.Call(stage.span, stage, ()), (value, span), name)
        span = stage.span
    return value


Rule = Callable[[Frame, Any, "str | None"], Value]

EXPRESSIONS: Mapping[type[s.Node], Rule] = MappingProxyType(
    {
        s.Ref: _ref,
        s.Member: _member,
        s.Number: _number,
        s.String: lambda frame, expr, hint: expr.value,
        s.Bool: lambda frame, expr, hint: expr.value,
        s.NoneLit: lambda frame, expr, hint: None,
        s.TupleLit: _tuple,
        s.ListLit: _list,
        s.Binary: _binary,
        s.Compare: _compare,
        s.Unary: _unary,
        s.BoolOp: _bool_op,
        s.IfThenElse: _if,
        s.View: _view,
        s.Call: _call,
        s.Pipe: _pipe,
    }
)
