"""A declaration as a reader wants it: its head on one line, and the `##` comment above it.

In: a declaration of a syntax tree. Out: text. The editor's hover and the reference of the standard library show these.
"""

from __future__ import annotations

import re

from ..compiler.language import syntax as s

Declared = s.Fn | s.Block | s.Model | s.Derived | s.Record
_GAP = re.compile(r"\s+")


def head(decl: Declared) -> str:
    """`block Linear[I, O](bias = true) : x[I] -> [O]`, `fn relu(x) = maximum(x, 0)`."""
    text = decl.span.text
    body = decl.body if isinstance(decl, s.Fn | s.Block | s.Model | s.Derived) else None
    if isinstance(body, s.Body):
        text = text[: body.span.start - decl.span.start]
    return _GAP.sub(" ", text.split(" {\n")[0]).strip().removesuffix("{").strip()


def comment(decl: Declared) -> str:
    """The `##` lines that stand directly above a declaration, without their marks."""
    source = decl.span.source
    lines: list[str] = []
    number = decl.span.line - 1
    while number >= 1 and (line := source.line(number).strip()).startswith("##"):
        lines.append(line.removeprefix("##").strip())
        number -= 1
    return "\n".join(reversed(lines))
