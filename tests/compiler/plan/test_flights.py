"""What a device of a schedule has in flight beside what it computes: messages over the ends of its chunks."""

from __future__ import annotations

import pytest
from partita.compiler.plan.flights import flights
from partita.compiler.schedule.verify import BUFFERS

STEADY = BUFFERS + 1  # on their way, and the next one


def test_messages_of_a_steady_pipeline_are_those_on_their_way_and_one_to_come() -> None:
    found = [(one.before, one.behind) for one in map(flights("1f1b", 3, 8), range(3))]
    assert found == [((0,), (STEADY,)), ((STEADY,), (STEADY,)), ((STEADY,), (0,))]


@pytest.mark.parametrize(("schedule", "microbatches"), [("gpipe", 8), ("1f1b", 1)])
def test_nothing_comes_once_all_forwards_are_done(schedule: str, microbatches: int) -> None:
    first, last = map(flights(schedule, 2, microbatches), range(2))
    assert first.behind == (min(STEADY, 2 * microbatches - 1),)
    assert last.before == (0,)


def test_chunks_of_one_device_send_each_other_nothing() -> None:
    first, last = map(flights("zero_bubble_v", 2, 4), range(2))
    assert (first.before, first.behind) == ((0, STEADY), (STEADY, 0))
    assert (last.before, last.behind) == ((STEADY, 0), (0, STEADY))
