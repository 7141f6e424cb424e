"""Layouts of weight maps: `[D, (3 H K)]` against the axes of a parameter `[D, H, K]`.

Each word of a layout is an axis of theirs: one of ours by its name, `1` (an axis of size one), the number of parts that
lie side by side, or a sum of which each part is a summand. Names that are no axis of the parameter make up the one axis
that is left, slowest first: `[(G R K), D]` for `[D, H, K]` with H = G R.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..base.span import Span
from ..ir.types import Dim
from ..language import syntax as s
from .frame import Fault, Frame
from .values import show_dims
from .weight_data import Box, Piece
from .weight_paths import Parameter


@dataclass(frozen=True, slots=True)
class Fit:
    """How a parameter of some kind lies in a tensor of theirs.

    `places`: for each of their axes the axis of ours, or None; `split`: our axis that several of theirs make up.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    there: Box
    order: tuple[int, ...]
    places: tuple[Dim | None, ...]

    def piece(self, one: Parameter) -> Piece:
        """The piece of this very parameter: its layer there, its bank's member here."""
        there = tuple(
            (one.layers[place], 1) if place is not None and place in one.layers else box
            for place, box in zip(self.places, self.there, strict=True)
        )
        return Piece(one.name, tuple(map(one.extent, one.dims)), there, self.order)


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of theirs, the piece's box on it, and which axis of ours it is. `loose`: it may be a part of one."""

    size: int
    box: tuple[int, int]
    ours: Dim | None
    loose: bool
    span: Span


def fit(frame: Frame, layout: Sequence[s.Dim], one: Parameter, part: int, parts: int, where: Span) -> Fit:
    """How part `part` of `parts` lies in a layout. Raises Fault."""
    items = [[axis for atom in _atoms(item) for axis in _axis(frame, atom, one, part, parts)] for item in layout]
    axes = [axis for item in items for axis in item]
    if parts > 1 and sum(axis.box != (0, axis.size) for axis in axes) != 1:
        hint = f"write how they lie: ({parts} …) one after the other, (A + B …) of different sizes"
        raise frame.fault("E0802", f"the layout does not say where the {parts} parameters lie", where, hint=hint)
    order, places = _order(frame, axes, one, where)
    shape = tuple(math.prod(axis.size for axis in item) for item in items)
    return Fit(shape, tuple(axis.size for axis in axes), tuple(axis.box for axis in axes), order, places)


def _order(
    frame: Frame, axes: list[_Axis], one: Parameter, where: Span
) -> tuple[tuple[int, ...], tuple[Dim | None, ...]]:
    """Their axes in our order, those that are no axis of ours in front."""
    wanted = [dim for dim in (*one.dims, *one.layers) if dim not in one.members]
    named: set[Dim] = set()
    for axis in axes:
        if axis.ours in named:
            hint = f"its owner calls its axes {' and '.join(_called_by_owner(one))}: write these"
            raise frame.fault("E0802", f"the layout has {axis.ours} of {one.name} twice", axis.span, hint=hint)
        named |= {axis.ours} if axis.ours is not None else set()
    loose = [at for at, axis in enumerate(axes) if axis.loose]
    left = [dim for dim in wanted if dim not in named]
    split = math.prod(axes[at].box[1] for at in loose)
    if len(left) > 1 or bool(left) != bool(loose) or (left and _size(left[0]) != split):
        raise _misfit(frame, [axes[at] for at in loose], left, one, where)
    inner = [at for dim in one.dims if dim in wanted for at in (loose if dim in left else [_index(axes, dim)])]
    front = [at for at in range(len(axes)) if at not in inner]
    return (*front, *inner), tuple(axis.ours for axis in axes)


def _misfit(frame: Frame, loose: list[_Axis], left: list[Dim], one: Parameter, where: Span) -> Fault:
    whole = f"{one.name} {show_dims(one.dims)}"
    words = " ".join(f"{axis.span.text} = {axis.box[1]}" for axis in loose)
    if not left:
        return frame.fault("E0802", f"{words} is no axis of {whole}", loose[0].span)
    title = f"nothing in the layout is {show_dims(tuple(left))} of {whole}"
    return frame.fault("E0802", title, loose[0].span if loose else where, found=words or None)


def _index(axes: list[_Axis], dim: Dim) -> int:
    return next(at for at, axis in enumerate(axes) if axis.ours == dim)


def _atoms(dim: s.Dim) -> Iterator[s.Dim]:
    if isinstance(dim, s.DimGroup):
        for part in dim.parts:
            yield from _atoms(part)
    else:
        yield dim


def _axis(frame: Frame, atom: s.Dim, one: Parameter, part: int, parts: int) -> Iterator[_Axis]:
    if isinstance(atom, s.DimNumber):
        size = _number(frame, atom)
        side_by_side = size == parts and parts > 1
        yield _Axis(size, (part, 1) if side_by_side else (0, size), None, size > 1 and not side_by_side, atom.span)
    elif isinstance(atom, s.DimRef):
        for dim, size in _named(frame, atom, one):
            yield _Axis(size, (0, size), dim, dim is None, atom.span)
    else:
        yield _sum(frame, atom, one, part, parts)


