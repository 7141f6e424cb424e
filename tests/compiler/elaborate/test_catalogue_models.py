"""The catalogue's entries of names, dims and calls are true: the bad spec has the fault, the mended one has none."""

from __future__ import annotations

import pytest
from partita.compiler.base import codes_calls, codes_dims, codes_names
from partita.compiler.base.entry import Entry
from partita.compiler.elaborate.check import check_text

SHOWN = [entry for group in (codes_names, codes_dims, codes_calls) for entry in group.ENTRIES if entry.bad]


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.code)
def test_entries_are_true(entry: Entry):
    assert entry.code in {item.code for item in check_text(entry.bad, "bad.partita")}
    assert check_text(entry.mended, "mended.partita") == ()
