"""The catalogue of errors: complete, in order, and true: the bad spec has the fault, the mended one has not."""

import ast
import re
from pathlib import Path

import pytest
from partita.compiler.base.catalogue import catalogue, explain
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.base.entry import Entry
from partita.compiler.base.span import Source
from partita.compiler.language.parse import parse

ROOT = Path(__file__).resolve().parents[3]
SYNTAX = [entry for entry in catalogue().values() if entry.code.startswith("E00") and entry.bad]


def codes_in_use() -> set[str]:
    """Every code that a module of the compiler, the runtime or the tools names in a string."""
    found: set[str] = set()
    for folder in ("compiler", "runtime", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"^E0\d{3}$", node.value))
    return found


def test_every_code_in_use_is_explained():
    assert codes_in_use() - set(catalogue()) == set()


def test_codes_are_well_formed():
    assert all(re.fullmatch(r"E0\d{3}", code) for code in catalogue())


@pytest.mark.parametrize("entry", SYNTAX, ids=lambda entry: entry.code)
def test_syntax_entries_are_true(entry: Entry):
    assert entry.code in [item.code for item in parse(Source("bad", entry.bad)).diagnostics]
    assert parse(Source("mended", entry.mended)).diagnostics == ()


def test_explain():
    text = explain("e0003")
    assert text.startswith("E0003: one statement a line\n")
    assert "Wrong:" in text
    assert "Right:" in text
    with pytest.raises(SpecError):
        explain("E9999")
