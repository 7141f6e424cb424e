"""Dims as they are written: names, groups, arithmetic.

A name stands for the axes that the frame binds it to (a formal may be bound to a group, `I` of `Linear[(H K), D]`).
Arithmetic is on sizes, exact, within bounds; a size that is free stays free. `Y / 2` and `2 * D` are one dim wherever
they are written (and `Y / 2 * 2` is Y); any other result makes a dim of its own, called as the place that it is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from ..base.diagnostic import did_you_mean
from ..base.span import Span
from ..ir.types import Dim, Dims
from ..language import syntax as s
from .frame import Fault, Frame
from .values import UNKNOWN, is_number

MAX_SIZE = 2**40


def axes(frame: Frame, dim: s.Dim, name: str | None = None) -> Dims:
    """The axes that a dim stands for; `name` is what a nameless one (`4 * D`, `1`) is called."""
    if isinstance(dim, s.DimRef):
        bound = lookup(frame, dim.name)
        if bound is not None:
            return bound
    if isinstance(dim, s.DimGroup):
        return tuple(axis for part in dim.parts for axis in axes(frame, part, name))
    if isinstance(dim, s.DimBinary) and dim in frame.unnamed:
        return (frame.unnamed[dim],)
    share = _share(frame, dim) if isinstance(dim, s.DimBinary) else None
    if share is not None and share[0] is not None:
        return (_scaled(frame, dim, *share),)
    value = size(frame, dim)
    made = fresh(frame, name or _spelling(dim), value, dim.span)
    if isinstance(dim, s.DimBinary):
        frame.unnamed[dim] = made
    return (made,)


def _share(frame: Frame, dim: s.Dim) -> tuple[Dim | None, Fraction] | None:
    """`Y * 2 / 3` as (Y, 2/3), a number as (None, number); None for what is no product with a single dim."""
    if isinstance(dim, s.DimRef):
        bound = lookup(frame, dim.name)
        if bound is not None:
            return frame.context.scaled.origin(bound[0]) if len(bound) == 1 else None
    if isinstance(dim, s.DimRef | s.DimNumber):
        number = size(frame, dim)
        return None if number is None else (None, Fraction(number))
    if not isinstance(dim, s.DimBinary) or dim.op not in "*/":
        return None
    left, right = _share(frame, dim.left), _share(frame, dim.right)
    if left is None or right is None or (left[0] is not None and right[0] is not None):
        return None
    if dim.op == "*":
        return left[0] or right[0], left[1] * right[1]
    return None if right[0] is not None or not right[1] else (left[0], left[1] / right[1])


def _scaled(frame: Frame, written: s.Dim, root: Dim | None, share: Fraction) -> Dim:
    """The dim that is a share of another, made where it is written first."""
    assert root is not None, "a number makes a dim of its own"
    value = size(frame, written)
    known = frame.context.scaled.find(root, share)
    if known is not None:
        return known
    times = f"*{share.numerator}" if share.numerator != 1 else ""
    parts = f"/{share.denominator}" if share.denominator != 1 else ""
    made = fresh(frame, root.name.rsplit(".", 1)[-1] + times + parts, value, written.span)
    frame.context.scaled.keep(made, root, share)
    return made


def lookup(frame: Frame, name: str) -> Dims | None:
    """What a dim's name is bound to, or None if it is not."""
    return frame.dims.get(name)


def fresh(frame: Frame, name: str, value: int | None, span: Span) -> Dim:
    """A dim of one's own."""
    if value is not None and not 0 < value <= MAX_SIZE:
        raise frame.fault("E0205", f"dim {name} cannot be {value}", span, f"sizes go from 1 to {MAX_SIZE}")
    return frame.output.dims.fresh(name, value, frame.path)


def size(frame: Frame, dim: s.Dim) -> int | None:
    """The size of a dim, None while it is free. Raises Fault."""
    if isinstance(dim, s.DimNumber):
        if not isinstance(dim.value, int):
            raise frame.fault("E0205", f"a size is a whole number, not {dim.value}", dim.span)
        return dim.value
    if isinstance(dim, s.DimGroup):
        return product([size(frame, part) for part in dim.parts])
    if isinstance(dim, s.DimBinary):
        return _binary(frame, dim)
    return _named_size(frame, dim)


