"""What could be written next: dims, options, blocks and functions, names of the block, keys of the record.

In: an analysis of the text as it is being typed, and an offset. Out: proposals. The line that is being typed is mostly
broken, so the place is told from the text before it; names come from the tree as far as it could be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...compiler.elaborate.load import MODELS
from ...compiler.elaborate.primitives import PRIMITIVES
from ...compiler.elaborate.schema import SCHEMAS
from ...compiler.language import syntax as s
from ..signatures import comment, head
from .analysis import WORD, Analysis, Body, locals_of
from .records import key_text, schema_at, words_of

STATEMENTS = ("return", "param", "dim", "check", "tap", "scan", "state", "init", "sizes")
DECLARATIONS = ("use", "fn", "block", "model", "train", "cluster", "plan", "weights")
_OPEN = re.compile(r"[()\[\]]|[A-Za-z_][\w.]*")
_RECORD = re.compile(r"^(train|cluster|plan)\s+\w+[^{\n]*\{", re.M)
_SECTION = re.compile(r"(\w+)[^{}\n]*\{|\}|\"[^\"\n]*\"|#[^\n]*")
_MAKES = re.compile(r"^\s*\w+\s*:\s*((chain|bank)\s+(\w+\s+in\s+)?\w+\s+of\s+)?[\w.]*$")


_GOES_ON = (",", "(", "[", "+", "*", "=", "->", "|>")  # a line that ends so is continued


@dataclass(frozen=True, slots=True)
class Proposal:
    """A word, what kind of thing it is, and what is to be said of it."""

    text: str
    kind: str
    detail: str = ""
    doc: str = ""


def completion(analysis: Analysis, offset: int) -> tuple[Proposal, ...]:
    """Proposals for the word that ends at an offset; an editor keeps those that fit what is typed of it."""
    text = analysis.source.text[:offset]
    line = text[text.rfind("\n") + 1 :]
    if ('"' in line and line.count('"') % 2) or "#" in line:
        return ()
    found = {one.text: one for one in reversed(list(_proposals(analysis, offset, text, line)))}
    return tuple(sorted(found.values(), key=lambda one: one.text))


def _proposals(analysis: Analysis, offset: int, text: str, line: str) -> Iterator[Proposal]:
    record = sections(text)
    if record:
        yield from _in_record(analysis, record, line)
        return
    if re.match(r"^use\s+[\w.]*$", line):
        yield from (Proposal(name, "file") for name in ("std", f"{MODELS}."))
        return
    if re.match(r"^\w*$", line):
        yield from (Proposal(word, "keyword") for word in DECLARATIONS)
        return
    if _MAKES.match(line):
        yield from _blocks(analysis)
        yield from (Proposal(word, "keyword") for word in ("chain", "bank"))
        return
    bracket, callee = opening(text)
    if bracket == "[":
        yield from _dims(analysis, offset, callee)
        return
    if bracket == "(" and callee:
        yield from _options(analysis, offset, callee)
    yield from _names(analysis, offset)
    if re.match(r"^\s+\w*$", line):
        yield from (Proposal(word, "keyword") for word in STATEMENTS)


# ---- where the place is


def sections(text: str) -> list[str]:
    """The record and the sections that the end of a text lies in: `["train", "data"]`; empty outside of records."""
    starts = list(_RECORD.finditer(text))
    if not starts:
        return []
    words = [starts[-1][1]]
    for found in _SECTION.finditer(text, starts[-1].end()):
        if found[0] == "}":
            words.pop()
        elif found[1] is not None:
            words.append(found[1])
        if not words:
            return []
    return words


def opening(text: str) -> tuple[str, str]:
    """The bracket that is open at the end of a text, and the name before it; nothing open gives ("", "")."""
    lines = text.split("\n")[-20:]
    first = len(lines) - 1
    while first > 0 and lines[first - 1].rstrip().endswith(_GOES_ON):
        first -= 1
    line = "\n".join(lines[first:])
    stack: list[tuple[str, str]] = []
    word, before = "", ""
    for found in _OPEN.finditer(line):
        piece = found[0]
        if piece in "([":
            touches = line[found.start() - 1 : found.start()]
            name = word if touches.isalnum() or touches == "_" else before if touches == "]" else ""
            stack.append((piece, name))
        elif piece in ")]":
            before = stack.pop()[1] if stack else ""
        else:
            word = piece
    return stack[-1] if stack else ("", "")


# ---- what fits there


def _in_record(analysis: Analysis, record: list[str], line: str) -> Iterator[Proposal]:
    schema = schema_at(record)
    if schema is None:
        return
    written = re.match(r"^\s*(\w+)\s*=", line)
    key = schema.key(written[1]) if written is not None else None
    if written is None:
        yield from (Proposal(one.name, "key", one.doc, key_text(one)) for one in schema.keys)
        return
    if key is not None:
        yield from (Proposal(word, "value", doc) for word, doc in words_of(key.kind))
    yield from _functions(analysis)
    yield from (Proposal(d.name.text, "model") for d in analysis.declared() if isinstance(d, s.Model | s.Derived))
    for decl in analysis.declared():
        if isinstance(decl, s.Model):
            ports = (*decl.signature.ports, *decl.signature.outs)
            yield from (Proposal(port.name.text, "value", decl.name.text) for port in ports if port.name is not None)
            yield from _local_dims(decl)


def _dims(analysis: Analysis, offset: int, callee: str) -> Iterator[Proposal]:
    decl = analysis.enclosing(offset)
    if isinstance(decl, Body):
        yield from _local_dims(decl)
    made = analysis.find(callee) if callee else None
    if isinstance(made, s.Block):
        yield from (Proposal(f"{f.name} = ", "dim", f"of {made.name}") for f in made.formals)


def _local_dims(decl: s.Node) -> Iterator[Proposal]:
    for local in locals_of(decl):
        if local.kind == "dim" and WORD.fullmatch(local.name.text):
            yield Proposal(local.name.text, "dim", local.node.span.text.splitlines()[0])


def _options(analysis: Analysis, offset: int, callee: str) -> Iterator[Proposal]:
    """The options of the block or function before the bracket, or the inputs of the instance."""
    decl: s.Node | None = analysis.find(callee)
    inside = analysis.enclosing(offset)
    for local in locals_of(inside) if inside is not None else ():
        if local.name.text == callee and isinstance(local.node, s.Instance):
            decl = analysis.find(local.node.constructor.name.text)
            ports = decl.signature.ports if isinstance(decl, s.Block) else ()
            yield from (Proposal(f"{port.name} = ", "option", port.span.text) for port in ports)
            return
    options: Iterable[s.Option] = decl.options if isinstance(decl, s.Fn | s.Block | s.Model | s.Derived) else ()
    yield from (Proposal(f"{option.name} = ", "option", option.span.text) for option in options)


def _names(analysis: Analysis, offset: int) -> Iterator[Proposal]:
    decl = analysis.enclosing(offset)
    for local in locals_of(decl) if isinstance(decl, Body) else ():
        if WORD.fullmatch(local.name.text):
            yield Proposal(local.name.text, local.kind, local.node.span.text.splitlines()[0])
    yield from _functions(analysis)


def _functions(analysis: Analysis) -> Iterator[Proposal]:
    for decl in analysis.declared():
        if isinstance(decl, s.Fn):
            yield Proposal(decl.name.text, "function", head(decl), comment(decl))
    yield from (Proposal(name, "function", "a primitive of the language") for name in PRIMITIVES)


def _blocks(analysis: Analysis) -> Iterator[Proposal]:
    for decl in analysis.declared():
        if isinstance(decl, s.Block):
            yield Proposal(decl.name.text, "block", head(decl), comment(decl))


__all__ = ["SCHEMAS", "Proposal", "completion"]
