"""What theory says of schedules, the simulator finds, to the last digit; and what must hold of any timeline holds."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from generators.schedules import prices, schedules
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.schedule.actions import COMPUTE, Schedule, Shape, one_chunk_each
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.greedy import greedy
from partita.compiler.schedule.simulate import Price, Seconds, Timeline, by_chunk, makespan, simulate
from partita.compiler.schedule.transfers import complete
from partita.compiler.schedule.verify import most_in_flight

times = st.fractions(Fraction(1, 4), 8, max_denominator=12)
SIZES = st.integers(1, 8)


def timeline(name: str, p: int, m: int, f: Seconds, b: Seconds, w: Seconds, chunks: int = 1) -> Timeline:
    """Equal stages, messages for nothing; a stage's times are those of all its chunks."""
    schedule = build(parse_form(name), p, m)
    price = Price(Fraction(f) / chunks, Fraction(b) / chunks, Fraction(w) / chunks)
    return simulate(schedule, by_chunk([price] * (p * chunks)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gpipe", "1f1b"]), SIZES, st.integers(1, 20), times, times, times)
def test_gpipe_and_1f1b_take_p_minus_1_more(name: str, p: int, m: int, f: Fraction, b: Fraction, w: Fraction) -> None:
    """(p - 1)(F + B + W): (p - 1)/m of ideal time, whatever a forward and a backward take (Narayanan et al. 2021)."""
    assert timeline(name, p, m, f, b, w).bubble == (p - 1) * (f + b + w)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 4), times, times)
def test_interleaving_divides_the_bubble(p: int, groups: int, v: int, f: Fraction, b: Fraction) -> None:
    """(p - 1)/(v m) of ideal time where p divides m (Narayanan et al. 2021, section 2.2.2)."""
    assert timeline(f"interleaved({v})", p, p * groups, f, b, 0, v).bubble == (p - 1) * (f + b) / v


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 12), times, times)
def test_zb_h1_delays_what_nobody_waits_for(p: int, more: int, f: Fraction, w: Fraction) -> None:
    """(p - 1)(F + B - W) where F = B ≥ W and m ≥ p (Qi et al. 2024, table 2)."""
    f, w = max(f, w), min(f, w)
    assert timeline("zero_bubble", p, p + more, f, f, w).bubble == (p - 1) * (2 * f - w)


@pytest.mark.parametrize("p", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_zero_bubbles_against_1f1b(p: int, m: int) -> None:
    """At equal halves ZB-H1 has a third of 1F1B's bubble, a V placement at most a quarter."""
    known = timeline("1f1b", p, p * m, 1, 1, 1).bubble
    assert timeline("zero_bubble", p, p * m, 1, 1, 1).bubble * 3 == known
    assert timeline("zero_bubble_v", p, p * m, 1, 1, 1, 2).bubble * 4 <= known


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 24))
def test_what_is_in_flight(p: int, m: int) -> None:
    """GPipe m, 1F1B min(m, p - d), ZB-H1 and V as much as 1F1B's first device however many microbatches there are."""
    assert most_in_flight(build(parse_form("gpipe"), p, m)) == [m] * p
    assert most_in_flight(build(parse_form("1f1b"), p, m)) == [min(m, p - d) for d in range(p)]
    assert most_in_flight(build(parse_form("zero_bubble"), p, m)) == [min(m, p)] * p
    assert max(most_in_flight(build(parse_form("zero_bubble_v"), p, m))) <= 2 * min(m, p)


@pytest.mark.parametrize(("p", "v"), [(2, 2), (4, 2), (4, 3), (8, 4)])
def test_interleaving_keeps_more(p: int, v: int) -> None:
    """1 + (p - 1)/(p v) of the model's layers on the first device (Korthikanti et al. 2022, section 4.2.3)."""
    first = most_in_flight(build(parse_form(f"interleaved({v})"), p, 4 * p))[0]
    assert Fraction(first, p * v) == 1 + Fraction(p - 1, p * v)


@settings(max_examples=100, deadline=None)
@given(schedules(), st.data())
def test_a_timeline_keeps_order_and_work(schedule: Schedule, data: st.DataObject) -> None:
    shape = schedule.shape
    priced = data.draw(prices(shape.last + 1))
    found = simulate(schedule, by_chunk(priced))
    computing = tuple(tuple(one for one in actions if one.kind in COMPUTE) for actions in schedule.actions)
    assert makespan(Schedule(schedule.name, shape, computing), by_chunk(priced)) == found.makespan
    for device, spans in enumerate(found.spans):
        assert all(one.end <= two.begin for one, two in pairwise(spans))
        work = sum(priced[c].forward + priced[c].input + priced[c].weight for c in shape.chunks(device))
        assert found.busy(device) == work * sum(shape.slices)
        most = sum(shape.slices) * sum(priced[c].kept_bytes for c in shape.chunks(device))
        assert 0 < found.peak_bytes[device] <= most
    assert found.bubble >= 0
    assert 0 <= found.bubble_share < 1
    free = simulate(schedule, by_chunk([Price(p.forward, p.input, p.weight) for p in priced]))
    assert free.makespan <= found.makespan


def test_a_message_takes_its_time() -> None:
    """Two devices, one microbatch: forward, message, both on the second, message, backward."""
    schedule = build(parse_form("1f1b"), 2, 1)
    price = Price(Fraction(2), Fraction(3), Fraction(1), transfer=Fraction(1, 2), latency=Fraction(1, 4))
    found = simulate(schedule, by_chunk([price, price]), [10, 20])
    assert found.makespan == 2 + Fraction(3, 4) + 6 + Fraction(3, 4) + 4
    assert [(m.begin, m.end) for m in found.messages] == [(2, Fraction(11, 4)), (Fraction(35, 4), Fraction(19, 2))]
    assert found.peak_bytes == (10, 20)


def test_messages_of_one_way_follow_one_another() -> None:
    schedule = build(parse_form("gpipe"), 2, 3)
    found = simulate(schedule, by_chunk([Price(1, 1, 1, transfer=4)] * 2))
    assert [m.begin for m in found.messages if m.device == 0] == [1, 5, 9]


def test_a_list_schedule_fits_uneven_times() -> None:
    """With the real prices the list scheduler is not worse than with equal ones."""
    shape, uneven = (
        Shape(one_chunk_each(4), (1,) * 12),
        by_chunk([Price(1, 1, 1), Price(3, 2, 1), Price(1, 2, 4), Price(2, 2, 2)]),
    )
    told = simulate(complete("list", shape, greedy(shape, uneven)), uneven).makespan
    untold = simulate(complete("list", shape, greedy(shape)), uneven).makespan
    assert told <= untold
