"""Every code of records: the catalogue's bad spec has the fault, printed as the snapshot is; the mended one has none.

`specs/invalid/CODE-records.partita` holds the bad spec, the `.txt` beside it what is printed. PARTITA_ACCEPT=1
writes both anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from partita.compiler.base.codes_records import ENTRIES
from partita.compiler.base.diagnostic import Diagnostics, render_all
from partita.compiler.base.entry import Entry
from partita.compiler.base.span import Source
from partita.compiler.elaborate.check import check_spec
from partita.compiler.elaborate.load import load

FOLDER = Path(__file__).resolve().parents[3] / "specs" / "invalid"
SHOWN = [entry for entry in ENTRIES if entry.bad]


def faults(code: str, text: str) -> Diagnostics:
    spec, found = load(Source(f"{code}-records.partita", text))
    assert spec is not None, render_all(found)
    sink = Diagnostics()
    sink.extend(check_spec(spec))
    return sink


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.code)
def test_bad_specs_print_their_snapshots(entry: Entry):
    sink = faults(entry.code, entry.bad)
    assert {item.code for item in sink} == {entry.code}
    spec, text = FOLDER / f"{entry.code}-records.partita", FOLDER / f"{entry.code}-records.txt"
    if os.environ.get("PARTITA_ACCEPT"):
        spec.write_text(entry.bad, "utf-8")
        text.write_text(render_all(sink) + "\n", "utf-8")
    assert spec.read_text("utf-8") == entry.bad
    assert text.read_text("utf-8") == render_all(sink) + "\n"


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.code)
def test_mended_specs_have_no_fault(entry: Entry):
    assert faults(entry.code, entry.mended).items == []
