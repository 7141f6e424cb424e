"""The reference of the standard library: every block and function with its head, its comment and what it owns.

In: the texts of specs/std, parsed. Out: markdown, a section a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...compiler.base.span import Source
from ...compiler.elaborate.forms import FORMS
from ...compiler.elaborate.load import std_parsed
from ...compiler.language import syntax as s
from ..signatures import comment, head
from .markdown import prose

HEAD = """# The standard library

`use std` brings all of this in. It is written in the language itself: read [specs/std](../std). What stands in `[ ]`
are dims, in `( )` the options of a block or the arguments of a function; `fn` as an option's type means a function,
such as a mask. A function marked `kernel` has a fused implementation; its body is its meaning.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_primitives(), *(line for parsed in std_parsed() for line in _file(parsed.file))])


def _primitives() -> Iterator[str]:
    yield "## Primitives\n"
    yield "These the language itself knows; the [tour](tour.md) shows them at work.\n"
    yield from ("| form | gives |", "|---|---|")
    yield from (f"| `{form}` | {said} |" for form, said in FORMS.values())
    yield ""


def _file(file: s.File) -> Iterator[str]:
    source = file.span.source
    name = source.path.rpartition("/")[2]
    yield f"## [{name}](../std/{name})\n"
    preamble = _preamble(source)
    if preamble:
        yield f"{prose(preamble)}\n"
    for decl in file.declarations:
        if isinstance(decl, s.Fn | s.Block):
            yield from _entry(decl)


def _preamble(source: Source) -> str:
    """The comment that opens a file; indented lines of it are a list."""
    lines: list[str] = []
    for line in source.text.split("\n"):
        if not line.startswith("##"):
            break
        text = line.removeprefix("##")
        lines.append(f"    {text.strip()}" if text.startswith("   ") else text.strip())
    return "\n".join(lines).replace("\n    ", "\n\n    ", 1).strip()


def _entry(decl: s.Fn | s.Block) -> Iterator[str]:
    yield f"### {decl.name}\n"
    kernel = " kernel" if isinstance(decl, s.Fn) and decl.kernel is not None else ""
    shown = head(decl)
    yield f"```\n{shown if shown.endswith(kernel) or ' kernel ' in shown else shown + kernel}\n```\n"
    said = comment(decl)
    if said and said != _preamble(decl.span.source):
        yield f"{prose(said)}\n"
    owned = [_owned(part) for part in decl.body.statements if isinstance(part, s.Param | s.State | s.Instance)] if (
        isinstance(decl, s.Block)
    ) else []  # fmt: skip
    if owned:
        yield f"Owns {', '.join(owned)}.\n"


def _owned(part: s.Param | s.State | s.Instance) -> str:
    if isinstance(part, s.Instance):
        times = f"{part.repeat.span.text} " if part.repeat is not None else ""
        return f"`{part.name} : {times}{part.constructor.name}`" + _when(part.condition)
    dims = ", ".join(dim.span.text for dim in part.dims)
    state = "the state " if isinstance(part, s.State) else ""
    return f"{state}`{part.name}[{dims}]`" + _when(part.condition if isinstance(part, s.Param) else None)


def _when(condition: s.Expr | None) -> str:
    return f" when `{condition.span.text}`" if condition is not None else ""
