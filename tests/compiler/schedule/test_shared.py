"""Schedules on shared cores: as simulated where each device has one and nothing is sent, all work, messages too, one
after another where there is one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.schedule.actions import SENDS, Action, Kind
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.shared import shared_seconds
from partita.compiler.schedule.simulate import Price, Prices, by_chunk, simulate

FORMS = ("gpipe", "1f1b", "interleaved(2)", "zero_bubble", "zero_bubble_v")
SECONDS = st.integers(1, 5)


@st.composite
def prices(draw: st.DrawFn) -> tuple[str, int, list[Price]]:
    """A form for so many devices, and what its chunks take."""
    name, devices = draw(st.sampled_from(FORMS)), draw(st.integers(2, 4))
    chunks = len(parse_form(name).placement(devices))
    times = st.tuples(SECONDS, SECONDS, SECONDS, st.integers(0, 2), st.integers(0, 2), st.just(0), st.just(0), SECONDS)
    return name, devices, [Price(*draw(times)) for _ in range(chunks)]


@settings(max_examples=40)
@given(prices(), st.sampled_from((1, 2, 3, 4)))
def test_work_is_neither_lost_nor_made(given_: tuple[str, int, list[Price]], abreast: int) -> None:
    name, devices, chunks = given_
    by = by_chunk(chunks)
    schedule = build(parse_form(name), devices, 4, by)
    alone = simulate(schedule, by)
    work = float(sum(alone.busy(device) for device in range(devices)))
    sent = sum(_message_s(action, by) for actions in schedule.actions for action in actions)
    found = shared_seconds(schedule, by, abreast)
    assert max(float(alone.makespan), (work + sent) / abreast) <= found + 1e-9
    assert shared_seconds(schedule, by, 1) == pytest.approx(work + sent)
    if abreast >= devices:
        free = by_chunk([Price(p.forward, p.input, p.weight, reduce=p.reduce) for p in chunks])
        silent = build(parse_form(name), devices, 4, free)
        assert shared_seconds(silent, free, abreast) == pytest.approx(float(simulate(silent, free).makespan))


def _message_s(action: Action, by: Prices) -> float:
    """What a send puts on its way; nothing of other actions."""
    if action.kind not in SENDS:
        return 0.0
    price = by(action.chunk - (action.kind is Kind.SEND_GRADIENT), action.microbatch, action.slice)
    return float(price.transfer + price.latency)


def test_a_fraction_of_a_core_for_each_stage_slows_all() -> None:
    by = by_chunk([Price(1, 1, 1), Price(1, 1, 1)])
    schedule = build(parse_form("1f1b"), 2, 2, by)
    assert shared_seconds(schedule, by, 0.5) == pytest.approx(2 * shared_seconds(schedule, by, 1))
