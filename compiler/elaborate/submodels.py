"""A model within a model: `enc : BERT.base[D = D](drop = 0)` is an instance like any other.

Its dims are the columns of its sizes, of a row or given by name; what its signature leaves free is bound at the call;
its parameters stand under the instance's path. Derived models may be used too, with all that they add. The batch is
carried through it under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base.diagnostic import Label, did_you_mean
from ..base.span import Span
from ..ir.types import Dims, Layer
from ..language import syntax as s
from . import blocks
from . import dims as d
from .blocks import STEPS_OF_A_BLOCK, declarations, signature_names
from .derived import Named, extend, named
from .expressions import arguments
from .frame import Arguments, Frame
from .sizes import BATCH, Evaluated, SizeRow, base_dims, bind_model_options, options_of, size_row
from .values import Instance, Value


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A constructor of a model read in its maker's frame."""

    model: Named
    dims: dict[str, Dims]
    args: Arguments
    written: s.Constructor


Choice = blocks.Choice | ModelChoice


def choose(frame: Frame, written: s.Constructor) -> Choice:
    """What a constructor names, block or model; its dims and options, evaluated where they are written."""
    model = named(frame.module, written.name)
    if model is None or model.decl is None:
        return blocks.choose(frame, written)
    bound: dict[str, Dims] = {}
    for item in written.dims:
        if not isinstance(item, s.DimBind):
            hint = f"write {written.name}[D = …]"
            raise frame.fault("E0308", "a model's dims are given by name", item.span, hint=hint)
        if item.name.text in bound:
            raise frame.fault("E0308", f"{model.name}'s dim {item.name} is given twice", item.span)
        bound[item.name.text] = d.axes(frame, item.dim, item.name.text)
    return ModelChoice(model, bound, arguments(frame, written.args), written)


def make(frame: Frame, choice: Choice, path: str, bank: Dims = (), layer: Layer | None = None) -> Instance:
    """An instance of a block or a model, with its parameters and all that it owns."""
    if isinstance(choice, blocks.Choice):
        return blocks.make_block(frame, choice, path, bank, layer)
    model, span = choice.model, choice.written.span
    decl = model.decl
    assert decl is not None, "a model that was found"
    inner = frame.inside(model.module, f"model {model.name}", span, path=path, bank=bank, layer=layer)
    instance = Instance(decl, model.module, path, span, inner.names, inner.dims, bank=bank)
    making = frame.context.making
    if any(decl is open_ for open_ in making):
        raise frame.fault("E0312", f"{decl.name} contains itself", span, others=(Label(decl.name.span, "this model"),))
    frame.context.spend(frame, span, STEPS_OF_A_BLOCK)
    making.append(decl)
    try:
        _bind(frame, inner, instance, choice)
        late = signature_names(decl) - set(inner.dims)
        instance.later = declarations(inner, instance, decl.body, late)
        for derived, home in reversed(model.layers):
            extend(inner, derived, home, instance)
    finally:
        making.pop()
    return instance


def _bind(frame: Frame, inner: Frame, instance: Instance, choice: ModelChoice) -> None:
    """The row of sizes, the dims, the options; the batch keeps its name."""
    model, decl = choice.model, instance.decl
    assert isinstance(decl, s.Model), "a model"
    row = size_row(inner, model.sized, model.row, choice.written.span)
    _known_dims(frame, choice, decl, row)
    if BATCH in frame.dims:
        inner.dims[BATCH] = frame.dims[BATCH]
    blocks.bind_axes(inner, instance, _dims(inner, choice, decl, row))
    bind_model_options(inner, decl, model.layers, row, _options(frame, choice))


def _dims(inner: Frame, choice: ModelChoice, decl: s.Model, row: SizeRow | None) -> dict[str, Dims]:
    """What is given, what derived models say, what the row says; the innermost word counts least."""
    model, options = choice.model, options_of(decl, choice.model.layers)
    sizes: dict[str, tuple[int, Span]] = {}
    for name, cell in (row.cells if row is not None else {}).items():
        if name in options:
            continue
        if not isinstance(cell, s.Number) or not isinstance(cell.value, int):
            raise inner.fault("E0214", f"`{name}` is a dim, so its sizes are whole numbers", cell.span)
        sizes[name] = (cell.value, cell.span)
    sizes |= {name: (size, decl.name.span) for name, size in base_dims(inner, model.layers).items()}
    names = dict.fromkeys((*sizes, *choice.dims))
    return {name: choice.dims[name] if name in choice.dims else (d.fresh(inner, name, *sizes[name]),) for name in names}


def _known_dims(frame: Frame, choice: ModelChoice, decl: s.Model, row: SizeRow | None) -> None:
    """Report dims that the model does not have, or defines itself."""
    local = {b.name.text for st in decl.body.statements if isinstance(st, s.DimDef) for b in st.bindings}
    used = {part.name for part in s.walk(decl) if isinstance(part, s.DimRef | s.Ref)}
    columns = set(row.cells) if row is not None else set[str]()
    known = {*used, *columns, *signature_names(decl)} - local - options_of(decl, choice.model.layers)
    for item in choice.written.dims:
        assert isinstance(item, s.DimBind), "checked above"
        if item.name.text not in known:
            fixed = item.name.text in local
            title = f"{decl.name} fixes {item.name} itself" if fixed else f"{decl.name} has no dim `{item.name}`"
            raise frame.fault("E0308", title, item.span, hint=did_you_mean(item.name.text, known))


def _options(frame: Frame, choice: ModelChoice) -> Mapping[str, object]:
    """The arguments by the names of the outermost model's options."""
    model = choice.model
    assert model.decl is not None, "a model that was found"
    outermost: s.Model | s.Derived = model.layers[0][0] if model.layers else model.decl
    names = [option.name.text for option in outermost.options]
    if len(choice.args.positional) > len(names):
        at = choice.args.positional[len(names)][1]
        title = f"{model.name} has {len(names)} options, {len(choice.args.positional)} are given"
        raise frame.fault("E0302", title, at)
    given: dict[str, tuple[Value, Span]] = dict(zip(names, choice.args.positional, strict=False))
    for name, argument in choice.args.named.items():
        if name in given:
            raise frame.fault("E0302", f"`{name}` is given twice", argument[1])
        if name not in names:
            title, hint = f"{model.name} has no option `{name}`", did_you_mean(name, names)
            others = (Label(model.name.span, "its options stand here"),)
            raise frame.fault("E0301", title, argument[1], hint=hint, others=others)
        given[name] = argument
    return {name: Evaluated(*argument) for name, argument in given.items()}
