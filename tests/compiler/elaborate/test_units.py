"""Quantities: every unit's factor, exactness, arithmetic on constants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from partita.compiler.base.span import Source
from partita.compiler.elaborate.units import UNITS, Dimension, constant, quantity
from partita.compiler.language.parse import parse_or_raise
from partita.compiler.language.syntax import Number, Record, RecordSet

GRAMMAR = Path(__file__).resolve().parents[3] / "compiler" / "language" / "grammar.lark"


def value(text: str) -> RecordSet:
    (record,) = parse_or_raise(Source("test", f"train t {{ x = {text} }}")).declarations
    assert isinstance(record, Record)
    (entry,) = record.entries
    assert isinstance(entry, RecordSet)
    return entry


@pytest.mark.parametrize(
    ("text", "base", "dimension"),
    [
        ("80 GiB", 80 * 2**30, Dimension.BYTES),
        ("600 KiB", 600 * 2**10, Dimension.BYTES),
        ("80 GB", 80 * 10**9, Dimension.BYTES),
        ("3.35 TB/s", 3_350_000_000_000, Dimension.BYTES_PER_S),
        ("400 Gbit/s", 50 * 10**9, Dimension.BYTES_PER_S),
        ("989 TFLOP/s", 989 * 10**12, Dimension.FLOP_PER_S),
        ("4 Mtokens", 4_000_000, Dimension.TOKENS),
        ("0.5 Mtokens", 500_000, Dimension.TOKENS),
        ("3 us", 3e-6, Dimension.SECONDS),
        ("2 hours", 7200, Dimension.SECONDS),
        ("1000 steps", 1000, Dimension.STEPS),
        ("7", 7, Dimension.NUMBER),
    ],
)
def test_base_units(text: str, base: float, dimension: Dimension):
    number = value(text).value
    assert isinstance(number, Number)
    found = quantity(number)
    assert (found.base, found.dimension) == (base, dimension)
    assert isinstance(found.base, int) == isinstance(base, int)


def test_every_unit_of_the_grammar_is_known():
    pattern = re.search(r"^UNIT\.2: /(.*)/$", GRAMMAR.read_text("utf-8"), re.MULTILINE)
    assert pattern is not None
    unit = re.compile(pattern[1].replace(r"\/", "/"))
    assert all(unit.fullmatch(name) for name in UNITS)
    prefixes = ("", "k", "M", "G", "T", "P")
    stems = ("B", "iB", "B/s", "iB/s", "FLOP/s", "bit/s", "tokens", "steps", "epochs", "us", "ms", "days")
    written = {prefix + stem for prefix in prefixes for stem in stems}
    assert {name for name in written if unit.fullmatch(name)} <= set(UNITS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2 * 3 + 1", 7), ("-2", -2), ("2 ^ 10", 1024), ("10 ^ -2", 0.01), ("7 % 4", 3), ("1 / 8", 0.125)],
)
def test_constants(text: str, wanted: float):
    found = constant(value(text).value)
    assert found is not None
    assert found.base == wanted


@pytest.mark.parametrize(
    "text", ["1 / 0", "9 ^ 9999999", "(-1) ^ 0.5", "a + 1", "2 * 3 steps", "1e308 ^ 2", "2.5 ^ 1000"]
)
def test_what_is_no_constant(text: str):
    assert constant(value(text).value) is None
