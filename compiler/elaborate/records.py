"""Checks records against their schemas, after `extends` and `--set` have been merged in.

In: the records of a spec and the settings of the command line. Out: a `Section`: the values that were read, by
key, with their places. What is wrong is collected, so that one run reports all of it; a section comes back even
so, without the wrong values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..base.diagnostic import Diagnostic, Diagnostics, Label, SpecError, did_you_mean
from ..base.span import Span
from ..language import syntax as s
from .kinds import Kind, Setting, describe, one_of, show
from .merge import identity, merge
from .reading import Reader, Unread
from .schema import SCHEMAS, Key, Schema

MAX_EXTENDS = 50
MAX_LISTED = 8  # keys that are listed beside a hint
Records = Mapping[tuple[str, str], s.Record]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a pattern or a column holds, and where it is written."""

    key: str
    value: Setting
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Section:
    """A record, or a section of one, whose values have been read. A key without a value and a default is not there."""

    name: str
    span: Span = field(compare=False, repr=False)
    values: Mapping[str, Setting]
    spans: Mapping[str, Span] = field(compare=False, repr=False)
    patterns: tuple[Entry, ...] = ()
    columns: tuple[Entry, ...] = ()
    sections: Mapping[str, tuple[Section, ...]] = field(default_factory=dict[str, tuple["Section", ...]])
    whole: bool = True  # false where what it builds on could not be found

    def place(self, key: str) -> Span:
        """Where a key's value is written; the section's own place if it is not."""
        return self.spans.get(key, self.span)

    def section(self, key: str) -> Section | None:
        """The section under a key, if it is written."""
        found = self.sections.get(key, ())
        return found[0] if found else None


# ---- finding and joining records


def find(records: Records, kind: str, name: str | None) -> s.Record:
    """The record of that kind and name; the only one if no name is given. Raises SpecError E0409."""
    names = [known for known_kind, known in records if known_kind == kind]
    if name is None and len(names) == 1:
        return records[kind, names[0]]
    if name is not None and (kind, name) in records:
        return records[kind, name]
    title = f"no {kind} record `{name}`" if name is not None else f"which {kind} record? there are {len(names)}"
    raise SpecError(
        Diagnostic(
            "E0409",
            title,
            tuple(Label(records[kind, known].name.span) for known in names[:3]),
            expected=one_of(tuple(names)) if names else f"a record `{kind} name {{ … }}` in the spec",
            hint=did_you_mean(name, names) if name is not None else None,
        )
    )


def resolve(record: s.Record, records: Records, sink: Diagnostics) -> tuple[s.RecordEntry, ...]:
    """The entries of a record on top of those that it extends."""
    chain = [record]
    while (base := chain[-1].base) is not None:
        following = _base(chain[-1], base, records, sink)
        if following is None:
            break
        if following in chain:
            _circle(chain[chain.index(following) :], sink)
            break
        if len(chain) >= MAX_EXTENDS:
            sink.error("E0407", f"more than {MAX_EXTENDS} records extend each other", base.span, "")
            break
        chain.append(following)
    entries: tuple[s.RecordEntry, ...] = ()
    for item in reversed(chain):
        _duplicates(item.entries, sink)
        entries = merge(entries, item.entries)
    return entries


def _circle(records: Sequence[s.Record], sink: Diagnostics) -> None:
    """Told from the same record on, wherever it was entered, so that it is told once."""
    first = min(range(len(records)), key=lambda at: records[at].name.span.start)
    turned = [*records[first:], *records[:first]]
    way = " -> ".join(record.name.text for record in (*turned, turned[0]))
    last = turned[-1].base
    assert last is not None, "the last of a circle extends the first"
    sink.error("E0407", f"records extend each other: {way}", last.span, "this closes the circle")


def _base(record: s.Record, base: s.Name, records: Records, sink: Diagnostics) -> s.Record | None:
    kind = record.kind.text
    found = records.get((kind, base.text))
    if found is None:
        names = [name for known, name in records if known == kind]
        sink.error(
            "E0406", f"no {kind} record `{base}` to extend", base.span, "",
            expected=one_of(tuple(names)), hint=did_you_mean(base.text, names),
        )  # fmt: skip
    return found


def _duplicates(entries: Sequence[s.RecordEntry], sink: Diagnostics) -> None:
    first: dict[tuple[str, str], s.RecordEntry] = {}
    for entry in entries:
        before = first.setdefault(identity(entry), entry)
        if before is not entry:
            others = (Label(before.key.span, "here first"),)
            sink.error("E0405", f"`{_written(entry)}` is given twice", entry.key.span, "again here", others=others)
        if isinstance(entry, s.RecordSub):
            _duplicates(entry.entries, sink)


def _written(entry: s.RecordEntry) -> str:
    return entry.key.value if isinstance(entry.key, s.String) else entry.key.text


# ---- checking


def check_record(
    record: s.Record, records: Records, sink: Diagnostics, overrides: Iterable[s.RecordEntry] = (), whole: bool = True
) -> Section | None:
    """The values of a record. `whole`: whether keys that are missing are a fault."""
    schema = SCHEMAS.get(record.kind.text)
    if schema is None:
        sink.error(
            "E0414", f"no kind of record is called `{record.kind}`", record.kind.span, "",
            expected=one_of(tuple(SCHEMAS)), hint=did_you_mean(record.kind.text, SCHEMAS),
        )  # fmt: skip
        return None
    before = len(sink.items)
    entries = resolve(record, records, sink)
    whole = whole and not any(item.code in ("E0406", "E0407") for item in sink.items[before:])
    for override in overrides:
        entries = merge(entries, (override,))
    return Checker(sink, whole).section(schema, entries, record.name.span)


