"""Calls of foreign kernels: `fn f[D](x[D], eps = 1e-5) -> [D] kernel "package:f" backward "package:f_backward" { … }`.

In: a function that has all that it needs. Out: one node that says which kernel is meant, what it takes and what it
gives; with it, where the function has a body, its meaning. Nothing foreign runs here: who compiles the graph decides
whether the kernel or the body computes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..base.span import Span
from ..ir.types import Attr, Dims, Node, Use
from ..language import syntax as s
from ..ops.definition import TypeRuleError
from ..ops.foreign import FOREIGN
from . import arithmetic as a
from . import dims as d
from .frame import Frame
from .kernels import Unsayable, meaning
from .values import Function, Value, describe

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def is_foreign(function: Function) -> bool:
    """Whether a function names a kernel of a package."""
    return function.decl.kernel is not None and function.decl.kernel.forward is not None


def call_foreign(frame: Frame, function: Function, inner: Frame, span: Span, hint: str | None) -> Value:
    """One node; `inner` holds the arguments by name."""
    decl = function.decl
    assert decl.kernel is not None and decl.kernel.forward is not None, "a foreign kernel"
    values = {option.name.text: inner.names[option.name.text] for option in decl.options}
    floats = a.float_dtype(frame, *(value for value in values.values() if isinstance(value, Use)))
    operands: dict[str, Use] = {}
    own: list[Dims] = []
    options: list[tuple[str, Attr]] = []
    for option in decl.options:
        value = values[option.name.text]
        if isinstance(value, Use):
            operands[option.name.text] = a.tensor(frame, value, floats if value.dtype.is_float else value.dtype, span)
            own.append(_written(frame, inner, function, option))
        else:
            options.append((option.name.text, _plain(frame, option, value, span)))
    if not any(use.dtype.is_float for use in operands.values()):
        raise frame.fault("E0320", f"`{function.name}` is given no floating tensor", span)
    attrs: dict[str, Attr] = {
        "kernel": _name(frame, decl.kernel.forward),
        "backward": None if decl.kernel.backward is None else _name(frame, decl.kernel.backward),
        "operands": tuple(own), "results": _results(frame, inner, function), "options": tuple(options),
    }  # fmt: skip
    return _emit(frame, function, inner, attrs, operands, span, hint)


def _emit(
    frame: Frame, function: Function, inner: Frame, attrs: Mapping[str, Attr], operands: Mapping[str, Use], span: Span,
    hint: str | None,
) -> Value:  # fmt: skip
    wanted = hint or function.name
    try:
        if function.decl.body is None:
            results = frame.emit(FOREIGN, *operands.values(), span=span, hint=wanted, body=None, **attrs)
        else:
            body = meaning(FOREIGN, function, inner, attrs, operands)
            frame.output.body(body.key, body.graph)
            uses = [*operands.values(), *map(frame.output.start, body.starts), *map(frame.output.key, body.keys)]
            results = frame.emit(FOREIGN, *uses, span=span, hint=wanted, body=body.key, **attrs)
    except TypeRuleError as fault:
        raise frame.fault("E0320", f"`{function.name}`: {fault.message}", span) from None
    except Unsayable:
        title = f"the body of `{function.name}` gives something else than its signature says"
        raise frame.fault("E0320", title, function.decl.span) from None
    return results[0] if len(results) == 1 else results


def without_gradient(nodes: Iterable[Node], trained: Collection[str]) -> Node | None:
    """The first kernel without meaning and without `backward` that depends on what is trained."""
    reached = set(trained)
    for node in nodes:
        if any(use.node in reached and use.dtype.is_float for use in node.uses):
            reached.add(node.id)
            if node.op == FOREIGN and node.body is None and node.attrs["backward"] is None:
                return node
    return None


def _name(frame: Frame, written: s.String) -> str:
    if _NAME.fullmatch(written.value) is None:
        title = f"`{written.value}` names no kernel"
        raise frame.fault("E0320", title, written.span, expected='a package and a function, "my_ops:gate"')
    return written.value


def _written(frame: Frame, inner: Frame, function: Function, option: s.Option) -> Dims:
    """The axes of an operand as the signature writes them."""
    name = option.name.text
    if option.dims is None:
        title = f"`{name}` of the foreign kernel `{function.name}` is a tensor without dims"
        hint = f"write its axes, `{name}[D]`, or `{name}[]` for a single number"
        raise frame.fault("E0320", title, option.span, hint=hint)
    return tuple(axis for dim in option.dims for axis in d.axes(inner, dim))


def _results(frame: Frame, inner: Frame, function: Function) -> tuple[Dims, ...]:
    outs = function.decl.outs
    if not outs:
        title = f"the foreign kernel `{function.name}` does not say what it gives"
        raise frame.fault("E0320", title, function.decl.name.span, hint="write `-> [D]` behind its arguments")
    return tuple(tuple(axis for dim in out.dims for axis in d.axes(inner, dim)) for out in outs)


def _plain(frame: Frame, option: s.Option, value: Value, span: Span) -> Attr:
    """An option as a Python value."""
    if option.dims is None and (value is None or isinstance(value, bool | int | float | str)):
        return value
    title = f"`{option.name}` of a foreign kernel is {describe(value)}"
    wanted = "a tensor" if option.dims is not None else "a number, a text, true, false or none"
    raise frame.fault("E0303", title, span, expected=wanted)
