"""Making instances: `attn : Attention[D, H](mask = causal)`.

Formals are bound to the maker's dims (one that is bound to a dim already taken by another formal gets a dim of its own,
relabelled at the boundary), options to values, and the body's declarations are read: dims, checks, parameters,
instances. What needs a call (tensors, dims of the signature) is kept for later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.diagnostic import Label, did_you_mean
from ..base.span import Span
from ..ir.types import Dim, Dims, Layer
from ..language import syntax as s
from . import dims as d
from . import statements
from .expressions import arguments
from .frame import Arguments, Fault, Frame
from .functions import checked
from .load import Module, brought_by_std
from .owned import initialise, parameter, state
from .values import UNKNOWN, Instance, Value

STEPS_OF_A_BLOCK = 20  # about what it costs to make one, in expressions


@dataclass(frozen=True, slots=True)
class Choice:
    """A constructor read in its maker's frame: the block, its dims by formal, its options."""

    decl: s.Block
    module: Module
    dims: dict[str, Dims]
    args: Arguments
    written: s.Constructor


# ---- reading a constructor


def choose(frame: Frame, written: s.Constructor, implied: Mapping[str, Dims] | None = None) -> Choice:
    """Find the block, evaluate its dims and options where they are written; some dims may be known beforehand."""
    decl, module = find_block(frame, written.name)
    formals = [formal.name.text for formal in decl.formals]
    bound: dict[str, Dims] = {}
    for at, item in enumerate(written.dims):
        if isinstance(item, s.DimBind):
            name, dim = item.name.text, item.dim
        elif at < len(formals):
            name, dim = formals[at], item
        else:
            title = f"{decl.name} has the dims [{', '.join(formals)}], {len(written.dims)} are given"
            raise frame.fault("E0308", title, item.span)
        if name not in formals:
            raise frame.fault("E0308", f"{decl.name} has no dim `{name}`", item.span, hint=did_you_mean(name, formals))
        if name in bound:
            raise frame.fault("E0308", f"{decl.name}'s dim {name} is given twice", item.span)
        bound[name] = d.axes(frame, dim, name)
    bound = {**{name: dims for name, dims in (implied or {}).items() if name in formals}, **bound}
    lacking = [f.name.text for f in decl.formals if f.default is None and f.name.text not in bound]
    if lacking:
        title = f"{decl.name} needs its dims [{', '.join(formals)}]: {', '.join(lacking)} is missing"
        form = f"dims stand in brackets: {decl.name}[{', '.join(formals)}]"
        hint = form if written.args and not written.dims else None
        raise frame.fault("E0308", title, written.span, others=(Label(decl.name.span, "declared here"),), hint=hint)
    return Choice(decl, module, bound, arguments(frame, written.args), written)


def find_block(frame: Frame, name: s.QName) -> tuple[s.Block, Module]:
    """The block of a name, `Linear` or `std.Linear`."""
    last = name.parts[-1].text
    module = frame.module.used(name.parts[0].text) if len(name.parts) == 2 else frame.module
    found = () if module is None else module.find(last)
    if len(found) > 1:
        hint = f"write {found[0][1].name}.{last}"
        raise frame.fault("E0106", f"`{last}` is declared in several of the files used", name.span, hint=hint)
    if not found:
        blocks = {n for n in frame.module.visible() if isinstance(frame.module.find(n)[0][0], s.Block)}
        hint = f"write {last}" if last in blocks else did_you_mean(last, blocks)
        hint = brought_by_std(frame.module, last) or hint
        raise frame.fault("E0101", f"there is no block `{name}`", name.span, hint=hint)
    decl, home = found[0]
    if isinstance(decl, s.Fn):
        hint = f"functions are not made, they are applied: y = {last}(x)"
        raise frame.fault("E0105", f"`{last}` is a function, not a block", name.span, hint=hint)
    if not isinstance(decl, s.Block):
        raise frame.fault("E0105", f"`{last}` is a model, a block is needed here", name.span)
    return decl, home


# ---- making


def make_block(frame: Frame, choice: Choice, path: str, bank: Dims = (), layer: Layer | None = None) -> Instance:
    """An instance with its parameters and all that it owns."""
    decl, span = choice.decl, choice.written.span
    inner = frame.inside(choice.module, f"block {decl.name}", span, path=path, bank=bank, layer=layer)
    instance = Instance(decl, choice.module, path, span, inner.names, inner.dims, bank=bank)
    making = frame.context.making
    if any(decl is open_ for open_ in making):
        raise frame.fault("E0312", f"{decl.name} contains itself", span, others=(Label(decl.name.span, "this block"),))
    frame.context.spend(frame, span, STEPS_OF_A_BLOCK)
    making.append(decl)
    frame.context.made.add(id(decl))
    try:
        _bind_dims(inner, instance, choice.dims)
        _bind_options(frame, inner, decl.options, choice)
        late = signature_names(decl) - set(inner.dims)
        instance.later = declarations(inner, instance, decl.body, late)
    finally:
        making.pop()
    return instance


def signature_names(decl: s.Block | s.Model) -> set[str]:
    """Names of dims in the signature: what only a call binds, unless it is a formal."""
    ports = [dim for port in decl.signature.ports for dim in port.dims or ()]
    outs = [dim for out in decl.signature.outs for dim in out.dims]
    return {name for dim in (*ports, *outs) for name in d.names_in(dim)}


