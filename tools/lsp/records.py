"""What an editor is told of records: the keys of each section, what each takes, its default.

In: the nodes that a place lies in. Out: the section's table, a key's text. All of it comes from the schema that the
checker follows.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...compiler.base.span import Span
from ...compiler.elaborate.kinds import Choice, Either, Form, Forms, Kind, ListOf, describe
from ...compiler.elaborate.schema import SCHEMAS, Key, Schema
from ...compiler.language import syntax as s


def key_at(path: tuple[s.Node, ...], node: s.RecordSet | s.RecordSub, offset: int) -> tuple[str, Span] | None:
    """The text of the key that an offset lies in."""
    schema = schema_of(path[: path.index(node)])
    if schema is None or not isinstance(node.key, s.Name) or not node.key.span.start <= offset <= node.key.span.end:
        return None
    key = schema.key(node.key.text)
    return None if key is None else (key_text(key), node.key.span)


def schema_of(path: tuple[s.Node, ...]) -> Schema | None:
    """The table of keys that the innermost record or section of a path follows."""
    words: list[str] = []
    for node in path:
        if isinstance(node, s.Record):
            words = [node.kind.text]
        elif isinstance(node, s.RecordSub):
            words.append(node.key.text)
    return schema_at(words)


def schema_at(words: Iterable[str]) -> Schema | None:
    """The table of `train`, of its section `data`, …"""
    schema: Schema | None = None
    for at, word in enumerate(words):
        if at == 0:
            schema = SCHEMAS.get(word)
        elif schema is not None:
            key = schema.key(word)
            schema = key.section if key is not None else None
    return schema


def key_text(key: Key) -> str:
    """A key's line of documentation, what it takes, and its default."""
    takes = describe(key.kind) if key.kind is not None else "a section"
    default = f"; {key.default!r} by default" if key.default is not None else "; required" if key.required else ""
    unbuilt = "" if key.built else "\n\nnothing is done with it yet"
    return f"**{key.name}**: {key.doc}\n\n{takes}{default}{unbuilt}"


def words_of(kind: Kind | None) -> list[tuple[str, str]]:
    """What may be written for a kind of value: (word, what it is)."""
    match kind:
        case Choice():
            return [(word, kind.noun) for word in kind.words]
        case Forms():
            return [(_form(form), form.doc) for form in kind.forms]
        case Either():
            return [pair for one in kind.kinds for pair in words_of(one)]
        case ListOf():
            return words_of(kind.item)
        case _:
            return []


def _form(form: Form) -> str:
    return form.name if not form.arguments and form.rest is None else f"{form.name}("
