"""`partita bench pipeline`: real processes hold a small contest, and its figures are summed up as said."""

from __future__ import annotations

import pytest
from oracles.processes import launch_module
from partita.tools.bench import pipeline
from partita.tools.bench.command import piped
from partita.tools.bench.pipeline import SCHEDULES, TOLERANCE, Piped, bench_pipeline, even, summary
from partita.tools.bench.pipeline_contest import PipelineOutcome
from partita.tools.bench.pipeline_peers import MULTIPLE, SINGLE


def test_two_processes_hold_a_contest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "launch_module", launch_module)
    (case,) = bench_pipeline(["zero_bubble_v"], [2], "tiny", 1)
    assert case.peer == "ScheduleZBVZeroBubble"
    assert case.gap < TOLERANCE, "the same losses"
    assert len(case.ours_bytes) == len(case.peer_bytes) == 2
    assert min(case.ours_seconds, case.peer_seconds, *case.ours_bytes, *case.peer_bytes) > 0
    assert summary([case])["worst_memory"] == max(case.ours_bytes) / max(case.peer_bytes)
    assert piped(case).startswith("zero_bubble_v on 2: Partita against ScheduleZBVZeroBubble: time ")


def test_ratios_are_medians_over_rounds_and_memory_is_told_by_process() -> None:
    losses = ((1.0, 2.0), (1.0, 1.6))
    found = PipelineOutcome(("Partita", "other"), ((1.0, 2.0, 9.0), (2.0, 2.0, 3.0)), ((1, 4), (2, 2)), losses)
    assert found.ratio_time(1) == pytest.approx(1.0)
    assert found.ratios_memory(1) == (0.5, 2.0)
    assert found.gap(1) == pytest.approx(0.25)
    case = Piped("gpipe", 2, "other", 1.0, found.ratios_memory(1), 0.0, 1.0, 1.0, *found.bytes)
    assert case.ratio_memory == 2.0
    assert summary([case])["worst_memory_of_a_process"] == 2.0


def test_every_schedule_has_its_peer() -> None:
    peers = {name: one.__name__ for name, one in {**SINGLE, **MULTIPLE}.items()}
    assert peers == dict(SCHEDULES)


@pytest.mark.parametrize(("layers", "chunks"), [(8, 2), (8, 4), (8, 8), (4, 4), (12, 5)])
def test_layers_are_spread_evenly(layers: int, chunks: int) -> None:
    found = even(layers, chunks)
    assert sum(found) == layers
    assert min(found) >= 1
    assert max(found) - min(found) <= 2
    assert found[-1] == min(found), "it has the head besides"
