"""Views of a tensor: `x[T -> S]`, `x[H -> (G R)]`, `x[(G R) -> H]`, `x[T = 0]`, `table[V = ids]`.

A rename is another label on the edge and costs nothing; a split or a merge is a node; an index is a gather. A name on
the right that the frame does not know yet becomes a dim of it, with the size that is left for it.
"""

from __future__ import annotations

from ..base.diagnostic import Label
from ..base.span import Span
from ..ir.types import Dim, Dims, DType, Use
from ..language import syntax as s
from . import dims as d
from .arithmetic import constant
from .frame import Fault, Frame
from .values import UNKNOWN, Value, describe, show_dims


def view(frame: Frame, value: Use, items: tuple[s.ViewItem, ...], hint: str | None) -> Use:
    """The items one after the other."""
    for item in items:
        last = hint if item is items[-1] else None
        if isinstance(item, s.DimArrow):
            value = _arrow(frame, value, item, last)
        elif isinstance(item, s.At):
            value = _at(frame, value, item, last)
        else:
            fix = f"write what becomes of it: [{item.span.text} -> S], [{item.span.text} = 0]"
            raise frame.fault("E0207", "a view says what an axis becomes", item.span, hint=fix)
    return value


def need_axes(frame: Frame, value: Use, wanted: Dims, span: Span, what: str = "this") -> None:
    """Report axes that a value lacks."""
    lacking = [dim for dim in wanted if dim not in value.dims]
    if not lacking:
        return
    names = ", ".join(dim.name for dim in lacking)
    raise frame.fault(
        "E0203", f"{what} has no axis {names}", span, expected=f"an axis {names}", found=show_dims(value.dims)
    )


# ---- arrows


def _arrow(frame: Frame, value: Use, item: s.DimArrow, hint: str | None) -> Use:
    sources = d.axes(frame, item.source)
    need_axes(frame, value, sources, item.source.span)
    targets = _targets(frame, item, d.total(sources))
    if sources == targets:
        return value
    _unclashing(frame, value, sources, targets, item)
    _same_size(frame, sources, targets, item)
    if len(sources) == len(targets) == 1:
        return value.relabel(dict(zip(sources, targets, strict=True)))
    whole = _single(frame, sources, targets)
    if len(sources) > 1:
        merged = hint if len(targets) == 1 else None
        value = frame.emit1("merge_dims", value, span=item.span, hint=merged, dims=sources, into=whole)
    if len(targets) > 1:
        return frame.emit1("split_dim", value, span=item.span, hint=hint, dim=whole, into=targets)
    return value


def _single(frame: Frame, sources: Dims, targets: Dims) -> Dim:
    """The one axis that several are merged into or split from, a new one if both sides have several."""
    for side in (sources, targets):
        if len(side) == 1:
            return side[0]
    return frame.output.dims.fresh("axis", d.total(sources), frame.path)


def _targets(frame: Frame, item: s.DimArrow, whole: int | None) -> Dims:
    """The axes on the right; names that are new here take what size is left."""
    parts = item.target.parts if isinstance(item.target, s.DimGroup) else (item.target,)
    new = [part for part in parts if isinstance(part, s.DimRef) and _is_new(frame, part)]
    if len(new) > 1:
        raise d.unknown_dim(frame, new[0].name, new[0].span, "define all but one of them: dim P = 2")
    if new:
        known = d.product([d.size(frame, part) for part in parts if part is not new[0]])
        frame.dims[new[0].name] = (d.fresh(frame, new[0].name, _rest(frame, whole, known, item), new[0].span),)
    return tuple(axis for part in parts for axis in d.axes(frame, part))


def _is_new(frame: Frame, part: s.DimRef) -> bool:
    return part.name not in frame.dims and not isinstance(frame.names.get(part.name), int)


def _rest(frame: Frame, whole: int | None, known: int | None, item: s.DimArrow) -> int | None:
    if whole is None or known is None:
        return None
    if known == 0 or whole % known:
        raise frame.fault("E0205", f"an axis of {whole} does not split into parts of {known}", item.span)
    return whole // known


def _unclashing(frame: Frame, value: Use, sources: Dims, targets: Dims, item: s.DimArrow) -> None:
    rest = [dim for dim in value.dims if dim not in sources]
    twice = [dim for at, dim in enumerate(targets) if dim in rest or dim in targets[:at]]
    if twice:
        title = f"there would be two axes {twice[0].name}"
        raise frame.fault("E0204", title, item.target.span, found=show_dims(value.dims))


def _same_size(frame: Frame, sources: Dims, targets: Dims, item: s.DimArrow) -> None:
    before, after = d.total(sources), d.total(targets)
    if before != after:
        title = f"{item.span.text} changes the size: {_count(before)} elements become {_count(after)}"
        found = f"{show_dims(sources)} and {show_dims(targets)}"
        raise frame.fault("E0206", title, item.span, found=found)


def _count(size: int | None) -> str:
    return "a free number of" if size is None else str(size)


# ---- indices


def _at(frame: Frame, value: Use, item: s.At, hint: str | None) -> Use:
    name = item.name
    bound = d.axes(frame, s.DimRef(name.span, name.text))
    need_axes(frame, value, bound, name.span)
    ids = _ids(frame, frame.evaluate(item.value), bound, item)
    value, dim = _one_axis(frame, value, bound, item)
    if dim in ids.dims:  # x[T = reversed[T]]: the axis that is read is another than the one that results
        apart = frame.output.dims.fresh(dim.name, dim.size, frame.path)
        value, dim = value.relabel({dim: apart}), apart
    return frame.emit1("gather", value, ids, span=item.span, hint=hint, dim=dim)


def _one_axis(frame: Frame, value: Use, bound: Dims, item: s.At) -> tuple[Use, Dim]:
    if len(bound) == 1:
        (dim,) = bound
        return value, dim
    whole = frame.output.dims.fresh(item.name.text, d.total(bound), frame.path)
    return frame.emit1("merge_dims", value, span=item.span, dims=bound, into=whole), whole


def _ids(frame: Frame, value: Value, bound: Dims, item: s.At) -> Use:
    size = d.total(bound)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0 or (size is not None and value >= size):
            title = f"{item.name} = {value} is outside of {show_dims(bound)}"
            raise frame.fault("E0208", title, item.value.span, "counting starts at 0")
        return constant(frame, value, DType.I64, item.value.span)
    if value is UNKNOWN:
        raise Fault
    if not isinstance(value, Use) or value.dtype is not DType.I64:
        title = f"an axis is indexed by whole numbers, this is {describe(value)}"
        raise frame.fault("E0208", title, item.value.span)
    check_limit(frame, value, bound, item.value.span, None)
    return value


def check_limit(frame: Frame, ids: Use, bound: Dims, span: Span, block: str | None, made: Span | None = None) -> None:
    """Report ids that count in a larger dim than the one that they index."""
    limit = frame.output.limits.get(ids.value)
    size = d.total(bound)
    if limit is None or limit.size is None or size is None or limit.size <= size:
        return
    table = block or ", ".join(f"{dim.name} = {dim.size}" for dim in bound)
    labels = () if made is None else (Label(made, "made here"),)
    title = f"ids in {show_dims((limit,))} do not fit {table}"
    hint = "are the dims in the right order?" if block else None
    raise frame.fault("E0209", title, span, hint=hint, others=labels)
