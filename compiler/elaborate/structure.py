"""Several tensors to one and back: stack, unstack, concat, split; and the order and number of a tensor's axes.

`stack[P](a, b)` makes a new axis in front, `concat[N + M -> K](a, b)` joins along one; what lacks an axis that another
operand has is repeated along it. A part of size 1 (`concat[1 + M -> T](cls, x)`) may lack the axis itself.
"""

from __future__ import annotations

from ..base.span import Span
from ..ir.types import Dim, Dims, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from .forms import written
from .frame import Arguments, Frame
from .values import Value, show_dims
from .views import need_axes

Items = tuple[s.ViewItem, ...] | None


def arranged(frame: Frame, use: Use, dims: Dims, span: Span, hint: str | None = None) -> Use:
    """The value with exactly these axes in this order; those that it lacks repeat it."""
    if use.dims == dims:
        return use
    order = tuple(dim for dim in dims if dim in use.dims)
    assert len(order) == len(use.dims), f"{use.node} has axes beyond {show_dims(dims)}"
    if order != use.dims:
        use = frame.emit1("transpose", use, span=span, hint=hint, dims=order)
    return use if order == dims else frame.emit1("expand", use, span=span, hint=hint, dims=dims)


def _tensors(frame: Frame, args: Arguments, span: Span, what: str, least: int = 1) -> list[Use]:
    for name, (_, at) in args.named.items():
        raise frame.fault("E0301", f"`{what}` has no option `{name}`", at, hint=written(what))
    if len(args.positional) < least:
        raise frame.fault("E0302", f"`{what}` takes tensors in its parentheses", span)
    values = [value for value, _ in args.positional]
    dtype = a.common_dtype(frame, *values)
    return [a.tensor(frame, value, dtype, at) for value, at in args.positional]


def _one(frame: Frame, uses: list[Use], span: Span, what: str) -> Use:
    if len(uses) != 1:
        raise frame.fault("E0302", f"`{what}` takes one tensor, not {len(uses)}", span)
    return uses[0]


def _union(uses: list[Use]) -> Dims:
    """All axes, in the order of the tensor with most of them."""
    first = max(uses, key=lambda use: len(use.dims))
    rest = (dim for use in uses for dim in use.dims if dim not in first.dims)
    return (*first.dims, *dict.fromkeys(rest))


def _axis(frame: Frame, items: Items, span: Span, what: str) -> Dim:
    if items is None or len(items) != 1 or not isinstance(items[0], s.Dim):
        raise frame.fault("E0305", f"`{what}` needs one dim in its brackets: {what}[P](…)", span)
    bound = d.axes(frame, items[0])
    if len(bound) != 1:
        raise frame.fault("E0207", f"`{what}` needs a single axis, not {show_dims(bound)}", items[0].span)
    return bound[0]


def stack(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """`stack[P](a, b)`"""
    dim = _axis(frame, items, span, "stack")
    uses = _tensors(frame, args, span, "stack")
    if dim.size != len(uses):
        raise frame.fault("E0206", f"{show_dims((dim,))} cannot hold {len(uses)} tensors", span)
    dims = _union(uses)
    if dim in dims:
        raise frame.fault("E0204", f"there would be two axes {dim}", span, found=show_dims(dims))
    return frame.emit1("stack", *(arranged(frame, use, dims, span) for use in uses), span=span, hint=hint, dim=dim)


def unstack(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """`a, b = unstack[P](x)`"""
    dim = _axis(frame, items, span, "unstack")
    use = _one(frame, _tensors(frame, args, span, "unstack"), span, "unstack")
    need_axes(frame, use, (dim,), args.positional[0][1])
    if dim.size is None:
        raise frame.fault("E0206", f"the size of {dim} must be known to unstack it", span)
    return frame.emit("unstack", use, span=span, hint=hint, dim=dim)


def _sum_and_whole(frame: Frame, items: Items, span: Span, what: str) -> tuple[list[s.Dim], s.Dim]:
    """The parts and the whole of `[N + M -> K]` (concat) or `[K -> N + M]` (split)."""
    if items is None or len(items) != 1 or not isinstance(items[0], s.DimArrow):
        raise frame.fault("E0305", f"`{what}` says in its brackets what becomes of the axis", span, hint=written(what))
    arrow = items[0]
    parts, whole = (arrow.source, arrow.target) if what == "concat" else (arrow.target, arrow.source)
    found: list[s.Dim] = []
    while isinstance(parts, s.DimBinary) and parts.op == "+":
        found.append(parts.right)
        parts = parts.left
    return [parts, *reversed(found)], whole


def _whole(frame: Frame, whole: s.Dim, sizes: list[int | None], span: Span) -> Dim:
    """The dim of the whole, which must be as large as its parts; a new name is defined."""
    parts = None if None in sizes else sum(size for size in sizes if size is not None)
    if isinstance(whole, s.DimRef) and whole.name not in frame.dims:
        frame.dims[whole.name] = (d.fresh(frame, whole.name, parts, whole.span),)
    bound = d.axes(frame, whole)
    if len(bound) != 1:
        raise frame.fault("E0207", f"a single axis is needed, not {show_dims(bound)}", whole.span)
    if bound[0].size != parts:
        text = " + ".join("?" if size is None else str(size) for size in sizes)
        raise frame.fault("E0206", f"{show_dims(bound)} is not as large as its parts: {text}", span)
    return bound[0]


def concat(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """`concat[1 + M -> T](cls, x)`"""
    written, whole = _sum_and_whole(frame, items, span, "concat")
    uses = _tensors(frame, args, span, "concat")
    if len(uses) != len(written):
        raise frame.fault("E0302", f"`concat` joins {len(written)} parts here, not {len(uses)}", span)
    parts = tuple(_single(frame, part) for part in written)
    for use, part, (_, at) in zip(uses, parts, args.positional, strict=True):
        if part.size != 1:
            need_axes(frame, use, (part,), at)
    dim = _whole(frame, whole, [part.size for part in parts], span)
    shape = _common_shape(uses, parts, dim)
    ready = [
        arranged(frame, use, tuple(part if axis == dim else axis for axis in shape), span)
        for use, part in zip(uses, parts, strict=True)
    ]
    return frame.emit1("concat", *ready, span=span, hint=hint, dim=dim, parts=parts)


def _common_shape(uses: list[Use], parts: Dims, dim: Dim) -> Dims:
    """The result's axes: those of the tensor with most of them, its part's axis called as the whole."""
    named = [use.relabel({part: dim}) for use, part in zip(uses, parts, strict=True)]
    shape = _union(named)
    return shape if dim in shape else (dim, *shape)


def split(frame: Frame, items: Items, args: Arguments, span: Span, hint: str | None) -> Value:
    """`a, b = split[K -> N + M](x)`"""
    written, whole = _sum_and_whole(frame, items, span, "split")
    use = _one(frame, _tensors(frame, args, span, "split"), span, "split")
    bound = d.axes(frame, whole)
    need_axes(frame, use, bound, args.positional[0][1])
    parts = tuple(_single(frame, part) for part in written)
    dim = _whole(frame, whole, [part.size for part in parts], span)
    return frame.emit("split", use, span=span, hint=hint, dim=dim, parts=parts)


def _single(frame: Frame, part: s.Dim) -> Dim:
    bound = d.axes(frame, part)
    if len(bound) != 1:
        raise frame.fault("E0207", f"a single axis is needed, not {show_dims(bound)}", part.span)
    return bound[0]
