"""Lays entries of a record over others: what `extends` and `--set` mean.

In: entries below and above, as syntax. Out: entries. A key given above takes the place of the one below; sections
are merged key by key; patterns given above come before those below, since the first that matches wins. Also reads
`--set path=value`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

from ..base.diagnostic import Diagnostic, Diagnostics, Label, SpecError
from ..base.span import Source, Span
from ..language import syntax as s
from ..language.parse import parse

Item = TypeVar("Item")
_STEP = r'(?:[A-Za-z_]\w*|"(?:[^"\\\n]|\\.)*")'
_PATH = re.compile(rf"\s*({_STEP}(?:\.{_STEP})*)\s*=(?!=)", re.ASCII)
_WRAPPER = ("train set { value =", "\n}\n")


def identity(entry: s.RecordEntry) -> tuple[str, str]:
    """What makes two entries the same: the key, and the argument of a section that has one."""
    key = f'"{entry.key.value}"' if isinstance(entry.key, s.String) else entry.key.text
    argument = entry.argument if isinstance(entry, s.RecordSub) else None
    return key, "" if argument is None else argument.span.text


def merge(below: Sequence[s.RecordEntry], above: Sequence[s.RecordEntry]) -> tuple[s.RecordEntry, ...]:
    """Entries `above` laid over those `below`."""
    over = {identity(entry): entry for entry in above}
    under = {identity(entry) for entry in below}
    patterns = [entry for entry in above if isinstance(entry.key, s.String)]
    kept = [
        _over(entry, over[identity(entry)]) if identity(entry) in over else entry
        for entry in below
        if not (isinstance(entry.key, s.String) and identity(entry) in over)
    ]
    new = [entry for entry in above if identity(entry) not in under and not isinstance(entry.key, s.String)]
    return (*patterns, *kept, *new)


def _over(below: s.RecordEntry, above: s.RecordEntry) -> s.RecordEntry:
    if isinstance(below, s.RecordSub) and isinstance(above, s.RecordSub):
        return replace(above, entries=merge(below.entries, above.entries))
    if isinstance(below, s.RecordSet) and isinstance(above, s.RecordSub):
        return _into_value(below, above)
    return above


def _into_value(below: s.RecordSet, above: s.RecordSub) -> s.RecordEntry:
    """`dims.T = 64` over `dims = [T = 128]`, `optimizer.decay = 0` over `optimizer = adamw(…)`: one item changes."""
    items = [entry for entry in above.entries if isinstance(entry, s.RecordSet) and isinstance(entry.key, s.Name)]
    if len(items) < len(above.entries) or not items:
        return above
    value = below.value
    if isinstance(value, s.ListLit) and all(isinstance(item, s.At) for item in value.items):
        pairs = {item.name.text: item for item in value.items if isinstance(item, s.At)}
        for entry in items:
            assert isinstance(entry.key, s.Name), "items have names: they were picked so"
            pairs[entry.key.text] = s.At(entry.span, entry.key, entry.value)
        return replace(below, value=replace(value, items=tuple(pairs.values())))
    if isinstance(value, s.Call):
        names = {entry.key.text for entry in items if isinstance(entry.key, s.Name)}
        kept = [item for item in value.args if not (isinstance(item, s.KwArg) and item.name.text in names)]
        new = [s.KwArg(entry.span, entry.key, entry.value) for entry in items if isinstance(entry.key, s.Name)]
        return replace(below, value=replace(value, args=(*kept, *new)))
    return above


# ---- --set


def parse_set(text: str) -> s.RecordEntry:
    """The entry that `path=value` on the command line means: `eval.every=100` is `eval { every = 100 }`.

    Raises SpecError whose places are in the command line's text, shown as `--set`.
    """
    source = Source("--set", text)
    head = _PATH.match(text)
    if head is None:
        raise SpecError(
            Diagnostic(
                "E0410",
                "a setting that is no `path=value`",
                (Label(source.span(), ""),),
                expected='a path of keys and a value, such as `batch=8` or `optimizer."*.gain"=adamw(decay = 0)`',
            )
        )
    value = _value(source, head.end())
    steps = list(re.finditer(_STEP, head[1], re.ASCII))
    keys = [_key(source, found, head.start(1)) for found in steps]
    entry: s.RecordEntry = s.RecordSet(source.span(head.start(1)), keys[-1], value)
    for key in reversed(keys[:-1]):
        if isinstance(key, s.String):
            raise SpecError(Diagnostic("E0410", "a pattern ends a path", (Label(key.span, ""),)))
        entry = s.RecordSub(source.span(head.start(1)), key, None, (entry,))
    return entry


def _key(source: Source, found: re.Match[str], offset: int) -> s.Name | s.String:
    span = Span(source, offset + found.start(), offset + found.end())
    text = found.group()
    return s.String(span, re.sub(r"\\(.)", r"\1", text[1:-1])) if text.startswith('"') else s.Name(span, text)


def _value(source: Source, start: int) -> s.Expr:
    """The expression behind the equals sign: parsed in a record of its own, then moved back to where it is written."""
    parsed = parse(Source("--set", _WRAPPER[0] + source.text[start:] + _WRAPPER[1]))
    shift = _Shift(source, start - len(_WRAPPER[0]))
    if parsed.diagnostics:
        raise SpecError([shift.diagnostic(item) for item in parsed.diagnostics])
    records = [item for item in parsed.file.declarations if isinstance(item, s.Record)]
    entries = records[0].entries if records else ()
    if len(parsed.file.declarations) != 1 or len(entries) != 1 or not isinstance(entries[0], s.RecordSet):
        sink = Diagnostics()
        sink.error("E0410", "more than one value", source.span(start), "", expected="one expression")
        raise SpecError(sink)
    return shift.node(entries[0].value)


class _Shift:
    """Moves what was parsed in a wrapper to the text that it was wrapped around."""

    def __init__(self, source: Source, by: int) -> None:
        self.source, self.by = source, by

    def span(self, span: Span) -> Span:
        last = max(len(self.source.text), 1)
        start, end = (min(max(at + self.by, 0), last) for at in (span.start, span.end))
        return Span(self.source, min(start, last - 1), max(end, start))

    def node(self, item: Item) -> Item:
        """A value of the tree with every span in it moved."""
        found: Any = item
        if isinstance(found, Span):
            return cast(Item, self.span(found))
        if isinstance(found, tuple):
            return cast(Item, tuple(self.node(each) for each in cast("tuple[Any, ...]", found)))
        if isinstance(found, s.Node):
            return cast(
                Item, replace(found, **{each.name: self.node(getattr(found, each.name)) for each in fields(found)})
            )
        return item

    def diagnostic(self, item: Diagnostic) -> Diagnostic:
        labels = tuple(Label(self.span(label.span), label.text) for label in item.labels)
        return replace(item, labels=labels)