def _number(frame: Frame, atom: s.DimNumber) -> int:
    if not isinstance(atom.value, int) or atom.value < 1:
        raise frame.fault("E0802", f"an axis has a whole size, not {atom.text}", atom.span)
    return atom.value


def _named(frame: Frame, atom: s.DimRef, one: Parameter) -> list[tuple[Dim | None, int]]:
    """The axes of a name, or its size where it is none of the parameter's.

    The owner's names come first. Outside of it both axes of a square matrix may have the same name.
    """
    known = [scope[atom.name] for scope in one.scopes if atom.name in scope]
    own = one.scopes[0].get(atom.name, ())
    if own and all(dim in one.dims for dim in own):
        return [(dim, _size(dim)) for dim in own]
    found = {tuple(one.called(dim) for dim in dims) for dims in known}
    choices = {axes for axes in found if all(axes)}
    if len(choices) > 1 or any(len(axis) > 1 for axes in choices for axis in axes):
        words = " or ".join(dict.fromkeys(dim.name for axes in choices for axis in axes for dim in axis))
        names = " and ".join(_called_by_owner(one))
        title = f"`{atom.name}` may be {words} of {one.name} {show_dims(one.dims)}"
        hint = f"its owner calls them {names}: write these"
        raise frame.fault("E0802", title, atom.span, hint=hint)
    if choices:
        (axes,) = choices
        return [(axis[0], _size(axis[0])) for axis in axes]
    if not known:
        names = ", ".join(_called_by_owner(one))
        raise frame.fault("E0802", f"{one.name} knows no dim `{atom.name}`", atom.span, expected=names)
    return [(None, _extent(frame, atom, known[0]))]


def _called_by_owner(one: Parameter) -> list[str]:
    """What the block that owns a parameter calls its axes, in their order."""
    called = [name for dim in one.dims for name, dims in one.scopes[0].items() if dim in dims]
    return list(dict.fromkeys(called or [dim.name.rsplit(".", 1)[-1] for dim in one.dims]))


def _extent(frame: Frame, atom: s.DimRef, dims: Sequence[Dim]) -> int:
    """How many elements the dims of a name span. What data gives its size (a batch) is no parameter's axis."""
    if any(dim.size is None for dim in dims):
        hint = "a layout has the axes of parameters: dims with a size"
        raise frame.fault("E0802", f"`{atom.name}` has no size of its own", atom.span, hint=hint)
    return math.prod(_size(dim) for dim in dims)


def _sum(frame: Frame, atom: s.Dim, one: Parameter, part: int, parts: int) -> _Axis:
    """`H + G + G`: each part lies in its own summand, a number stands for as many parts that have no axis there."""
    begin = 0
    found: tuple[int, int, Dim | None] | None = None
    seen = 0
    for summand in _summands(frame, atom):
        if isinstance(summand, s.DimNumber):
            count, size, dim = _number(frame, summand), 1, None
        elif seen != part:
            count, size, dim = 1, _elsewhere(frame, summand, one), None
        else:
            count, ((dim, size), *more) = 1, _named(frame, summand, one)
            if more:
                raise frame.fault("E0802", f"`{summand.name}` is several axes, which cannot be a summand", summand.span)
        if seen <= part < seen + count:
            found = begin + (part - seen) * size, size, dim
        begin, seen = begin + count * size, seen + count
    if found is None or seen != parts:
        raise frame.fault("E0802", f"{atom.span.text} is of {seen} parts, and {parts} are given", atom.span)
    start, size, dim = found
    return _Axis(begin, (start, size), dim, dim is None and size > 1, atom.span)


def _elsewhere(frame: Frame, summand: s.DimRef, one: Parameter) -> int:
    """The size of another part's summand, which the owner of this one does not name."""
    for scope in (*one.scopes[1:], one.scopes[0]):
        if summand.name in scope:
            return _extent(frame, summand, scope[summand.name])
    raise frame.fault("E0802", f"{one.name} knows no dim `{summand.name}`", summand.span)


def _summands(frame: Frame, atom: s.Dim) -> Iterator[s.DimRef | s.DimNumber]:
    if isinstance(atom, s.DimBinary) and atom.op == "+":
        yield from _summands(frame, atom.left)
        yield from _summands(frame, atom.right)
    elif isinstance(atom, s.DimRef | s.DimNumber):
        yield atom
    else:
        hint = "a layout has names, numbers, groups (H K) and sums (H + G)"
        raise frame.fault("E0802", f"`{atom.span.text}` is no axis of a layout", atom.span, hint=hint)


def _size(dim: Dim) -> int:
    assert dim.size is not None, "a parameter's sizes are known"
    return dim.size
