"""The kinds of value that a record's keys take, as data, and what they are read as.

A schema is a table of these; `reading` reads an expression by one. In words: `describe` says what a kind expects,
`show` what was found, `fits` whether an expression has a kind's shape at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base.span import Span
from ..language import syntax as s
from .units import UNITS, Dimension, Quantity, constant, example


@dataclass(frozen=True, slots=True)
class Word:
    """A bare name: `f32`, `console`."""

    text: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Applied:
    """A form: `tokens("data/*.bin", dtype = uint16)`; with `before`, what was piped into it.

    `rest` holds the positional arguments beyond those that have names.
    """

    name: str
    arguments: Mapping[str, Setting]
    rest: tuple[Setting, ...] = ()
    before: Applied | None = None
    span: Span = field(compare=False, repr=False, kw_only=True)
    spans: Mapping[str, Span] = field(default_factory=dict[str, Span], compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Named:
    """Items of a list with names: `[T = 128, S = 64]`."""

    items: tuple[tuple[str, Setting], ...]


# What a key may hold once it is read. Expressions (a loss) stay syntax.
Setting = None | bool | int | float | str | Word | Quantity | Applied | Named | tuple["Setting", ...] | s.Node


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, at least `least`, plain or in one of `units`."""

    least: int = 0
    units: tuple[Dimension, ...] = ()


@dataclass(frozen=True, slots=True)
class Real:
    """A plain number, above (or at) `least`, at most `most`."""

    least: float | None = None
    most: float | None = None
    above: bool = False


@dataclass(frozen=True, slots=True)
class Amount:
    """A positive number in units of one dimension: `80 GiB`."""

    dimension: Dimension


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """`none`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words; with no words given, any name."""

    words: tuple[str, ...] = ()
    noun: str = "a name"


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`, or a single item."""

    item: Kind


@dataclass(frozen=True, slots=True)
class Pair:
    """`(0.9, 0.95)`."""

    first: Kind
    second: Kind


@dataclass(frozen=True, slots=True)
class Bindings:
    """`[T = 128, S = 64]`."""

    item: Kind


@dataclass(frozen=True, slots=True)
class Anything:
    """An expression that stays syntax, to be read by its owner (a loss, a model's reference)."""

    noun: str = "an expression"


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a form: the counterpart of a key."""

    name: str
    kind: Kind
    doc: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """A form that a value may take: `cosine(peak, to, over)`.

    rest   the kind of further positional arguments; None if there are none
    after  the forms that may be piped into it
    built  whether anything is done with it yet
    """

    name: str
    arguments: tuple[Argument, ...]
    doc: str
    rest: Kind | None = None
    after: tuple[str, ...] = ()
    built: bool = True


@dataclass(frozen=True, slots=True)
class Forms:
    """One of some forms; a form without arguments may stand without parentheses."""

    forms: tuple[Form, ...]
    noun: str


@dataclass(frozen=True, slots=True)
class Either:
    """The first of some kinds that fits by its shape."""

    kinds: tuple[Kind, ...]


Kind = (
    Count | Real | Amount | Text | Flag | Nothing | Choice | ListOf | Pair | Bindings | Anything | Forms | Either
)  # fmt: skip


LITERAL = Either((Real(), Flag(), Text(), Nothing()))


# ---- in words


def forms_of(kind: Kind | None) -> tuple[Form, ...]:
    """All forms that a kind may take."""
    if isinstance(kind, Either):
        return tuple(form for item in kind.kinds for form in forms_of(item))
    return kind.forms if isinstance(kind, Forms) else ()


def describe(kind: Kind) -> str:
    """A kind in a reader's words."""
    match kind:
        case Count() | Real() | Amount():
            return _describe_number(kind)
        case Text():
            return "a string"
        case Flag():
            return "`true` or `false`"
        case Nothing():
            return "`none`"
        case Choice():
            return one_of(kind.words) if kind.words else kind.noun
        case ListOf():
            return f"{describe(kind.item)} or a list of such"
        case Pair():
            return f"a pair ({describe(kind.first)}, {describe(kind.second)})"
        case Bindings():
            return f"a list of names such as [T = 128], each {describe(kind.item)}"
        case Anything():
            return kind.noun
        case Forms():
            return f"{kind.noun}: {one_of(tuple(form.name for form in kind.forms))}"
        case Either():
            return " or ".join(describe(item) for item in kind.kinds if ListOf(item) not in kind.kinds)


def _describe_number(kind: Count | Real | Amount) -> str:
    if isinstance(kind, Amount):
        return example(kind.dimension)
    if isinstance(kind, Real):
        return "a number" + _range(kind)
    least = f" (at least {kind.least})" if kind.least else ""
    return " or ".join([f"a whole number{least}", *(example(unit) for unit in kind.units)])


def _range(kind: Real) -> str:
    parts: list[str] = []
    if kind.least is not None:
        parts.append(f"above {kind.least:g}" if kind.above else f"at least {kind.least:g}")
    if kind.most is not None:
        parts.append(f"at most {kind.most:g}")
    return f" {' and '.join(parts)}" if parts else ""


def one_of(words: tuple[str, ...]) -> str:
    """Words of the language as a list to choose from."""
    return ", ".join(f"`{word}`" for word in words)


def show(expr: s.Node) -> str:
    """What was found, in a reader's words."""
    match expr:
        case s.Number():
            return f"`{expr.text}`" if expr.unit is None else f"`{expr.text} {expr.unit}`, {_measures(expr.unit)}"
        case s.String():
            return "a string"
        case s.Bool():
            return "`true`" if expr.value else "`false`"
        case s.NoneLit():
            return "`none`"
        case s.Ref():
            return f"the name `{expr.name}`"
        case s.ListLit() | s.TupleLit():
            return "a list" if isinstance(expr, s.ListLit) else "a tuple"
        case s.Call() | s.Pipe() | s.View():
            return f"`{_short(expr.span.text)}`"
        case _:
            return f"`{_short(expr.span.text)}`"


def _measures(unit: str) -> str:
    return f"in {UNITS[unit].dimension.value}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def fits(expr: s.Node, kind: Kind) -> bool:
    """Whether an expression has the shape of a kind, whatever its range and unit."""
    match kind:
        case Count() | Real() | Amount():
            return constant(expr) is not None
        case Text():
            return isinstance(expr, s.String)
        case Flag():
            return isinstance(expr, s.Bool)
        case Nothing():
            return isinstance(expr, s.NoneLit)
        case Choice():
            return isinstance(expr, s.Ref) and (not kind.words or expr.name in kind.words)
        case Forms():
            return isinstance(expr, s.Call | s.Pipe | s.Ref)
        case ListOf() | Bindings():
            return isinstance(expr, s.ListLit)
        case Pair():
            return isinstance(expr, s.TupleLit)
        case Anything():
            return True
        case Either():
            return any(fits(expr, item) for item in kind.kinds)
