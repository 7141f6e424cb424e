"""Where a stage's order brings up what lies on the host: one action of computing ahead of who reads it."""

from __future__ import annotations

import pytest
from oracles.pipelines import PipedMLP
from partita.compiler.schedule.actions import COMPUTE, FETCHES, Kind
from partita.runtime.layout import Mesh
from partita.runtime.program import Fetch, Offload
from samples.spread_mlp import SpreadMLP

READERS = {Kind.FETCH: (Kind.BACKWARD, Kind.INPUT), Kind.FETCH_WEIGHT: (Kind.WEIGHT,)}


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zero_bubble", "zero_bubble_v"])
def test_what_a_part_reads_first_comes_up_one_action_ahead(schedule: str) -> None:
    build = PipedMLP(SpreadMLP(Mesh(()), layers=8, microbatches=4), 2, schedule, offload=("activations",)).built().build
    fetches = 0
    for rank in range(2):
        order = [(*_kind(turn.part), turn.microbatch) for turn in build.programs_of(rank)["step"].order]
        ahead = [turn for turn in order if turn[0] in COMPUTE | FETCHES]
        for at, (kind, place, number) in enumerate(ahead):
            if kind in FETCHES:
                fetches += 1
                computing = [turn for turn in ahead[at:] if turn[0] in COMPUTE][:2]
                assert any((k in READERS[kind], p, n) == (True, place, number) for k, p, n in computing)
                assert (Kind.FORWARD, place, number) in ahead[:at]
    assert fetches >= 4


def test_what_is_read_at_once_stays() -> None:
    """In 1F1B the last stage goes back behind each forward: its one block's values never leave; the first's do."""
    build = PipedMLP(SpreadMLP(Mesh(()), layers=2, microbatches=3), 2, "1f1b", offload=("activations",)).built().build
    first, last = ([*build.programs_of(rank)["step"].instructions()] for rank in range(2))
    assert any(isinstance(one, Offload) for one in first) and any(isinstance(one, Fetch) for one in first)
    assert not any(isinstance(one, Offload | Fetch) for one in last)


def _kind(part: str) -> tuple[Kind, str]:
    kind, _, place = part.rpartition(" ")
    return Kind(kind), place
