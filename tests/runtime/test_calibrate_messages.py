"""What a message is said to take: so much that many of them take that many times as long."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.calibrate_messages import winsorized_mean

SECONDS = st.floats(1e-6, 1.0)


def test_wake_ups_that_wait_for_a_tick_count_as_often_as_they_come() -> None:
    runs = [1e-3] * 30 + [5e-3] * 10
    assert winsorized_mean(runs) == pytest.approx(2e-3)
    assert winsorized_mean([*runs, 1.0]) == pytest.approx(2e-3, rel=0.05)  # something else held one up


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_it_is_a_mean_of_its_runs(runs: list[float]) -> None:
    assert min(runs) * (1 - 1e-9) <= winsorized_mean(runs) <= max(runs) * (1 + 1e-9)
    assert len(runs) >= 10 or winsorized_mean(runs) == pytest.approx(statistics.fmean(runs))