def _bind_dims(inner: Frame, instance: Instance, given: dict[str, Dims]) -> None:
    """Each formal in order. A dim that another formal has taken is made anew inside, and relabelled at the boundary."""
    for formal in instance.decl.formals if isinstance(instance.decl, s.Block) else ():
        name = formal.name.text
        outer = given.get(name)
        if outer is None:
            _checks_first(inner, instance, given)
            assert formal.default is not None, "nothing is missing"
            outer = d.axes(inner, formal.default, name)
        _bind_axes(inner, instance, name, outer, name in given)


def bind_axes(inner: Frame, instance: Instance, given: Mapping[str, Dims]) -> None:
    """Dims by name, bound to what their maker means."""
    for name, axes in given.items():
        _bind_axes(inner, instance, name, axes, True)


def _bind_axes(inner: Frame, instance: Instance, name: str, outer: Dims, given: bool) -> None:
    taken = {dim for axes in inner.dims.values() for dim in axes}
    axes: list[Dim] = []
    for dim in outer:
        own = dim
        if dim in taken:
            called = name if len(outer) == 1 else dim.name.rsplit(".", 1)[-1]
            own = inner.output.dims.fresh(called, dim.size, inner.path)
            if given:
                instance.boundary[own] = dim
        taken.add(own)
        axes.append(own)
    inner.dims[name] = tuple(axes)


def _checks_first(inner: Frame, instance: Instance, given: dict[str, Dims]) -> None:
    """Checks on what is given come before what is worked out from it: their words are better than arithmetic's."""
    if not set(given) <= set(inner.dims):
        return
    for statement in instance.decl.body.statements:
        if isinstance(statement, s.Check) and d.names_in(statement.condition) <= set(inner.dims):
            statements.check(inner, statement)


def _bind_options(frame: Frame, inner: Frame, options: Sequence[s.Option], choice: Choice) -> None:
    """Positional options in order, the others by name; defaults see the dims and the options before them."""
    names = [option.name.text for option in options]
    what = choice.decl.name.text
    if len(choice.args.positional) > len(names):
        at = choice.args.positional[len(names)][1]
        raise frame.fault("E0302", f"{what} has {len(names)} options, {len(choice.args.positional)} are given", at)
    given = dict(zip(names, choice.args.positional, strict=False))
    for name, (value, at) in choice.args.named.items():
        if name not in names:
            ports = {port.name.text for port in choice.decl.signature.ports}
            hint = did_you_mean(name, names)
            hint = f"`{name}` is an input: give it where the instance is applied" if name in ports else hint
            others = (Label(choice.decl.name.span, "its options stand here"),)
            raise frame.fault("E0301", f"{what} has no option `{name}`", at, hint=hint, others=others)
        if name in given:
            raise frame.fault("E0302", f"`{name}` is given twice", at)
        given[name] = (value, at)
    bind_options(frame, inner, options, given, what, choice.written.span)


def bind_options(
    frame: Frame, inner: Frame, options: Sequence[s.Option], given: dict[str, tuple[Value, Span]], what: str, span: Span
) -> None:
    """Options that are given, then the defaults of the others, in the order in which they are declared."""
    for option in options:
        name = option.name.text
        if name in given:
            inner.names[name] = checked(frame, option, *given[name])
        elif option.default is not None:
            inner.names[name] = checked(inner, option, inner.evaluate(option.default), option.span)
        elif frame.context.probing:
            inner.names[name] = UNKNOWN
        else:
            raise frame.fault("E0302", f"{what} needs the option `{name}`", span)


# ---- declarations of a body


def declarations(inner: Frame, instance: Instance, body: s.Body, late: set[str]) -> list[s.Statement]:
    """Read what a body declares into an instance; gives what needs a call. `late` are names that only a call binds."""
    assigned = {t.text for st in body.statements if isinstance(st, s.Assign) for t in st.targets}
    inits: list[s.Init] = []
    later: list[s.Statement] = []
    for statement in body.statements:
        try:
            if isinstance(statement, s.DimDef | s.Check) and not _ready(statement, late | assigned):
                later.append(statement)
                late |= _defines(statement)
            elif isinstance(statement, s.DimDef | s.Check):
                statements.run_statement(inner, statement)
            elif isinstance(statement, s.Param):
                parameter(inner, instance, statement)
            elif isinstance(statement, s.State):
                state(inner, instance, statement)
            elif isinstance(statement, s.Instance):
                d.taken(inner, statement.name)
                made = inner.names[statement.name.text] = inner.context.rules.make(inner, statement)
                inner.note(statement.span, made)
            elif isinstance(statement, s.Init):
                inits.append(statement)
            elif not isinstance(statement, s.Sizes):
                later.append(statement)
        except Fault:
            if isinstance(statement, s.Check):
                raise
            statements.give_up(inner, statement)
    for init in inits:
        initialise(inner, init)
    return later


def _ready(statement: s.DimDef | s.Check, late: set[str]) -> bool:
    parts = (
        [binding.dim for binding in statement.bindings] if isinstance(statement, s.DimDef) else [statement.condition]
    )
    return not any(d.names_in(part) & late for part in parts)


def _defines(statement: s.Statement) -> set[str]:
    return {binding.name.text for binding in statement.bindings} if isinstance(statement, s.DimDef) else set()
