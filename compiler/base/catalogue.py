"""The catalogue of error codes: what each means, why it is an error, a spec that has it and the same spec mended.

In: a code. Out: its `Entry`, or the text that `partita help CODE` prints. The entries are data, a module a group:
E00 syntax, E01 names, E02 dims, E03 options and calls, E04 records and units, E05 data and runs, E08 weight maps,
E09 graphs and passes. A code is never given a second meaning.
"""

from functools import cache
from textwrap import indent

from . import (
    codes_calls,
    codes_data,
    codes_dims,
    codes_graph,
    codes_names,
    codes_records,
    codes_syntax,
    codes_weights,
)
from .diagnostic import Diagnostic, SpecError, did_you_mean
from .entry import Entry

GROUPS: tuple[tuple[Entry, ...], ...] = (
    codes_syntax.ENTRIES,
    codes_names.ENTRIES,
    codes_dims.ENTRIES,
    codes_calls.ENTRIES,
    codes_records.ENTRIES,
    codes_data.ENTRIES,
    codes_weights.ENTRIES,
    codes_graph.ENTRIES,
)


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by its code, in order."""
    entries = sorted((entry for group in GROUPS for entry in group), key=lambda entry: entry.code)
    found = {entry.code: entry for entry in entries}
    assert len(found) == len(entries), "a code has two entries"
    return found


def explain(code: str) -> str:
    """The catalogue's text on a code, whatever its case. Raises SpecError if there is no such code."""
    known = catalogue()
    entry = known.get(code.upper())
    if entry is None:
        hint = did_you_mean(code.upper(), known)
        raise SpecError(Diagnostic("E0100", f"there is no error code {code}", hint=hint))
    parts = [f"{entry.code}: {entry.title}", entry.what, entry.why]
    if entry.bad:
        parts.append("Wrong:\n\n" + indent(entry.bad.strip("\n"), "    "))
    if entry.mended:
        parts.append("Right:\n\n" + indent(entry.mended.strip("\n"), "    "))
    return "\n\n".join(part for part in parts if part) + "\n"