@dataclass(frozen=True, slots=True)
class Checker:
    """Holds entries to a schema."""

    sink: Diagnostics
    whole: bool = True

    def section(self, schema: Schema, entries: Sequence[s.RecordEntry], span: Span) -> Section:
        """Everything that could be read; the rest is reported."""
        values: dict[str, Setting] = {}
        spans: dict[str, Span] = {}
        patterns: list[Entry] = []
        columns: list[Entry] = []
        sections: dict[str, tuple[Section, ...]] = {}
        for entry in entries:
            name, key = _written(entry), schema.key(_written(entry))
            if isinstance(entry.key, s.String) or (key is None and schema.columns is not None):
                self._free(schema, entry, patterns if isinstance(entry.key, s.String) else columns)
            elif key is None:
                self._unknown(schema, entry)
            elif isinstance(entry, s.RecordSub):
                spans.setdefault(name, entry.span)
                found = self._sub(key, entry)
                sections[name] = (*sections.get(name, ()), *found)
            else:
                spans[name] = entry.value.span
                self._value(key, entry, values)
        self._missing(schema, spans, span)
        defaults = {key.name: key.default for key in schema.keys if key.default is not None}
        return Section(
            schema.name, span, {**defaults, **values}, spans, tuple(patterns), tuple(columns), sections, self.whole
        )

    def _read(self, expr: s.Node, kind: Kind, what: str) -> tuple[Setting] | None:
        try:
            return (Reader(self.sink).read(expr, kind, what),)
        except Unread:
            return None

    def _value(self, key: Key, entry: s.RecordSet, values: dict[str, Setting]) -> None:
        if key.kind is None:
            self.sink.error(
                "E0402", f"`{key.name}` is a section", entry.span, "",
                expected=f"`{key.name} {{ … }}`", found=show(entry.value),
            )  # fmt: skip
            return
        found = self._read(entry.value, key.kind, key.name)
        if found is not None:
            values[key.name] = found[0]

    def _free(self, schema: Schema, entry: s.RecordEntry, into: list[Entry]) -> None:
        name = _written(entry)
        kind = schema.patterns if isinstance(entry.key, s.String) else schema.columns
        if kind is None or isinstance(entry, s.RecordSub):
            self._unknown(schema, entry)
            return
        found = self._read(entry.value, kind, name)
        if found is not None:
            into.append(Entry(name, found[0], entry.key.span))

    def _unknown(self, schema: Schema, entry: s.RecordEntry) -> None:
        name = _written(entry)
        hint = did_you_mean(name, schema.names)
        listed = one_of(schema.names) if schema.names else 'patterns of paths such as "*.gain"'
        expected = None if hint and len(schema.names) > MAX_LISTED else listed
        self.sink.error(
            "E0401", f"`{schema.name}` has no key `{name}`", entry.key.span, "",
            expected=expected, hint=hint,
        )  # fmt: skip

    def _sub(self, key: Key, entry: s.RecordSub) -> tuple[Section, ...]:
        if key.section is None:
            assert key.kind is not None, f"{key.name} takes neither a value nor a section"
            self.sink.error(
                "E0402", f"`{key.name}` is not a section", entry.key.span, "",
                expected=f"`{key.name} = `{describe(key.kind)}",
            )  # fmt: skip
            return ()
        found = self.section(key.section, entry.entries, entry.key.span)
        return (self._titled(key.section, entry, found),)

    def _titled(self, schema: Schema, entry: s.RecordSub, found: Section) -> Section:
        if (schema.argument is None) == (entry.argument is None):
            if schema.argument is None or entry.argument is None:
                return found
            name = self._read(entry.argument, schema.argument, schema.name)
            return replace(found, values={**found.values, "name": name[0] if name else None})
        if entry.argument is not None:
            self.sink.error("E0402", f"`{schema.name}` takes no name", entry.argument.span, "")
        elif schema.argument is not None:
            self.sink.error("E0404", f"`{schema.name}` lacks {describe(schema.argument)}", entry.key.span, "")
        return found

    def _missing(self, schema: Schema, written: Mapping[str, Span], span: Span) -> None:
        for key in schema.keys if self.whole else ():
            if key.required and key.name not in written:
                _lacks(schema, key, span, self.sink)


def lacking(schema: Schema, section: Section, name: str, sink: Diagnostics, span: Span) -> bool:
    """Reports a key that must stand in a section after all, if it does not; gives whether it does not."""
    key = schema.key(name)
    assert key is not None, f"{schema.name} has a key {name}"
    if name in section.spans:
        return False
    if section.whole:
        _lacks(schema, key, span, sink)
    return True


def _lacks(schema: Schema, key: Key, span: Span, sink: Diagnostics) -> None:
    shape = describe(key.kind) if key.kind is not None else f"`{key.name} {{ … }}`"
    title, notes = f"`{schema.name}` lacks `{key.name}`", (f"{key.name}: {key.doc}",)
    sink.error("E0404", title, span, "", expected=shape, notes=notes)
