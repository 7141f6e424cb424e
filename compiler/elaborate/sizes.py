"""A model's dims and options: a row of its `sizes` table, what is given from outside, what the ports leave free.

A column is a dim, or an option of that name. `dims` from outside bind free dims and may change those of the table, not
those that the text defines itself. A derived model gives its base's options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.diagnostic import Label, did_you_mean
from ..base.span import Span
from ..language import syntax as s
from . import dims as d
from .blocks import bind_options
from .expressions import arguments
from .frame import Fault, Frame
from .load import Module
from .values import Value

BATCH = "batch"
_BATCHES = frozenset({"b", "bs", "bsz", "batch_size", "batchsize"})  # what others call it
Derived = list[tuple[s.Derived, Module]]


@dataclass(frozen=True, slots=True)
class SizeRow:
    """A row that is chosen: its label and its cells by column."""

    label: str
    cells: Mapping[str, s.Cell]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An option's value that was read where it is written, by whoever makes the model."""

    value: Value
    span: Span


# ---- sizes


def sizes_of(decl: s.Model | s.Derived) -> tuple[str, ...]:
    """The labels of a model's sizes."""
    tables = [statement for statement in decl.body.statements if isinstance(statement, s.Sizes)]
    return tuple(row.label.text for row in tables[0].rows) if tables else ()


def size_row(frame: Frame, decl: s.Model | s.Derived, size: str | None, asked: Span | None = None) -> SizeRow | None:
    """The cells of the row that is asked for (where a recipe asks, `asked` is the place), the first row if none is."""
    tables = [st for st in decl.body.statements if isinstance(st, s.Sizes)]
    if not tables:
        if size is not None:
            frame.report("E0111", f"{decl.name} has no sizes, so there is no `{size}`", decl.name.span)
            raise Fault
        return None
    table = tables[0]
    if len(tables) > 1:
        frame.report("E0102", "a model has one table of sizes", tables[1].span)
    _check_table(frame, table)
    rows = {row.label.text: row for row in table.rows}
    label = size if size is not None else next(iter(rows))
    if label not in rows:
        hint, known = did_you_mean(label, rows), ", ".join(rows)
        others = (Label(decl.name.span, "this model"),) if asked is not None else ()
        title = f"{decl.name} has no size `{label}`"
        raise frame.fault("E0111", title, asked or table.span, hint=hint, expected=known, others=others)
    row = rows[label]
    return SizeRow(label, {col.text: cell for col, cell in zip(table.columns, row.cells, strict=True)})


def _check_table(frame: Frame, table: s.Sizes) -> None:
    broken = False
    seen: set[str] = set()
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            broken = True
            title = f"the row `{row.label}` has {len(row.cells)} cells, there are {len(table.columns)} columns"
            frame.report("E0214", title, row.span, expected=" ".join(col.text for col in table.columns))
        if row.label.text in seen:
            broken = True
            frame.report("E0102", f"the size `{row.label}` is there twice", row.label.span)
        seen.add(row.label.text)
    columns = [col.text for col in table.columns]
    for at, column in enumerate(table.columns):
        if column.text in columns[:at]:
            broken = True
            frame.report("E0102", f"the column `{column}` is there twice", column.span)
    if broken:
        raise Fault


def bind_model_dims(
    frame: Frame, decl: s.Model, layers: Derived, row: SizeRow | None, given: Mapping[str, int]
) -> None:
    """`batch`, the sizes, what is given, and the free dims of the ports."""
    options = options_of(decl, layers)
    frame.dims[BATCH] = (d.fresh(frame, BATCH, given.get(BATCH), decl.name.span),)
    for name, cell in (row.cells if row else {}).items():
        if name in options:
            continue
        if not isinstance(cell, s.Number) or not isinstance(cell.value, int):
            raise frame.fault("E0214", f"`{name}` is a dim, so its sizes are whole numbers", cell.span)
        frame.dims[name] = (d.fresh(frame, name, given.get(name, cell.value), cell.span),)
    local = {b.name.text for st in decl.body.statements if isinstance(st, s.DimDef) for b in st.bindings}
    used = {part.name for part in s.walk(decl.body) if isinstance(part, s.DimRef | s.Ref)}
    ports = [part.name for port in decl.signature.ports for dim in port.dims or () for part in s.walk(dim)
             if isinstance(part, s.DimRef)]  # fmt: skip
    domains = [port.domain.text for port in decl.signature.ports if port.domain and port.domain.text != "bool"]
    for name in given:
        if name in frame.dims:
            continue
        if name in local or name not in {*used, *ports, *domains}:
            known = {*frame.dims, *ports, *domains}
            title = f"{decl.name} fixes {name} itself" if name in local else f"{decl.name} has no dim `{name}`"
            raise frame.fault("E0201", title, decl.name.span, hint=did_you_mean(name, known))
        frame.dims[name] = (d.fresh(frame, name, given[name], decl.name.span),)
    for name in ports:
        if name not in frame.dims and name not in local:
            frame.dims[name] = (d.fresh(frame, name, None, decl.signature.span),)


