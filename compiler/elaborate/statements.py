"""Statements of a body, read in order: `name = expr`, `dim`, `check`, `tap`, `return`.

A faulty statement leaves its names unknown and the reading goes on, so that one run reports several faults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..base.diagnostic import Label, did_you_mean
from ..base.span import Span
from ..ir.types import Dim, Dims, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from .frame import Fault, Frame, Loop
from .structure import arranged
from .values import UNKNOWN, Value, describe, show_dims

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def carried(frame: Frame, values: Iterable[Value], named: Iterable[Dims]) -> list[Dim]:
    """The axes that values bring along beyond those that have a name in the frame."""
    known = {dim for dims in named for dim in dims}
    return list(dict.fromkeys(d for v in values if isinstance(v, Use) for d in v.dims if d not in known))


def body_value(frame: Frame, body: s.Expr | s.Body, hint: str | None = None) -> Value:
    """What a function's body gives."""
    if not isinstance(body, s.Body):
        return frame.evaluate(body, hint)
    results = run_body(frame, body.statements, hint)
    if results is None:
        raise frame.fault("E0112", f"{frame.title} returns nothing", body.span)
    return results[0][0] if len(results) == 1 else tuple(value for value, _ in results)


def run_body(frame: Frame, written: Iterable[s.Statement], hint: str | None = None) -> list[tuple[Value, Span]] | None:
    """Read statements; the values that are returned, or None. Raises Fault if one that counts could not be read."""
    results: list[tuple[Value, Span]] | None = None
    broken = False
    for statement in written:
        if results is not None:
            frame.report("E0113", "nothing can stand after `return`", statement.span)
            break
        try:
            if isinstance(statement, s.Return):
                results = _returned(frame, statement, hint)
            else:
                run_statement(frame, statement)
        except Fault:
            broken = broken or isinstance(statement, s.Return | s.Check)
            if frame.loop is not None:
                frame.loop.broken = True
            give_up(frame, statement)
    if broken:
        raise Fault
    return results


def _returned(frame: Frame, statement: s.Return, hint: str | None) -> list[tuple[Value, Span]]:
    name = hint if len(statement.values) == 1 else None
    values = [(frame.evaluate(value, name), value.span) for value in statement.values]
    if len(values) == 1 and isinstance(values[0][0], tuple):
        return [(value, values[0][1]) for value in values[0][0]]
    return values


def run_statement(frame: Frame, statement: s.Statement) -> None:
    """Read one statement other than `return`. Raises Fault."""
    if isinstance(statement, s.Assign):
        _assign(frame, statement)
    elif isinstance(statement, s.DimDef):
        d.define(frame, statement)
    elif isinstance(statement, s.Check):
        check(frame, statement)
    elif isinstance(statement, s.Tap):
        _tap(frame, statement)
    elif isinstance(statement, s.Scan):
        frame.context.rules.scan(frame, statement)
    elif isinstance(statement, s.Next) and frame.loop is not None:
        _next(frame, frame.loop, statement)
    elif isinstance(statement, s.Emit):
        _emit(frame, statement)
    elif isinstance(statement, s.Next):
        _advance(frame, statement)
    elif isinstance(statement, s.Adapt):
        hint = "a derived model adapts its base: model B = A { adapt … }"
        raise frame.fault("E0114", f"`adapt` cannot stand in {frame.title}", statement.span, hint=hint)
    else:
        owns = isinstance(statement, s.Instance | s.Param)
        word = f"`{statement.span.text.splitlines()[0]}`" if owns else "this"
        raise frame.fault(
            "E0114", f"{word} cannot stand in {frame.title}", statement.span, hint="blocks own, functions do not"
        )


def give_up(frame: Frame, statement: s.Statement) -> None:
    """The names that a faulty statement would have made are unknown from here on."""
    names: tuple[s.Name, ...] = ()
    if isinstance(statement, s.Assign):
        names = statement.targets
    elif isinstance(statement, s.DimDef):
        names = tuple(binding.name for binding in statement.bindings)
    elif isinstance(statement, s.Param | s.Instance | s.State):
        names = (statement.name,)
    elif isinstance(statement, s.Scan):
        names = tuple(part.name for part in statement.body.statements if isinstance(part, s.Emit))
    for name in names:
        if name.text not in frame.dims:
            frame.names[name.text] = UNKNOWN
    _give_up_dims(frame, statement)


def _give_up_dims(frame: Frame, statement: s.Statement) -> None:
    """Names that an arrow would have made: a dim while probing, where sizes are free anyhow; else they stay silent."""
    for arrow in (part for part in s.walk(statement) if isinstance(part, s.DimArrow)):
        for part in s.walk(arrow.target):
            if not isinstance(part, s.DimRef) or part.name in frame.dims or part.name in frame.names:
                continue
            if frame.context.probing:
                frame.dims[part.name] = (d.fresh(frame, part.name, None, part.span),)
            else:
                frame.names[part.name] = UNKNOWN


