"""Token slices as published (TeraPipe): one machine, fitted on equal slices of one setting, foretells the others."""

from __future__ import annotations

import pytest
from partita.tools.bench.terapipe import FITTED, Found, Row, as_json, bench_terapipe, table
from partita.tools.bench.terapipe_published import EQUAL, SETTINGS, TOKENS


@pytest.fixture(scope="module")
def found() -> Found:
    return bench_terapipe()


def rows(found: Found, number: int) -> dict[str, Row]:
    return {row.what: row for row in (*found.rows, *found.equal) if row.setting.number == number}


def test_settings_that_nothing_was_fitted_on_are_foretold(found: Found) -> None:
    for one in SETTINGS:
        mine = rows(found, one.number)
        assert abs(mine["with"].error) <= 0.15, one
        assert abs(mine["without"].error) <= 0.15, one
    assert found.worst <= 0.15
    assert 40e12 < found.rates.flops_per_s < 125e12  # of a V100, whose data sheet says 125
    assert 400e9 < found.rates.bandwidth_bytes_per_s < 900e9
    assert 1e-6 < found.rates.launch_s < 1e-4


def test_the_speed_up_of_175b_is_the_papers(found: Found) -> None:
    mine = rows(found, 10)
    assert mine["without"].simulated_s / mine["with"].simulated_s == pytest.approx(5.822 / 1.16, rel=0.15)


@pytest.mark.parametrize("number", EQUAL)
def test_unequal_slices_beat_every_equal_split(found: Found, number: int) -> None:
    mine = rows(found, number)
    equal = [mine[f"{count} equal"].simulated_s for count in EQUAL[number]]
    assert 0 < equal.index(min(equal)) < len(equal) - 1, "the best number of slices lies inside"
    best = mine["best"]
    assert best.simulated_s < min(equal)
    assert len(set(best.lengths)) > 1
    assert sum(best.lengths) == TOKENS


def test_it_is_told(found: Found) -> None:
    text = table(found)
    assert f"fitted on the equal slices of setting {FITTED}" in text
    assert "4 x 120, 6 x 112, 8 x 104, 64" in text
    listed = as_json(found)["rows"]
    assert isinstance(listed, list)
    assert len(listed) == 3 * len(SETTINGS) + sum(map(len, EQUAL.values()))
