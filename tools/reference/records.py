"""The reference of records: every key of `train`, `cluster` and `plan`, what it takes, its default.

In: the schema that the checker follows. Out: markdown, a table a section.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ...compiler.elaborate.kinds import Either, Form, Forms, Kind, ListOf, describe
from ...compiler.elaborate.schema import SCHEMAS, Key, Schema
from ...compiler.elaborate.units import UNITS, Unit
from .markdown import prose

HEAD = """# Records

A record says how a model is trained, on which machines, by which plan: `train name { … }`, `cluster name { … }`,
`plan name { … }`. `key = value` sets a key, `key { … }` opens its section; `train b extends a { … }` takes everything
from `a` that it does not say itself. On the command line `--set path=value` changes one value, by the path of its keys:
`--set eval.every=100`. Keys marked † are read and checked, but nothing is done with them yet.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, *(line for schema in SCHEMAS.values() for line in _section(schema, (schema.name,)))]
    return "\n".join([*lines, *_units()])


def _section(schema: Schema, path: tuple[str, ...]) -> Iterator[str]:
    """A table of keys, the forms of their values, then the sections within."""
    argument = f" *{describe(schema.argument)}*" if schema.argument is not None else ""
    yield f"{'#' * min(1 + len(path), 4)} {' › '.join(path)}{argument}\n"
    if schema.keys:
        yield "| key | takes | default | |\n|---|---|---|---|"
        yield from (_row(key) for key in schema.keys)
        yield ""
    if schema.patterns is not None:
        takes = prose(describe(schema.patterns))
        yield f'By pattern of parameters\' paths (`"*.gain" = …`, the first that fits counts): {takes}.\n'
    if schema.columns is not None:
        yield "Any other key is a column of the data, one of:\n"
        yield from (_form(form) for form in _forms_of(schema.columns))
        yield ""
    for key in schema.keys:
        yield from _forms(key)
    for key in schema.keys:
        if key.section is not None:
            yield from _section(key.section, (*path, key.name))


def _row(key: Key) -> str:
    takes = prose(describe(key.kind)) if key.kind is not None else ""
    section = "a section" if key.section is not None else ""
    default = "**required**" if key.required else "" if key.default is None else f"`{_literal(key.default)}`"
    cells = (
        f"`{key.name}`{'' if key.built else ' †'}",
        " or ".join(filter(None, (takes, section))),
        default,
        prose(key.doc),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _literal(value: object) -> str:
    """A default as it would be written."""
    if isinstance(value, bool):
        return str(value).lower()
    return '"' + value.replace("\n", "\\n") + '"' if isinstance(value, str) else str(value)


def _forms(key: Key) -> Iterator[str]:
    forms = list(_forms_of(key.kind))
    if forms:
        yield f"`{key.name}` is one of:\n"
        yield from (_form(form) for form in forms)
        yield ""


def _forms_of(kind: Kind | None) -> Iterator[Form]:
    if isinstance(kind, Forms):
        yield from kind.forms
    elif isinstance(kind, Either):
        for one in kind.kinds:
            yield from _forms_of(one)
    elif isinstance(kind, ListOf):
        yield from _forms_of(kind.item)


def _form(form: Form) -> str:
    rest = ["…"] if form.rest is not None else []
    inside = ", ".join([*rest, *(argument.name for argument in form.arguments)])
    head = f"`{form.name}({inside})`" if inside else f"`{form.name}`"
    details = [f"`{one.name}`: {one.doc}{' (required)' if one.required else ''}" for one in form.arguments]
    after = [f"after {', '.join(f'`{name}` |>' for name in form.after)}"] if form.after else []
    more = "; ".join([*after, *details])
    return f"- {head}{'' if form.built else ' †'}: {form.doc}" + (f" ({more})" if more else "")


def _units() -> Iterator[str]:
    yield "## Units\n"
    yield "A quantity is a number and a unit, `80 GiB`. Prefixes are decimal; those with an i are powers of 1024.\n"
    yield "| measures | units |\n|---|---|"

    def measured(unit: Unit) -> str:
        return unit.dimension.value

    for dimension, units in groupby(sorted(UNITS.values(), key=measured), measured):
        yield f"| {dimension} | {' '.join(f'`{unit.name}`' for unit in sorted(units, key=lambda unit: unit.factor))} |"
    yield ""
