"""`partita bench predict`: its cases cover what it must, each compiles and runs, and errors are summed up as said."""

from __future__ import annotations

import pytest
from partita.compiler.cost.roofline import Machine
from partita.compiler.cost.table import Table
from partita.compiler.ir.types import DType
from partita.tools.bench.predict import BF16, CASES, Outcome, bench_predict, summary


def test_a_case_foretells_its_bytes_and_measures_both() -> None:
    table = Table("cpu", "2", 1, 1, Machine({DType.F32: 1e10}, 1e9, 1e9, 1e-6))
    (found,) = bench_predict(["small, rows of 32"], 1, table)
    assert found.memory_error == pytest.approx(0, abs=0.001)
    assert found.seconds > 0 and found.predicted_seconds > 0 and found.slowdown > 0


def test_cases_cover_batches_rows_microbatches_and_types() -> None:
    given = {word.partition("=")[0] for _, _, sets in CASES for word in sets} | {BF16.partition("=")[0]}
    assert {"batch", "dims.T", "microbatches", "precision", "optimizer", "clip"} <= given
    assert len(CASES) >= 12 and {which for _, which, _ in CASES} == {"small", "medium"}


def test_errors_are_relative_to_what_was_measured() -> None:
    found = summary(
        [
            Outcome("a", 1.2, 1.0, 100, 100, slowdown=2.0),
            Outcome("b", 0.9, 1.0, 98, 100),
            Outcome("c", 1.0, 1.0, 100, 100),
        ]
    )
    assert found["worst_time_error"] == pytest.approx(0.2)
    assert found["median_time_error"] == pytest.approx(0.1)
    assert found["worst_memory_error"] == pytest.approx(0.02)