def _assign(frame: Frame, statement: s.Assign) -> None:
    targets = statement.targets
    for target in targets:
        d.taken(frame, target)
    if len(targets) == 1:
        frame.names[targets[0].text] = frame.evaluate(statement.value, targets[0].text)
        return
    value = frame.evaluate(statement.value)
    if value is UNKNOWN:
        raise Fault
    if not isinstance(value, tuple):
        raise frame.fault("E0310", f"{len(targets)} names for one value", statement.value.span, describe(value))
    if len(value) != len(targets):
        title = f"{len(targets)} names for {len(value)} values"
        raise frame.fault("E0310", title, statement.value.span)
    for target, part in zip(targets, value, strict=True):
        frame.names[target.text] = part


# ---- statements of a scan's body


def _next(frame: Frame, loop: Loop, statement: s.Next) -> None:
    """`next h = out`"""
    name = statement.name.text
    if name not in loop.carries:
        hint = did_you_mean(name, loop.carries)
        raise frame.fault("E0317", f"`{name}` is no carry of this scan", statement.name.span, hint=hint)
    if name in loop.nexts:
        raise frame.fault("E0317", f"`next {name}` is said twice", statement.span)
    loop.nexts[name] = (_tensor(frame, statement.value, name), statement.span)


def _emit(frame: Frame, statement: s.Emit) -> None:
    """`emit y = out`"""
    loop = frame.loop
    if loop is None:
        raise frame.fault("E0114", f"`emit` cannot stand in {frame.title}", statement.span, hint="a scan emits")
    d.taken(frame, statement.name)
    if statement.name.text in loop.emits:
        raise frame.fault("E0317", f"`emit {statement.name}` is said twice", statement.span)
    use = _tensor(frame, statement.value, statement.name.text)
    if loop.dim in use.dims:
        title = f"`{statement.name}` has the axis {loop.dim} already, along which it is emitted"
        raise frame.fault("E0317", title, statement.value.span, hint=f"emit one step of it: y[{loop.dim} = t]")
    loop.emits[statement.name.text] = use


def _tensor(frame: Frame, expr: s.Expr, hint: str) -> Use:
    value = frame.evaluate(expr, hint)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return a.constant(frame, value, frame.context.dtype, expr.span)
    if not isinstance(value, Use):
        raise a.not_a_tensor(frame, value, expr.span)
    return value


# ---- states


def _advance(frame: Frame, statement: s.Next) -> None:
    """`next mu = …` of a state: written while training, after all that reads the old one."""
    name = statement.name.text
    state = frame.names.get(name)
    if not isinstance(state, Use) or state.node not in frame.context.states or frame.loop is not None:
        hint = "`next` changes a carry of a scan, or a state: state mu[C] = 0"
        raise frame.fault("E0318", f"`{name}` is no state of {frame.title}", statement.name.span, hint=hint)
    value = _tensor(frame, statement.value, name)
    if set(value.dims) != set(state.dims):
        raise frame.fault(
            "E0318", f"the next `{name}` has other axes than `{name}`", statement.value.span,
            expected=show_dims(state.dims), found=show_dims(value.dims),
        )  # fmt: skip
    if state.node in frame.context.advanced:
        hint = "a block with a state is applied once"
        raise frame.fault("E0318", f"the state `{name}` is changed twice in a step", statement.span, hint=hint)
    frame.context.advanced.add(state.node)
    if frame.context.training:
        ready = arranged(frame, a.tensor(frame, value, state.dtype, statement.span), state.dims, statement.span)
        frame.emit("assign", ready, span=statement.span, hint=f"next.{name}", target=state.node)


# ---- taps and checks


def _tap(frame: Frame, statement: s.Tap) -> None:
    value = frame.evaluate(statement.value, statement.name.text)
    use = value if isinstance(value, Use) else a.tensor(frame, value, frame.context.dtype, statement.value.span)
    frame.output.taps.append((statement.name.text, frame.path, use))
    frame.names.setdefault(statement.name.text, use)


def check(frame: Frame, statement: s.Check) -> None:
    """`check condition, "message with {H}"`: the spec's own fault, shown where the instance is made."""
    condition = frame.evaluate(statement.condition)
    if isinstance(condition, Use):
        if frame.context.probing:
            return
        raise frame.fault("E0307", "a check is made while compiling; this is a tensor", statement.condition.span)
    if a.decided(frame, condition, statement.condition.span):
        return
    message = _PLACE.sub(lambda found: _filled(frame, found), statement.message.value)
    own = frame.calls[0].span if frame.calls else statement.span
    others = (Label(statement.span, "checked here"),) if own is not statement.span else ()
    frame.context.sink.error("E0211", message, own, "", others=others)
    raise Fault


def _filled(frame: Frame, found: re.Match[str]) -> str:
    name = found[1]
    if name in frame.dims:
        size = d.total(frame.dims[name])
        return name if size is None else str(size)
    value = frame.names.get(name, name)
    return str(value) if isinstance(value, str | int | float) else describe(value)
