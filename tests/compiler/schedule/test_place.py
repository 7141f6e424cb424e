"""The best place is the best: brute force over every way to cut agrees, and memory is never exceeded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from partita.compiler.schedule.actions import looped, one_chunk_each, vee
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.place import Block, PlaceFault, by_hand, in_flight, place

numbers = st.integers(0, 9)
blocks = st.builds(
    Block, name=st.just("b"), forward_s=st.integers(1, 9), input_s=numbers, weight_s=numbers,
    transfer_s=st.integers(0, 3), static_bytes=numbers, kept_bytes=numbers,
)  # fmt: skip
FORMS = ["gpipe", "1f1b", "interleaved(2)", "zero_bubble_v", "interleaved(3)"]


def balances(count: int, chunks: int) -> Iterator[list[int]]:
    for cuts in combinations(range(1, count), chunks - 1):
        ends = [0, *cuts, count]
        yield [b - a for a, b in pairwise(ends)]


def need(
    chain: Sequence[Block], balance: Sequence[int], placement: Sequence[int], flights: Sequence[Sequence[Sequence[int]]]
) -> list[int]:
    """Bytes of each device at its worst moment."""
    held: list[list[Sequence[Block]]] = [[] for _ in range(max(placement) + 1)]
    at = 0
    for chunk, size in enumerate(balance):
        held[placement[chunk]].append(chain[at : at + size])
        at += size
    found: list[int] = []
    for parts, numbers in zip(held, flights, strict=True):
        static = sum(b.static_bytes for part in parts for b in part)
        found.append(
            static
            + max(
                sum(n * sum(b.kept_bytes for b in part) for n, part in zip(one, parts, strict=True)) for one in numbers
            )
        )
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(blocks, min_size=1, max_size=8), st.sampled_from(FORMS), st.integers(1, 3), st.integers(1, 4), st.data()
)
def test_brute_force_agrees(
    chain: list[Block], form: str, devices: int, microbatches: int, data: st.DataObject
) -> None:
    schedule = build(parse_form(form), devices, microbatches)
    placement = schedule.shape.placement
    assume(len(placement) <= len(chain))
    flights = in_flight(schedule)
    memory = [data.draw(st.integers(10, 120)) for _ in range(devices)]
    fitting = [
        by_hand(chain, placement, balance).slowest_s
        for balance in balances(len(chain), len(placement))
        if all(n <= m for n, m in zip(need(chain, balance, placement, flights), memory, strict=True))
    ]
    if not fitting:
        with pytest.raises(PlaceFault, match="no way to cut"):
            place(chain, placement, memory, flights)
        return
    found = place(chain, placement, memory, flights)
    assert found.slowest_s == pytest.approx(min(fitting), rel=1e-6)
    sizes = [end - begin for begin, end in found.cuts]
    assert all(n <= m for n, m in zip(need(chain, sizes, placement, flights), memory, strict=True))


def test_a_heavy_head_gets_fewer_layers() -> None:
    layer, head = Block("layer", 1, 1, 1), Block("head", 3, 3, 3)
    assert place([layer] * 5 + [head], one_chunk_each(2)).cuts == ((0, 4), (4, 6))


@pytest.mark.parametrize("placement", [one_chunk_each(3), looped(2, 2), vee(2)])
def test_too_few_blocks_and_wrong_balances_are_refused(placement: tuple[int, ...]) -> None:
    chain = [Block("b", 1, 1, 1)] * 2
    with pytest.raises(PlaceFault, match="2 blocks cannot be"):
        place(chain, placement)
    for balance in ([2, 0, 0, 0], [1, 1], [1, 1, 1, 1]):
        with pytest.raises(PlaceFault, match="does not cut"):
            by_hand(chain, placement, balance)


def test_a_solver_that_may_not_search_is_told_and_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even chunks where they fit; what does not fit is never given."""
    monkeypatch.setattr("partita.compiler.schedule.place.WORK", 0.0)
    chain = [Block("layer", 1, 1, 1, static_bytes=3, kept_bytes=1)] * 24
    found = place(chain, looped(4, 2), [18 + 6] * 4)
    assert [end - begin for begin, end in found.cuts] == [3] * 8
    with pytest.raises(PlaceFault):
        place(chain, looped(4, 2), [18 + 5] * 4)


def test_98_blocks_on_64_devices_is_quick() -> None:
    """GPT-3's blocks: processor seconds, which other processes do not add to."""
    chain = [Block("embed", 0.1, 0, 0.1), *[Block("layer", 1, 1, 1, 0.1)] * 96, Block("head", 2, 2, 2)]
    begin = time.process_time()
    assert place(chain, one_chunk_each(64)).slowest_s == pytest.approx(6.2)
    assert time.process_time() - begin < 2
