"""From the `optimizer` of a record to groups: who updates which parameters, with which options.

An optimizer is a function of the spec or of std, `fn adamw(p, g, m, v, step, lr, beta1 = 0.9, …)`: the parameter, its
gradient, its states by name, the step counted from 1 (where it wants it), the rate, its options. So a new one needs no
line here. Two options are sugar: `betas = (a, b)` for beta1 and beta2, and `no_decay = [patterns]` for groups of their
own with `decay = 0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from ..base.diagnostic import Diagnostics, did_you_mean
from ..base.span import Span
from ..language import syntax as s
from .kinds import LITERAL, Applied, Argument, Either, Flag, Form, Forms, ListOf, Pair, Real, Setting, Text, one_of
from .load import Spec, reachable
from .rates import schedule_of
from .reading import Reader, Unread, form_name
from .recipe import Literal_, OptimizerGroup, Schedule, Segment
from .records import Section
from .schema_forms import SCHEDULE_FORMS

LEADING = ("p", "g")


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A function that has an optimizer's shape."""

    name: str
    states: tuple[str, ...]
    counts: bool
    options: tuple[s.Option, ...]

    @property
    def form(self) -> Form:
        """What a record may write of it."""
        names = {item.name.text for item in self.options}
        arguments = [Argument(item.name.text, _kind(item), "", item.default is None) for item in self.options]
        arguments.append(Argument("lr", Either((Real(0.0), SCHEDULE_FORMS)), "of this group: the peak, or a schedule"))
        if {"beta1", "beta2"} <= names:
            arguments.append(Argument("betas", Pair(Real(0.0, 1.0), Real(0.0, 1.0)), "beta1 and beta2"))
        if "decay" in names:
            arguments.append(Argument("no_decay", ListOf(Text()), "patterns of parameters that do not decay"))
        return Form(self.name, tuple(arguments), "an optimizer")


def _kind(option: s.Option) -> Real | Flag | Either:
    if isinstance(option.default, s.Number):
        return Real(0.0)
    return Flag() if isinstance(option.default, s.Bool) else LITERAL


def optimizer(function: s.Fn) -> Optimizer | None:
    """The function as an optimizer; None if it has another shape."""
    names = tuple(item.name.text for item in function.options)
    if names[:2] != LEADING or "lr" not in names:
        return None
    rate = names.index("lr")
    counts = names[rate - 1] == "step"
    return Optimizer(function.name.text, names[2 : rate - counts], counts, function.options[rate + 1 :])


def optimizers(spec: Spec) -> dict[str, Optimizer]:
    """Every optimizer that the spec can name, the nearest first."""
    found: dict[str, Optimizer] = {}
    for module in reachable(spec.main):
        for name, decl in module.own.items():
            shaped = optimizer(decl) if isinstance(decl, s.Fn) else None
            if shaped is not None:
                found.setdefault(name, shaped)
    return found


def optimizer_groups(
    spec: Spec, section: Section, schedule: Schedule, steps: int, sink: Diagnostics
) -> tuple[OptimizerGroup, ...]:
    """The groups in the order in which they are tried; what is wrong goes to `sink`."""
    known = optimizers(spec)
    inner, value = section.section("optimizer"), section.values.get("optimizer")
    written: list[tuple[str, Setting, Span]] = []
    if inner is not None:
        written = [(item.key, item.value, item.span) for item in inner.patterns]
        if not written:
            sink.error("E0404", "`optimizer` has no patterns", inner.span, "", expected='such as `"*" = adamw()`')
    elif value is not None:
        written = [("*", value, section.place("optimizer"))]
    groups: list[OptimizerGroup] = []
    for pattern, expr, span in written:
        groups += _Group(known, schedule, steps, sink).read(pattern, cast(s.Node, expr), span)
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class _Group:
    known: Mapping[str, Optimizer]
    schedule: Schedule
    steps: int
    sink: Diagnostics

    def read(self, pattern: str, expr: s.Node, span: Span) -> list[OptimizerGroup]:
        name = form_name(expr)
        if name is None or name.name not in self.known:
            title = f"no optimizer `{name.name}`" if name is not None else "`optimizer` cannot be this"
            self.sink.error(
                "E0411", title, name.span if name is not None else expr.span, "",
                expected=one_of(tuple(self.known)) or "a function (p, g, states …, step, lr, options …)",
                hint=did_you_mean(name.name, self.known) if name is not None else None,
            )  # fmt: skip
            return []
        found = self.known[name.name]
        try:
            form = Reader(self.sink).read(expr, Forms((found.form,), "an optimizer"), "optimizer")
        except Unread:
            return []
        assert isinstance(form, Applied), "an optimizer that is no form"
        return self._groups(pattern, found, form, span)

    def _groups(self, pattern: str, found: Optimizer, form: Applied, span: Span) -> list[OptimizerGroup]:
        given = dict(form.arguments)
        rate = self._rate(given.pop("lr", None), form)
        without = cast("tuple[str, ...]", given.pop("no_decay", ()))
        betas = cast("tuple[float, float] | None", given.pop("betas", None))
        if betas is not None:
            for twice in {"beta1", "beta2"} & given.keys():
                self.sink.error("E0405", f"`{twice}` is given twice", form.spans[twice], "", notes=("`betas` has it",))
            given["beta1"], given["beta2"] = betas
        defaults = {item.name.text: _default(item) for item in found.options if item.default is not None}
        options = cast("dict[str, Literal_]", {**defaults, **given})
        last = OptimizerGroup(pattern, found.name, found.states, options, rate, found.counts, span)
        if without and pattern != "*":
            self.sink.error(
                "E0402", "`no_decay` stands only where one optimizer serves all", form.spans["no_decay"], "",
                hint=f"write {one_of(without)} as patterns of their own, before this one, with `decay = 0`",
            )  # fmt: skip
        return [*(replace(last, pattern=item, options={**options, "decay": 0}) for item in without), last]

    def _rate(self, value: Setting, form: Applied) -> Schedule | None:
        """A number is the peak of the record's curve; a form is a curve of its own."""
        if value is None:
            return None
        if isinstance(value, int | float):
            rate = float(value)
            flat = Schedule((Segment("constant", 0, rate, rate, 0),))
            return self.schedule.scaled(rate) if self.schedule.segments else flat
        return schedule_of(value, form.spans["lr"], self.steps, self.sink)


def _default(option: s.Option) -> Literal_:
    default = option.default
    assert isinstance(default, s.Number | s.Bool | s.String | s.NoneLit), f"the default of {option.name} is a literal"
    return None if isinstance(default, s.NoneLit) else default.value
