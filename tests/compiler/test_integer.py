"""Integer programs against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.integer import INFINITE, Integer, Row

WHOLE = st.integers(-4, 4).map(float)


@st.composite
def programs(draw: st.DrawFn) -> Integer:
    """A few columns of 0 and 1, a few rows over all of them."""
    count = draw(st.integers(1, 4))
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 3))):
        values = draw(st.lists(WHOLE, min_size=count, max_size=count))
        low = draw(st.one_of(st.just(-INFINITE), WHOLE))
        rows.append((list(range(count)), values, low, draw(WHOLE.filter(lambda most, low=low: most >= low))))
    costs = draw(st.lists(WHOLE, min_size=count, max_size=count))
    return Integer(costs, rows, (0, count), np.ones(count))


def by_force(program: Integer) -> float:
    """The least cost of all ways."""
    least = INFINITE
    for x in product((0, 1), repeat=len(program.costs)):
        sums = [sum(v * x[c] for c, v in zip(columns, values, strict=True)) for columns, values, _, _ in program.rows]
        if all(low <= total <= most for total, (_, _, low, most) in zip(sums, program.rows, strict=True)):
            least = min(least, sum(c * at for c, at in zip(program.costs, x, strict=True)))
    return least


@given(programs(), st.booleans())
def test_the_best_is_found_and_proven(program: Integer, presolve: bool) -> None:
    least = np.zeros(len(program.costs))
    found, wanted = program.best(least, presolve=presolve), by_force(program)
    assert found.proven
    assert found.value == pytest.approx(wanted, abs=1e-6)
    assert program.relaxed(least).value <= wanted + 1e-6


@given(programs())
def test_a_relaxation_asked_again_says_the_same(program: Integer) -> None:
    count = len(program.costs)
    first = program.relaxed(np.zeros(count)).value
    for column in range(count):
        kept = np.zeros(count)
        kept[column] = 1
        anew = Integer(program.costs, program.rows, program.whole, program.most)
        assert program.relaxed(kept).value == pytest.approx(anew.relaxed(kept).value, abs=1e-6)
    assert program.relaxed(np.zeros(count)).value == pytest.approx(first, abs=1e-6)


def test_what_is_begun_from_is_no_worse() -> None:
    program = Integer([1.0, 2.0, 3.0], [([0, 1, 2], [1.0, 1.0, 1.0], 2.0, 2.0)], (0, 3), np.ones(3))
    start = program.best(np.asarray([0.0, 0.0, 1.0]))
    assert start.value == pytest.approx(4.0)
    assert program.best(np.zeros(3), start=start).value == pytest.approx(3.0)


def test_a_search_is_ended_by_its_work_and_gives_the_same_again() -> None:
    """A market split (Cornuéjols and Dawande 1998), which no search of this length proves."""
    numbers = np.random.default_rng(1).integers(1, 100, (4, 30))
    rows: list[Row] = []
    for at, row in enumerate(numbers):
        slack = [30 + at, 34 + at]
        half = float(row.sum() // 2)
        rows.append(([*range(30), *slack], [*row.astype(float).tolist(), 1.0, -1.0], half, half))
    most = np.concatenate([np.ones(30), np.full(8, INFINITE)])
    program = Integer([0.0] * 30 + [1.0] * 8, rows, (0, 30), most)
    first, second, longer = (program.best(np.zeros(38), work=work) for work in (1e4, 1e4, 4e4))
    assert not first.proven and first.x is not None and longer.x is not None
    assert np.array_equal(first.x, np.asarray(second.x)) and first.bound == second.bound
    assert longer.value <= first.value and longer.bound >= first.bound
