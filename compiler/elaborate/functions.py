"""Functions: binding dims and arguments, and applying what is bound.

A function whose dims or arguments are not all given stays a value: `rotary(base = 5e5)`, `sliding(width = 4096)`. One
that has all of them becomes its body, read in a frame of its own in which nothing but its dims and arguments can be
named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..base.diagnostic import did_you_mean
from ..base.span import Span
from ..ir.types import Dim, Dims, Use
from ..language import syntax as s
from . import dims as d
from . import statements
from .foreign import call_foreign, is_foreign
from .frame import STEPS_OF_AN_APPLICATION, Arguments, Fault, Frame
from .kernels import call_kernel, is_kernel
from .values import UNKNOWN, Function, Primitive, Value, describe, is_free, is_number, show_dims

# ---- dims


def bind_dims(
    frame: Frame, function: Function, items: tuple[s.ViewItem, ...] | None, args: Arguments, span: Span
) -> Function:
    """`f[T, K]`: the formals in order."""
    if items is None:
        return function
    formals = function.decl.formals
    if function.dims is not None or not formals:
        raise frame.fault("E0308", f"`{function.name}` takes no dims" + (" more" if formals else ""), span)
    required = sum(formal.default is None for formal in formals)
    if not required <= len(items) <= len(formals):
        names = ", ".join(formal.name.text for formal in formals)
        title = f"`{function.name}` has the dims [{names}], {len(items)} are given"
        raise frame.fault("E0308", title, span)
    bound: dict[str, Dims] = {}
    for formal, item in zip(formals, items, strict=False):
        bound[formal.name.text] = _formal_axes(frame, formal, item, items, bound, args)
    inner = frame.inside(function.module, f"fn {function.name}", span, dims=dict(bound))
    for formal in formals[len(items) :]:
        assert formal.default is not None, "counted above"
        bound[formal.name.text] = inner.dims[formal.name.text] = d.axes(inner, formal.default, formal.name.text)
    _distinct(frame, function, bound, span)
    return replace(function, dims=bound)


def _formal_axes(
    frame: Frame,
    formal: s.Formal,
    item: s.ViewItem,
    items: Sequence[s.ViewItem],
    bound: Mapping[str, Dims],
    args: Arguments,
) -> Dims:
    if not isinstance(item, s.Dim):
        raise frame.fault("E0207", "a function takes dims in its brackets", item.span)
    unknown = isinstance(item, s.DimRef) and item.name not in frame.dims and not is_number(frame.names.get(item.name))
    if unknown and isinstance(item, s.DimRef):
        if frame.names.get(item.name) is UNKNOWN:  # reported, or an option that nobody gave yet
            return _unknown_axis(frame, item)
        raise d.unknown_dim(frame, item.name, item.span, _rename_hint(item.name, items, bound, args))
    return d.axes(frame, item, formal.name.text)


def _unknown_axis(frame: Frame, item: s.DimRef) -> Dims:
    """What a dim of unknown size is while probing. Raises Fault."""
    if not frame.context.probing:
        raise Fault
    return d.axes(frame, item)


def _rename_hint(name: str, items: Sequence[s.ViewItem], bound: Mapping[str, Dims], args: Arguments) -> str | None:
    """If two arguments have an axis in common that is bound already, the second may want another name for it."""
    for item, dims in zip(items, bound.values(), strict=False):
        have = [span for value, span in args.positional if isinstance(value, Use) and set(dims) <= set(value.dims)]
        if len(have) > 1 and isinstance(item, s.DimRef):
            return f"{name} is {item.name} under another name: write `{have[1].text}[{item.name} -> {name}]`"
    return None


def _distinct(frame: Frame, function: Function, bound: Mapping[str, Dims], span: Span) -> None:
    seen: dict[Dim, str] = {}
    for formal, dims in bound.items():
        for dim in dims:
            if dim in seen:
                title = f"{dim} is given to `{function.name}` twice, as {seen[dim]} and as {formal}"
                hint = f"give one of them another name: x[{dim} -> {formal}]"
                raise frame.fault("E0204", title, span, hint=hint)
            seen[dim] = formal


# ---- arguments


def bind_args(frame: Frame, function: Function, args: Arguments, span: Span) -> Function:
    """Positional arguments go to what is still open, in order; named ones by name."""
    options = {option.name.text: option for option in function.decl.options}
    bound = dict(function.args)
    places = [name for name in options if name not in bound and name not in args.named]
    if len(args.positional) > len(places):
        extra = args.positional[len(places)][1]
        takes = ", ".join(options) or "none"
        raise frame.fault("E0302", f"`{function.name}` has too many arguments", extra, f"it takes {takes}")
    given = [(name, *arg) for name, arg in zip(places, args.positional, strict=False)]
    given += [(name, *arg) for name, arg in args.named.items()]
    for name, value, at in given:
        if name not in options:
            raise frame.fault(
                "E0301", f"`{function.name}` has no option `{name}`", at, hint=did_you_mean(name, options)
            )
        if name in bound:
            raise frame.fault("E0302", f"`{name}` is given twice", at)
        bound[name] = checked(frame, options[name], value, at)
    return replace(function, args=bound)


def checked(frame: Frame, option: s.Option, value: Value, span: Span) -> Value:
    """An option's value, if it is of the declared type."""
    if value is UNKNOWN:
        raise Fault
    wanted = option.type.text if option.type is not None else "bool" if isinstance(option.default, s.Bool) else None
    fits = {
        None: True,
        "fn": isinstance(value, Function | Primitive) or value is None,
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": is_number(value) or isinstance(value, Use),
        "bool": isinstance(value, bool | Use),
        "text": isinstance(value, str),
    }.get(wanted)
    if fits is None:
        assert option.type is not None, "a type that is not known"
        raise frame.fault(
            "E0309", f"there is no type `{wanted}`", option.type.span, expected="int, float, bool, text or fn"
        )
    if not fits and frame.context.probing and is_free(value):
        return UNKNOWN
    if not fits:
        words = {
            "fn": "a function",
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "text": "a text",
        }
        title = f"`{option.name}` is {words[wanted or 'fn']}, this is {describe(value)}"
        raise frame.fault("E0303", title, span)
    return value