def _named_size(frame: Frame, dim: s.DimRef) -> int | None:
    bound = lookup(frame, dim.name)
    if bound is not None:
        return product([axis.size for axis in bound])
    value = frame.names.get(dim.name)
    if value is UNKNOWN:  # an option that nobody gave yet, or something that was reported
        if frame.context.probing:
            return None
        raise Fault
    if is_number(value):
        if isinstance(value, int):
            return value
        raise frame.fault("E0205", f"`{dim.name}` is {value}, a size is a whole number", dim.span)
    raise unknown_dim(frame, dim.name, dim.span)


def _binary(frame: Frame, dim: s.DimBinary) -> int | None:
    left, right = size(frame, dim.left), size(frame, dim.right)
    if left is None or right is None:
        return None
    if dim.op in "/%" and right == 0:
        raise frame.fault("E0304", "division by zero", dim.span)
    if dim.op == "/":
        if left % right:
            title = f"{dim.span.text} is {left} / {right}, which is no whole number"
            raise frame.fault("E0205", title, dim.span, f"{left} does not divide by {right}")
        return left // right
    value = {"+": left + right, "-": left - right, "*": left * right}.get(dim.op)
    result = left % right if value is None else value
    if abs(result) > MAX_SIZE:
        raise frame.fault("E0205", f"{dim.span.text} is {left} {dim.op} {right}, which is too large", dim.span)
    return result


def product(sizes: Iterable[int | None]) -> int | None:
    """The size of several axes as one, None if any is free."""
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)


def total(dims: Dims) -> int | None:
    """How many elements an array of these axes has."""
    return product([dim.size for dim in dims])


def unknown_dim(frame: Frame, name: str, span: Span, hint: str | None = None) -> Exception:
    """A name that is no dim here: misspelt, only carried, or not a dim at all."""
    if any(called(dim, name) for dim in frame.carried):
        title = f"{name} is only carried through {frame.title}, so it cannot be named in it"
        return frame.fault("E0202", title, span, hint=f"add {name} to the signature of {frame.title}")
    if name in frame.names:
        return frame.fault("E0201", f"`{name}` is no dim here", span, "a dim is needed", hint=hint)
    known = [*frame.dims, *(key for key, value in frame.names.items() if is_number(value))]
    expected = f"one of {', '.join(known)}" if known else None
    title = f"there is no dim `{name}` here"
    return frame.fault("E0201", title, span, expected=expected, hint=hint or did_you_mean(name, known))


def called(dim: Dim, name: str) -> bool:
    """Whether a dim goes by a name somewhere up the calls."""
    return dim.name == name or dim.name.rsplit(".", 1)[-1] == name


def names_in(node: s.Node) -> set[str]:
    """Every name that a dim or an expression mentions."""
    found = set[str]()
    for part in s.walk(node):
        if isinstance(part, s.DimRef | s.Ref):
            found.add(part.name)
        elif isinstance(part, s.Name):
            found.add(part.text)
    return found


def define(frame: Frame, statement: s.DimDef) -> None:
    """`dim P = 2, M = K / 2`: new dims in the frame."""
    for binding in statement.bindings:
        name = binding.name.text
        taken(frame, binding.name)
        frame.dims[name] = (fresh(frame, name, size(frame, binding.dim), binding.dim.span),)


def taken(frame: Frame, name: s.Name) -> None:
    """Report a dim's or a value's name that means something in the frame already."""
    if name.text in frame.dims or name.text in frame.names:
        raise frame.fault("E0102", f"`{name}` has a meaning here already", name.span, hint="choose another name")


def _spelling(dim: s.Dim) -> str:
    """A nameless dim's name, for reports."""
    if isinstance(dim, s.DimNumber):
        return "one" if dim.value == 1 else f"n{dim.value}"
    words = [part.name for part in s.walk(dim) if isinstance(part, s.DimRef)]
    return "_".join(words[:3]) or "n"


__all__ = ["axes", "called", "define", "fresh", "lookup", "names_in", "product", "size", "total", "unknown_dim"]
