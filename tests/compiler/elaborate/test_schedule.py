"""Learning rates: the graph's nodes against plain formulas, at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from partita.compiler.base.diagnostic import Diagnostics
from partita.compiler.base.span import Source
from partita.compiler.elaborate.kinds import Either, Real
from partita.compiler.elaborate.rates import schedule_of
from partita.compiler.elaborate.reading import Reader
from partita.compiler.elaborate.recipe import Schedule
from partita.compiler.elaborate.schedule import rate, rate_at
from partita.compiler.elaborate.schema_forms import SCHEDULE_FORMS
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import DType
from partita.compiler.language.parse import parse
from partita.compiler.language.syntax import Record, RecordSet
from partita.compiler.ops.build import Builder

STEPS = 40


def read(text: str) -> tuple[Schedule | None, Diagnostics]:
    parsed = parse(Source("test", f"train t {{ lr = {text} }}"))
    assert not parsed.diagnostics
    (record,) = parsed.file.declarations
    assert isinstance(record, Record)
    (entry,) = record.entries
    assert isinstance(entry, RecordSet)
    sink = Diagnostics()
    value = Reader(sink).read(entry.value, Either((Real(0.0), SCHEDULE_FORMS)), "lr")
    return schedule_of(value, entry.span, STEPS, sink), sink


def cosine(start: float, stop: float, t: float) -> float:
    return stop + 0.5 * (start - stop) * (1 + math.cos(math.pi * min(t, 1)))


CASES: dict[str, Callable[[int], float]] = {
    "3e-4": lambda s: 3e-4,
    "0": lambda s: 0.0,
    "constant(3e-4)": lambda s: 3e-4,
    "linear(1e-2, to = 1e-3)": lambda s: 1e-2 + (1e-3 - 1e-2) * s / 40,
    "cosine(1e-2)": lambda s: cosine(1e-2, 0, s / 40),
    "cosine(1e-2, to = 1e-3, over = 10 steps)": lambda s: cosine(1e-2, 1e-3, s / 10),
    "warmup(0.1, 10 steps) |> cosine(to = 0.01)": lambda s: (
        0.1 * (s + 1) / 10 if s < 10 else cosine(0.1, 0.01, (s - 10) / 30)
    ),
    "warmup(0.1, 4 steps) |> constant() |> linear(to = 0, over = 8)": lambda s: 0.0,
    "warmup(0.1, 4) |> constant(over = 16 steps) |> linear()": lambda s: (
        0.1 * (s + 1) / 4 if s < 4 else 0.1 if s < 20 else 0.1 * (1 - (s - 20) / 20)
    ),
    "warmup(0.1, 100 steps) |> cosine(to = 0.01)": lambda s: 0.1 * (s + 1) / 100,
}
GOOD = {text: formula for text, formula in CASES.items() if "constant()" not in text}


@pytest.mark.parametrize("text", GOOD)
def test_rates_follow_the_formula(text: str):
    schedule, sink = read(text)
    assert schedule is not None
    assert not sink.items
    b = Builder(GraphBuilder("schedule"))
    (step,) = b("cast", b.clock("step"), to=DType.F64)
    build: Any = b
    b.output("lr", rate(build, schedule, step))
    graph = b.finish()
    for at in range(STEPS + 5):
        wanted = GOOD[text](at) if at < STEPS else rate_at(schedule, at)
        assert rate_at(schedule, at) == pytest.approx(wanted, rel=1e-12, abs=1e-18)
        assert float(interpret(graph, {"step": at})["lr"]) == pytest.approx(wanted, rel=1e-12, abs=1e-18)


def test_the_peak():
    schedule, _ = read("warmup(0.1, 10 steps) |> cosine(to = 0.01)")
    assert schedule is not None
    assert schedule.peak == 0.1
    assert schedule.scaled(0.2).peak == 0.2
    assert rate_at(schedule.scaled(0.2), 25) == pytest.approx(2 * rate_at(schedule, 25))


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("warmup(0.1, 4 steps) |> constant() |> linear(to = 0)", "E0404", "lacks `over`"),
        ("cosine(to = 0.1)", "E0404", "lacks `peak`"),
    ],
)
def test_pieces_that_lack_something(text: str, code: str, part: str):
    schedule, sink = read(text)
    assert schedule is None
    assert [item.code for item in sink] == [code]
    assert part in sink.items[0].title