def missing(function: Function) -> list[str]:
    """Arguments without a default that are not bound."""
    return [
        option.name.text
        for option in function.decl.options
        if option.default is None and option.name.text not in function.args
    ]


# ---- application


def apply_function(frame: Frame, function: Function, args: Arguments, span: Span, hint: str | None) -> Value:
    """Bind; apply if nothing is open."""
    bound = bind_args(frame, function, args, span)
    lacks_dims = bound.dims is None and bool(bound.decl.formals)
    if not missing(bound) and not lacks_dims:
        return run(frame, bound, span, hint)
    if any(isinstance(value, Use) for value, _ in args.positional):
        form = ", ".join(formal.name.text for formal in bound.decl.formals)
        if lacks_dims:
            raise frame.fault("E0305", f"`{bound.name}` needs its dims: {bound.name}[{form}](…)", span)
        names = ", ".join(f"`{name}`" for name in missing(bound))
        raise frame.fault("E0302", f"`{bound.name}` lacks {names}", span)
    return bound


def run(frame: Frame, function: Function, span: Span, hint: str | None) -> Value:
    """The value of a function that has all it needs."""
    decl = function.decl
    frame.context.spend(frame, span, STEPS_OF_AN_APPLICATION)
    frame.context.made.add(id(decl))
    inner = frame.inside(function.module, f"fn {function.name}", span, dims=dict(function.dims or {}))
    for option in decl.options:
        value = inner.names[option.name.text] = _argument(frame, inner, function, option, span)
        inner.note(option.span, value)
    inner.carried = statements.carried(inner, [*inner.names.values()], inner.dims.values())
    if is_kernel(function) and any(isinstance(value, Use) for value in inner.names.values()):
        return call_kernel(frame, function, inner, span, hint)
    if is_foreign(function):
        return call_foreign(frame, function, inner, span, hint)
    assert decl.body is not None, f"{function.name} is neither foreign nor has it a body"
    return statements.body_value(inner, decl.body, hint)


def _argument(frame: Frame, inner: Frame, function: Function, option: s.Option, span: Span) -> Value:
    name = option.name.text
    if name not in function.args:
        assert option.default is not None, "nothing is missing"
        return checked(inner, option, inner.evaluate(option.default), option.span)
    value = function.args[name]
    if isinstance(value, Use) and option.dims:
        _fits(frame, inner, function, option, value, span)
    return value


def _fits(frame: Frame, inner: Frame, function: Function, option: s.Option, value: Use, span: Span) -> None:
    """An argument has the axes that the function's text says, `q[T, K]`."""
    wanted = tuple(axis for dim in option.dims or () for axis in d.axes(inner, dim))
    lacking = [dim for dim in wanted if dim not in value.dims]
    if lacking:
        names = ", ".join(dim.name for dim in lacking)
        other = next((dim for dim in value.dims if dim not in wanted and dim.size == lacking[0].size), None)
        hint = None if other is None else f"is {lacking[0]} meant by {other}? write [{other} -> {lacking[0]}]"
        raise frame.fault(
            "E0203", f"`{option.name}` of `{function.name}` needs the axis {names}", span,
            expected=show_dims(wanted), found=show_dims(value.dims), hint=hint,
        )  # fmt: skip
