"""The reference of errors: the catalogue as a page, a section a code.

In: the catalogue's entries. Out: markdown; `partita help CODE` prints the same of one code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from types import MappingProxyType

from ...compiler.base.catalogue import catalogue
from ...compiler.base.entry import Entry
from .markdown import prose

HEAD = """# Errors

Every message has a code; `partita help CODE` prints what stands here. [specs/invalid](../invalid) holds a spec for
each, with the message that it gets.
"""
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "E00": "Syntax",
        "E01": "Names",
        "E02": "Dims",
        "E03": "Options and calls",
        "E04": "Records and units",
        "E05": "Data and runs",
        "E09": "Graphs and passes",
    }
)


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for group, entries in groupby(catalogue().values(), lambda entry: entry.code[:3]):
        lines.append(f"## {GROUPS.get(group, group)}\n")
        lines += [line for entry in entries for line in _entry(entry)]
    return "\n".join(lines)


def _entry(entry: Entry) -> Iterator[str]:
    yield f"### {entry.code}: {prose(entry.title)}\n"
    yield from (f"{prose(text)}\n" for text in (entry.what, entry.why) if text)
    for word, text in (("Wrong", entry.bad), ("Right", entry.mended)):
        if text:
            yield f"{word}:\n\n```\n{text.strip(chr(10))}\n```\n"
