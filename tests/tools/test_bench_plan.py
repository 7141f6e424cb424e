"""`partita bench plan`: two real processes run some plans of a small model, and the table says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles.processes import launch_module
from partita.compiler.cost.cluster import Level, Link, Message, collective_s
from partita.compiler.cost.roofline import Machine
from partita.compiler.cost.table import Table
from partita.compiler.ir.types import DType
from partita.tools.bench import plan as bench
from partita.tools.bench.plan import Measured, Ranking, as_json, held, prepared, sampled, text
from partita.tools.bench.plan_contest import paced

LINK = Link(1e9, 1e-4)
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
MESSAGES = tuple(
    Message(kind, 2, size, collective_s(kind, size, (Level(2, LINK),))) for kind in KINDS for size in (1 << 10, 1 << 20)
)
TABLE = Table("cpu", "2", 1, 4 << 30, Machine({DType.F32: 5e10}, 1e10, 1e10, 2e-6), (), MESSAGES, 2, 2)


def test_two_processes_run_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "launch_module", launch_module)
    monkeypatch.setattr(bench, "here", lambda word: TABLE)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(bench, "SPEC", "recipes/tour.partita")
    ready = prepared("tour", 2, 2, tmp_path, (1, 1))
    assert [plan[0] for plan in ready.chosen] == [1, 2]
    found = held(ready, tmp_path)
    assert [one.predicted_seconds for one in found.plans] == sorted(one.predicted_seconds for one in found.plans)
    for one in found.plans:
        assert min(one.seconds, one.predicted_bytes, one.bytes) > 0
    assert "| 1 | " in text(found) and f"of {ready.ranked} plans" in text(found)


def test_the_first_is_held_to_the_fastest() -> None:
    finals = ((1, 2.2), (2, 2.0), (3, None))
    plans = tuple(Measured(rank, "", 1.0, 1.5, 1.5, seconds, 1, 1) for rank, seconds in finals)
    ranking = Ranking("m", 2, 3, plans)
    assert ranking.ratio == pytest.approx(1.1)
    assert as_json([ranking])["worst_ratio"] == ranking.ratio


def test_what_slows_a_round_slows_no_plan_against_another() -> None:
    assert paced([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]) == pytest.approx([2.0, 4.0])


def test_a_sample_has_the_best_and_the_last() -> None:
    assert sampled(5, 4, 3) == [0, 1, 2, 3, 4]
    assert sampled(100, 3, 3) == [0, 1, 2, 3, 51, 99]
