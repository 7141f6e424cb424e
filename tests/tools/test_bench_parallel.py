"""`partita bench parallel`: two real processes hold a small contest, and its figures are summed up as said."""

from __future__ import annotations

import pytest
from oracles.processes import launch_module
from partita.tools.bench import parallel
from partita.tools.bench.contest import LOSSES, Outcome
from partita.tools.bench.parallel import PLANS, TOLERANCE, bench_parallel, summary


def test_two_processes_hold_a_contest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "launch_module", launch_module)
    cases = bench_parallel(["tensor"], ["tiny"], 1)
    assert [case.peer for case in cases] == ["DTensor"]
    for case in cases:
        assert case.gap < TOLERANCE, "the same losses over twenty steps"
        assert min(case.ours_seconds, case.peer_seconds, case.ours_bytes, case.peer_bytes) > 0
    assert summary(cases)["worst_memory"] == max(case.ratio_memory for case in cases)


def test_ratios_are_medians_over_rounds_and_gaps_are_the_largest() -> None:
    found = Outcome(("Partita", "other"), ((1.0, 2.0, 9.0), (2.0, 2.0, 3.0)), (1, 2), ((1.0, 2.0), (1.0, 1.6)))
    assert found.ratio_time(1) == pytest.approx(1.0)
    assert found.gap(1) == pytest.approx(0.25)
    assert LOSSES == 20


def test_plans_cover_replicated_sharded_and_cut_models() -> None:
    assert {plan.wishes.zero for plan in PLANS.values() if plan.axis == "data"} == {0, 2, 3}
    assert {peer.split(",")[0] for plan in PLANS.values() for peer in plan.peers} == {
        "DDP",
        "FSDP2 kept",
        "FSDP2",
        "DTensor",
    }
