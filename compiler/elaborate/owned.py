"""What an instance owns: parameters and states, how each begins, and all of them under one model.

In: `param` and `state` declarations, read in the frame of their block. Out: a `Parameter` each, whose id is its path.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.types import Layer, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from .frame import Fault, Frame
from .values import UNKNOWN, Absent, Chain, Initialiser, Instance, Parameter, Primitive, describe, is_free

MAX_ELEMENTS = 2**62


def parameter(inner: Frame, instance: Instance, statement: s.Param) -> None:
    """`param w[I, O] ~ init`: what an optimizer trains."""
    d.taken(inner, statement.name)
    if _wanted(inner, statement):
        _own(inner, instance.parameters, "parameter", statement, statement.init)


def state(inner: Frame, instance: Instance, statement: s.State) -> None:
    """`state mu[C] = 0`: like a parameter, but `next` changes it and not an optimizer."""
    d.taken(inner, statement.name)
    if _wanted(inner, statement):
        _own(inner, instance.states, "state", statement, statement.init)
        inner.context.states.update(state.path for state in instance.states[-1:])


def _wanted(inner: Frame, statement: s.Param | s.State) -> bool:
    """Whether its `when` holds; where not, the name says so to whoever reads it."""
    if statement.condition is None or a.decided(inner, inner.evaluate(statement.condition), statement.condition.span):
        return True
    inner.names[statement.name.text] = Absent(statement.name.text, statement.condition.span)
    return False


def _own(inner: Frame, owned: list[Parameter], kind: str, statement: s.Param | s.State, start: s.Expr) -> None:
    """Its dims, which must have sizes, and how it begins."""
    name = statement.name.text
    dims = inner.bank + tuple(axis for dim in statement.dims for axis in d.axes(inner, dim))
    twice = [dim for at, dim in enumerate(dims) if dim in dims[:at]]
    if twice:
        title = f"the {kind} `{name}` has the axis {twice[0]} twice"
        hint = f"give one of them another name: dim J = {twice[0]}"
        raise inner.fault("E0204", title, statement.span, hint=hint)
    free = [dim for dim in dims if dim.size is None]
    if free and not inner.context.probing:
        title = f"the size of {free[0]} must be known, because the {kind} `{name}` is shaped by it"
        raise inner.fault("E0213", title, statement.span)
    elements = d.total(dims) or 1
    if elements > MAX_ELEMENTS:
        raise inner.fault("E0205", f"the {kind} `{name}` would have {elements:,} elements", statement.span)
    init = initialiser(inner, start)
    path = f"{inner.path}.{name}" if inner.path else name
    owned.append(Parameter(path, dims, init, statement.span))
    inner.names[name] = Use(path, 0, dims, inner.context.dtype)
    inner.note(statement.span, inner.names[name])


def initialiser(frame: Frame, expr: s.Expr) -> Initialiser:
    """`zeros`, `normal(0.02)`, `kaiming`, or a number."""
    value = frame.evaluate(expr)
    if isinstance(value, Initialiser):
        return value
    if frame.context.probing and (value is UNKNOWN or is_free(value)):
        return Initialiser("zeros")
    if isinstance(value, Primitive) and value.name in ("zeros", "ones", "kaiming"):
        return Initialiser(value.name)
    if isinstance(value, Primitive) and value.name == "normal":
        return Initialiser("normal", (0.02,))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            Initialiser("zeros" if value == 0 else "ones")
            if value in (0, 1)
            else Initialiser("constant", (float(value),))
        )
    if value is UNKNOWN:
        raise Fault
    words = "zeros, ones, normal(…), uniform(…), kaiming or a number"
    raise frame.fault("E0303", f"this is {describe(value)}, no initialiser", expr.span, expected=words)


def initialise(frame: Frame, statement: s.Init) -> None:
    """`init blocks.*.attn.o.w ~ normal(0.01)`: remembered, and applied when all parameters are known."""
    value = initialiser(frame, statement.value)
    prefix = tuple(frame.path.split(".")) if frame.path else ()
    for path in statement.paths:
        frame.context.inits.append((path, (*prefix, *(step.text for step in path.steps)), value, frame))


def all_parameters(instance: Instance | Chain) -> Iterator[tuple[str, Parameter, Layer | None]]:
    """Every parameter by its id, in the order of the text; the layers of a chain one after the other."""
    return _all(instance, states=False)


def all_states(instance: Instance | Chain) -> Iterator[tuple[str, Parameter, Layer | None]]:
    """Every state of the model's own, likewise."""
    return _all(instance, states=True)


def count_owned(instance: Instance | Chain) -> int:
    """How many parameters and states there are, without naming them: chains in chains have very many."""
    if isinstance(instance, Chain):
        made = [count_owned(template) for template in instance.templates]
        return sum(made[kind] for kind in instance.kinds)
    parts = (value for value in instance.names.values() if isinstance(value, Instance | Chain))
    return len(instance.parameters) + len(instance.states) + sum(map(count_owned, parts))


def _all(instance: Instance | Chain, states: bool) -> Iterator[tuple[str, Parameter, Layer | None]]:
    if isinstance(instance, Chain):
        made = [list(_all(template, states)) for template in instance.templates]
        for index, kind in enumerate(instance.kinds):
            at = len(instance.templates[kind].path)
            for path, owned, inside in made[kind]:
                layer = inside if instance.is_bank else Layer(instance.path, index)
                yield f"{instance.path}.{index}{path[at:]}", owned, layer
        return
    own = {one.path: one for one in (instance.states if states else instance.parameters)}
    for value in instance.names.values():
        if isinstance(value, Use) and value.node in own:
            yield value.node, own[value.node], None
        elif isinstance(value, Instance | Chain):
            yield from _all(value, states)
