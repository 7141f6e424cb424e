"""What a device of a schedule has in flight beside what it computes: messages over the ends of its chunks."""

from __future__ import annotations

from operator import le

import pytest
from partita.compiler.plan.flights import certain, flights
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


@pytest.mark.parametrize("schedule", ["interleaved(2)", "interleaved(3)", "zero_bubble_v"])
@pytest.mark.parametrize("stages", [2, 3, 4, 7])
def test_what_is_certain_of_a_device_comes_about(schedule: str, stages: int) -> None:
    every = range(1, 2 * stages + 1) if schedule == "zero_bubble_v" else (stages, 2 * stages)
    for microbatches in every:
        known, whole = certain(schedule, stages, microbatches), flights(schedule, stages, microbatches)
        assert known is not None
        for device in range(stages):
            (one,), there = known(device).moments, whole(device)
            assert (known(device).before, known(device).behind) == (there.before, there.behind)
            alike = [other for other in there.moments if (other.chunk, other.late) == (one.chunk, one.late)]
            assert any(all(map(le, one.kept, other.kept)) for other in alike), (one, alike)
