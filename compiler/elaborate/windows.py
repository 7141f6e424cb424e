"""`window[Y -> (A P)](x, stride = 2, before = 1, after = 1, fill = 0)` and `unwindow[(A P) -> Y](y, …)`.

An axis becomes two: the places of a window, and the places within it. The way back adds up what came from one place.
A new name for the window's places takes the number that fits.
"""

from __future__ import annotations

from ..base.diagnostic import did_you_mean
from ..base.span import Span
from ..ir.types import Attr, Dim, Dims, Use
from ..language import syntax as s
from ..ops.windows import places
from . import arithmetic as a
from . import dims as d
from .forms import written
from .frame import Arguments, Fault, Frame
from .values import UNKNOWN, Value, describe, is_number, show_dims
from .views import need_axes

Items = tuple[s.ViewItem, ...] | None


def window(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """An axis seen through a window."""
    use, options = _arguments(frame, args, span, "window")
    source, (first, second) = _arrow(frame, items, span, "window")
    dim = _single(frame, source)
    need_axes(frame, use, (dim,), source.span)
    size = _single(frame, second)
    out = _counted(frame, first, dim, size, options, span)
    _apart(frame, use, (dim,), (out, size), span)
    return _emit(frame, "window", use, (dim, out, size), options, span, hint)


def unwindow(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """A window's places put back and added up."""
    use, options = _arguments(frame, args, span, "unwindow")
    target, (first, second) = _arrow(frame, items, span, "unwindow")
    out, size = _single(frame, first), _single(frame, second)
    need_axes(frame, use, (out, size), span)
    if isinstance(target, s.DimRef) and target.name not in frame.dims:
        length = None if out.size is None else _length(out.size, size.size or 0, options)
        frame.dims[target.name] = (d.fresh(frame, target.name, length, target.span),)
    dim = _single(frame, target)
    _fit(frame, (dim, out, size), options, span)
    _apart(frame, use, (out, size), (dim,), span)
    return _emit(frame, "unwindow", use, (dim, out, size), options, span, hint)


# ---- what is written


def _arguments(frame: Frame, args: Arguments, span: Span, what: str) -> tuple[Use, dict[str, Attr]]:
    """The tensor, and stride, before, after (and fill)."""
    defaults = {"stride": 1, "before": 0, "after": 0, **({"fill": 0} if what == "window" else {})}
    options: dict[str, Attr] = dict(defaults)
    for name, (value, at) in args.named.items():
        if name not in defaults:
            raise frame.fault(
                "E0301", f"`{what}` has no option `{name}`", at, hint=did_you_mean(name, defaults) or written(what)
            )
        options[name] = _option(frame, what, name, value, at)
    if len(args.positional) != 1:
        raise frame.fault("E0302", f"`{what}` takes one tensor, not {len(args.positional)}", span)
    value, at = args.positional[0]
    return a.tensor(
        frame, value, a.common_dtype(frame, value) if not isinstance(value, Use) else value.dtype, at
    ), options


def _option(frame: Frame, what: str, name: str, value: Value, at: Span) -> Attr:
    if value is UNKNOWN:
        raise Fault
    if name == "fill" and is_number(value):
        assert isinstance(value, int | float), "a number"
        return float(value)
    if not isinstance(value, int) or isinstance(value, bool):
        kind = "a number" if name == "fill" else "a whole number"
        raise frame.fault("E0303", f"`{name}` of `{what}` is {kind}, this is {describe(value)}", at)
    least = 1 if name == "stride" else 0
    if value < least:
        raise frame.fault("E0216", f"`{name}` of `{what}` is {least} or more, not {value}", at)
    return value


def _arrow(frame: Frame, items: Items, span: Span, what: str) -> tuple[s.Dim, tuple[s.Dim, s.Dim]]:
    """The long axis, and the two that stand for it."""
    if items is not None and len(items) == 1 and isinstance(items[0], s.DimArrow):
        arrow = items[0]
        long, pair = (arrow.source, arrow.target) if what == "window" else (arrow.target, arrow.source)
        if isinstance(pair, s.DimGroup) and len(pair.parts) == 2:
            return long, (pair.parts[0], pair.parts[1])
    raise frame.fault("E0305", f"`{what}` says in its brackets what becomes of the axis", span, hint=written(what))


def _single(frame: Frame, dim: s.Dim) -> Dim:
    bound = d.axes(frame, dim)
    if len(bound) != 1:
        raise frame.fault("E0207", f"a single axis is needed, not {show_dims(bound)}", dim.span)
    return bound[0]


# ---- sizes


def _counted(frame: Frame, written: s.Dim, dim: Dim, size: Dim, options: dict[str, Attr], span: Span) -> Dim:
    """The dim that counts the window's places; a name that is new here takes their number."""
    fits = _places(frame, dim, size, options, span)
    if isinstance(written, s.DimRef) and written.name not in frame.dims and fits != 0:
        frame.dims[written.name] = (d.fresh(frame, written.name, fits, written.span),)
    out = _single(frame, written)
    _fit(frame, (dim, out, size), options, span)
    return out


def _numbers(options: dict[str, Attr]) -> tuple[int, int, int]:
    stride, before, after = (options[name] for name in ("stride", "before", "after"))
    assert isinstance(stride, int) and isinstance(before, int) and isinstance(after, int), "read as such"
    return stride, before, after


def _places(frame: Frame, dim: Dim, size: Dim, options: dict[str, Attr], span: Span) -> int | None:
    """How often the window fits, None while the axis is free."""
    if size.size is None:
        raise frame.fault("E0213", f"the size of {size} must be known to look through it", span)
    return None if dim.size is None else max(0, places(dim.size, size.size, *_numbers(options)))


def _fit(frame: Frame, dims: tuple[Dim, Dim, Dim], options: dict[str, Attr], span: Span) -> None:
    dim, out, size = dims
    fits = _places(frame, dim, size, options, span)
    if fits is None or out.size == fits:
        return
    stride, before, after = _numbers(options)
    text = f"a window of {size.size} at every {stride} fits {fits} times into {show_dims((dim,))}"
    title = f"{text} with {before} before and {after} after, not {out.size} times"
    raise frame.fault("E0216", title, span, found=show_dims((out, size)))


def _length(out: int, size: int, options: dict[str, Attr]) -> int:
    """The shortest axis that a window fits into so often."""
    stride, before, after = _numbers(options)
    return (out - 1) * stride + size - before - after


def _apart(frame: Frame, use: Use, gone: Dims, new: Dims, span: Span) -> None:
    rest = [dim for dim in use.dims if dim not in gone]
    twice = [dim for at, dim in enumerate(new) if dim in rest or dim in new[:at]]
    if twice:
        raise frame.fault("E0204", f"there would be two axes {twice[0]}", span, found=show_dims(use.dims))


def _emit(
    frame: Frame,
    what: str,
    use: Use,
    dims: tuple[Dim, Dim, Dim],
    options: dict[str, Attr],
    span: Span,
    hint: str | None,
) -> Use:
    dim, out, size = dims
    return frame.emit1(what, use, span=span, hint=hint, dim=dim, out=out, size=size, **options)
