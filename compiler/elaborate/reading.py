"""Reads the values of a record.

In: an expression of the syntax tree and the kind that its key takes. Out: plain frozen data (numbers, names,
lists, `Applied` forms), or a diagnostic that says what was expected, in which unit, and what was found instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base.diagnostic import Diagnostics, did_you_mean
from ..base.span import Span
from ..language import syntax as s
from .kinds import (
    Amount,
    Anything,
    Applied,
    Bindings,
    Choice,
    Count,
    Either,
    Flag,
    Form,
    Forms,
    Kind,
    ListOf,
    Named,
    Nothing,
    Pair,
    Real,
    Setting,
    Text,
    Word,
    describe,
    fits,
    one_of,
    show,
)  # fmt: skip
from .units import Dimension, Exact, constant


class Unread(Exception):
    """The value was reported and cannot be used."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads values; what is wrong goes to `diagnostics`."""

    diagnostics: Diagnostics

    def read(self, expr: s.Node, kind: Kind, what: str) -> Setting:
        """The value of an expression. Raises `Unread` once the fault is reported. `what` names the key."""
        match kind:
            case Count() | Real() | Amount():
                return self._number(expr, kind, what)
            case Either():
                chosen = [item for item in kind.kinds if fits(expr, item)]
                return self.read(expr, chosen[0], what) if chosen else self._wrong(expr, kind, what)
            case ListOf() | Pair() | Bindings():
                return self._sequence(expr, kind, what)
            case Forms():
                return self._forms(expr, kind, what)
            case Choice():
                return self._choice(expr, kind, what)
            case Anything():
                return expr
            case Text() | Flag() | Nothing():
                return self._literal(expr, kind, what)

    def _wrong(self, expr: s.Node, kind: Kind, what: str, code: str = "E0402") -> Setting:
        title = f"`{what}` has the wrong unit" if code == "E0403" else f"`{what}` cannot be this"
        self.diagnostics.error(code, title, expr.span, "", expected=describe(kind), found=show(expr))
        raise Unread

    def _literal(self, expr: s.Node, kind: Text | Flag | Nothing, what: str) -> Setting:
        match expr, kind:
            case (s.String(), Text()) | (s.Bool(), Flag()):
                return expr.value
            case s.NoneLit(), Nothing():
                return None
            case _:
                return self._wrong(expr, kind, what)

    def _number(self, expr: s.Node, kind: Count | Real | Amount, what: str) -> Setting:
        found = constant(expr)
        if found is None:
            return self._wrong(expr, kind, what)
        units = {Count: (Dimension.NUMBER,), Real: (Dimension.NUMBER,), Amount: ()}[type(kind)]
        units += kind.units if isinstance(kind, Count) else (kind.dimension,) if isinstance(kind, Amount) else ()
        if found.dimension not in units:
            return self._wrong(expr, kind, what, "E0403")
        base = found.base
        if isinstance(kind, Amount):
            return base if base > 0 else self._outside(expr, kind, what)
        if isinstance(kind, Real):
            return base if _inside(base, kind) else self._outside(expr, kind, what)
        if isinstance(base, float) and not base.is_integer():
            return self._wrong(expr, kind, what)
        whole = int(base)
        if whole < kind.least:
            return self._outside(expr, kind, what)
        return whole if found.unit is None or (len(units) == 2 and Dimension.STEPS in units) else found

    def _outside(self, expr: s.Node, kind: Kind, what: str) -> Setting:
        self.diagnostics.error(
            "E0412", f"`{what}` is out of range", expr.span, "", expected=describe(kind), found=show(expr)
        )
        raise Unread

    def _sequence(self, expr: s.Node, kind: ListOf | Pair | Bindings, what: str) -> Setting:
        if isinstance(kind, ListOf):
            items = expr.items if isinstance(expr, s.ListLit) else (expr,)
            return tuple(self.read(item, kind.item, what) for item in items)
        if isinstance(kind, Pair):
            if not isinstance(expr, s.TupleLit) or len(expr.items) != 2:
                return self._wrong(expr, kind, what)
            return (self.read(expr.items[0], kind.first, what), self.read(expr.items[1], kind.second, what))
        if not isinstance(expr, s.ListLit):
            return self._wrong(expr, kind, what)
        return Named(tuple(self._binding(item, kind, what) for item in expr.items))

    def _binding(self, item: s.Node, kind: Bindings, what: str) -> tuple[str, Setting]:
        if not isinstance(item, s.At):
            self._wrong(item, kind, what)
            raise Unread
        return item.name.text, self.read(item.value, kind.item, f"{what}.{item.name.text}")

    def _choice(self, expr: s.Node, kind: Choice, what: str) -> Setting:
        if not isinstance(expr, s.Ref):
            return self._wrong(expr, kind, what)
        if kind.words and expr.name not in kind.words:
            hint = did_you_mean(expr.name, kind.words)
            self.diagnostics.error(
                "E0402", f"`{what}` cannot be `{expr.name}`", expr.span, "", expected=describe(kind), hint=hint
            )
            raise Unread
        return Word(expr.name, expr.span)

    # ---- forms

    def _forms(self, expr: s.Node, kind: Forms, what: str) -> Setting:
        if isinstance(expr, s.Pipe):
            before = self._forms(expr.left, kind, what)
            after = self._forms(expr.right, kind, what)
            assert isinstance(before, Applied) and isinstance(after, Applied), "a form that is no form"
            return self._piped(before, after, kind, expr)
        name = form_name(expr)
        if name is None:
            return self._wrong(expr, kind, what)
        form = next((form for form in kind.forms if form.name == name.name), None)
        if form is None:
            names = [form.name for form in kind.forms]
            self.diagnostics.error(
                "E0411", f"no `{name.name}` for `{what}`", name.span, "",
                expected=describe(kind), hint=did_you_mean(name.name, names),
            )  # fmt: skip
            raise Unread
        return self._apply(expr, form, what)

    def _piped(self, before: Applied, after: Applied, kind: Forms, expr: s.Pipe) -> Applied:
        form = next(form for form in kind.forms if form.name == after.name)
        if before.name not in form.after:
            follows = one_of(form.after) if form.after else "nothing"
            self.diagnostics.error(
                "E0402", f"`{after.name}` cannot follow `{before.name}`", expr.right.span, "",
                expected=f"`{after.name}` follows {follows}",
            )  # fmt: skip
            raise Unread
        return Applied(after.name, after.arguments, after.rest, before, span=expr.span, spans=after.spans)

    def _apply(self, expr: s.Node, form: Form, what: str) -> Applied:
        written = expr.args if isinstance(expr, s.Call) else ()
        found: dict[str, Setting] = {}
        spans: dict[str, Span] = {}
        rest: list[Setting] = []
        failed = False
        for position, argument in enumerate(written):
            try:
                named = self._argument(argument, position, form, found)
            except Unread:
                failed = True
                continue
            if named is None:
                assert form.rest is not None and not isinstance(argument, s.KwArg), "an argument beyond the rest"
                rest.append(self.read(argument, form.rest, form.name))
            else:
                found[named[0]], spans[named[0]] = named[1], argument.span
        missing = [item for item in form.arguments if item.required and item.name not in found]
        for item in missing if not failed else ():
            self.diagnostics.error(
                "E0404", f"`{form.name}` lacks `{item.name}`", expr.span, "", expected=describe(item.kind)
            )
        if failed or missing:
            raise Unread
        return Applied(form.name, found, tuple(rest), span=expr.span, spans=spans)

    def _argument(
        self, argument: s.Argument, position: int, form: Form, found: Mapping[str, Setting]
    ) -> tuple[str, Setting] | None:
        """Name and value; None where it belongs to the rest."""
        names = [item.name for item in form.arguments]
        if not isinstance(argument, s.KwArg):
            if form.rest is not None:
                return None
            if position >= len(names):
                count = "one argument" if len(names) == 1 else f"{len(names)} arguments"
                self.diagnostics.error("E0402", f"`{form.name}` takes {count}", argument.span, "")
                raise Unread
            name, value, span = names[position], argument, argument.span
        else:
            name, value, span = argument.name.text, argument.value, argument.name.span
        if name in found:
            self.diagnostics.error("E0405", f"`{name}` is given twice", span, "")
            raise Unread
        known = next((item for item in form.arguments if item.name == name), None)
        if known is None:
            listed = one_of(tuple(names)) if names else "no arguments"
            self.diagnostics.error(
                "E0401", f"`{form.name}` has no option `{name}`", span, "",
                expected=listed, hint=did_you_mean(name, names),
            )  # fmt: skip
            raise Unread
        return name, self.read(value, known.kind, f"{form.name}.{name}")


def form_name(expr: s.Node) -> s.Ref | None:
    """The `f` of `f` or `f(…)`."""
    callee = expr.callee if isinstance(expr, s.Call) else expr
    return callee if isinstance(callee, s.Ref) else None


def _inside(value: Exact, kind: Real) -> bool:
    low = kind.least is None or (value > kind.least if kind.above else value >= kind.least)
    return low and (kind.most is None or value <= kind.most)
