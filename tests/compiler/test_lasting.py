"""The search for a bound on what lasts: it ends, and finds a layout between one that is over and none at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import Diagnostic, SpecError
from partita.compiler.lasting import Lasting

FAULT = SpecError(Diagnostic("E0943", "too large"))


@given(st.lists(st.tuples(st.integers(2, 1000), st.integers(1, 3000)), min_size=1), st.integers(1, 4000))
def test_what_is_given_up_was_looked_for(layouts: list[tuple[int, int]], memory: int) -> None:
    """Of layouts (what lasts, what comes on top), each bound gives the one that lasts most; a fault is raised at most
    once none is left at or above the bound that is refused."""
    search, tried = Lasting(1 << 62), 0
    while True:
        tried += 1
        assert tried < 2000 and search.bound is not None
        there = [one for one in layouts if one[0] <= search.bound]
        try:
            if not there:
                search.refuse(FAULT)
                continue
        except SpecError:
            assert tried > 1 and not [one for one in layouts if one[0] <= search.refused]
            return
        resident, more = max(there)
        if resident + more <= memory:
            return
        search.over(resident, resident + more - memory)


def test_a_layout_just_below_one_that_is_over_is_found() -> None:
    search = Lasting(1 << 62)
    search.over(100, 60)
    assert search.bound == 40
    search.refuse(FAULT)
    assert search.bound == 70


def test_a_fault_of_the_first_layout_is_the_answer() -> None:
    with pytest.raises(SpecError):
        Lasting(None).refuse(FAULT)