def options_of(decl: s.Model, layers: Derived) -> set[str]:
    """The options that a row of sizes can set: the model's own, and those of the models derived from it."""
    return {option.name.text for one in (decl, *(derived for derived, _ in layers)) for option in one.options}


def batch_is_carried(frame: Frame, decl: s.Model, row: SizeRow | None, given: Mapping[str, int]) -> None:
    """Report `tokens[B, T] -> logits[B, T, V]`, where B is nothing but the batch, in front of every value anyhow."""
    heads = [port.dims[0] if port.dims else None for port in decl.signature.ports]
    heads += [out.dims[0] if out.dims else None for out in decl.signature.outs]
    names = {dim.name if isinstance(dim, s.DimRef) else "" for dim in heads}
    name = next(iter(names)) if len(names) == 1 else ""
    inside = {part.name for part in s.walk(decl.body) if isinstance(part, s.DimRef | s.Ref)}
    if name.lower() not in _BATCHES or name in inside or name in given or (row is not None and name in row.cells):
        return
    port = decl.signature.ports[0]
    title = "the batch is carried through every model: its inputs and outputs do not name it"
    rest = ", ".join(dim.span.text for dim in (port.dims or ())[1:])
    hint = f"leave {name} out of the inputs and outputs: {port.name}[{rest}]"
    raise frame.fault("E0202", title, port.span, hint=hint)


def base_dims(frame: Frame, layers: Derived) -> dict[str, int]:
    """What derived models say of their bases' dims: `model Wide = GPT2[D = 1024]`. The outermost has the last word."""
    found: dict[str, int] = {}
    for derived, _ in reversed(layers):
        for item in derived.base.dims:
            if not isinstance(item, s.DimBind):
                title = "a model's dims are given by name"
                raise frame.fault("E0308", title, item.span, hint=f"write {derived.base.name}[D = …]")
            size = d.total(d.axes(frame, item.dim))
            if size is None:
                raise frame.fault("E0213", f"the size of {item.name} must be known here", item.span)
            found[item.name.text] = size
    return found


# ---- options


def bind_model_options(
    frame: Frame, decl: s.Model, layers: Derived,
    row: SizeRow | None, given: Mapping[str, object],
) -> None:  # fmt: skip
    """Options of the outermost declaration are given from outside; a derived model gives its base's."""
    current: dict[str, tuple[Value, Span]] = {}
    for at, (derived, module) in enumerate(layers):
        outer = Frame(frame.context, frame.output, module, f"model {derived.name}", dims=frame.dims)
        known = _from_outside(outer, derived.options, given, derived.name) if at == 0 else current
        known = {**_cells(outer, derived, row), **known}
        bind_options(outer, outer, derived.options, known, derived.name.text, derived.name.span)
        frame.names.update({name: value for name, value in outer.names.items() if name not in frame.names})
        args = arguments(outer, derived.base.args)
        base = layers[at + 1][0] if at + 1 < len(layers) else decl
        current = _arguments_by_name(outer, base, args.positional, args.named)
    if not layers:
        current = _from_outside(frame, decl.options, given, decl.name)
    current = {**_cells(frame, decl, row), **current}
    own = Frame(frame.context, frame.output, frame.module, frame.title, dims=frame.dims)
    bind_options(frame, own, decl.options, current, decl.name.text, decl.name.span)
    frame.names.update(own.names)


def _cells(frame: Frame, decl: s.Model | s.Derived, row: SizeRow | None) -> dict[str, tuple[Value, Span]]:
    """The columns of a row that are a model's options."""
    own = {option.name.text for option in decl.options}
    cells = row.cells if row is not None else {}
    return {name: (frame.evaluate(cell), cell.span) for name, cell in cells.items() if name in own}


def _arguments_by_name(
    frame: Frame,
    base: s.Model | s.Derived,
    positional: Sequence[tuple[Value, Span]],
    named: Mapping[str, tuple[Value, Span]],
) -> dict[str, tuple[Value, Span]]:
    names = [option.name.text for option in base.options]
    if len(positional) > len(names):
        raise frame.fault("E0302", f"{base.name} has {len(names)} options", positional[len(names)][1])
    for name, (_, span) in named.items():
        if name not in names:
            raise frame.fault("E0301", f"{base.name} has no option `{name}`", span, hint=did_you_mean(name, names))
    return {**dict(zip(names, positional, strict=False)), **named}


def _from_outside(
    frame: Frame, options: Sequence[s.Option], given: Mapping[str, object], name: s.Name
) -> dict[str, tuple[Value, Span]]:
    known = [option.name.text for option in options]
    found: dict[str, tuple[Value, Span]] = {}
    for option, value in given.items():
        if option not in known:
            raise frame.fault("E0301", f"{name} has no option `{option}`", name.span, hint=did_you_mean(option, known))
        if isinstance(value, Evaluated):
            found[option] = (value.value, value.span)
        elif isinstance(value, s.Expr):
            found[option] = (frame.evaluate(value), value.span)
        else:
            assert value is None or isinstance(value, bool | int | float | str), f"option {option} is plain"
            found[option] = (value, name.span)
    return found
