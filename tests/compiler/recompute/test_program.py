"""The integer program of a block against every choice there is, on small random blocks."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.recompute import program
from partita.compiler.recompute.block import Block, Made
from partita.compiler.recompute.program import cheapest, least_bytes


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Up to five nodes of one or two results, some of them views; a backward of up to four moments reads some."""
    nodes = draw(st.integers(1, 5))
    positions = draw(st.integers(1, 4))
    values: list[Made] = []
    operands: list[tuple[int, ...]] = []
    before: list[tuple[int, ...]] = []
    for node in range(nodes):
        read = draw(st.sets(st.integers(0, len(values) - 1), max_size=2)) if values else set[int]()
        operands.append(tuple(sorted(read)))
        for output in range(draw(st.integers(1, 2))):
            spots = tuple(sorted(draw(st.sets(st.integers(0, positions - 1), max_size=2))))
            memory: int | None = len(values)
            if output == 0 and read and draw(st.booleans()):
                memory = values[min(read)].memory  # a view
            values.append(Made((f"n{node}", output), node, memory, spots, draw(st.integers(0, 5)) == 0))
    for _ in range(nodes):
        before.append(tuple(draw(st.sets(st.integers(0, len(values) - 1), max_size=1))))
    return Block(
        tuple(f"n{node}" for node in range(nodes)),
        tuple(draw(st.lists(st.integers(0, 9).map(float), min_size=nodes, max_size=nodes))),
        tuple(values),
        tuple(operands),
        tuple(before),
        tuple(draw(st.lists(st.integers(1, 20), min_size=len(values), max_size=len(values)))),
        tuple(draw(st.lists(st.integers(0, 9), min_size=positions, max_size=positions))),
        tuple({f"n{node}": f"n{node}" for node in range(nodes)} for _ in range(draw(st.integers(1, 3)))),
    )


def choices(block: Block) -> list[tuple[float, int]]:
    """(seconds, bytes) of every set of kept values that will do."""
    found = (_priced(block, kept) for kept in product((False, True), repeat=len(block.values)))
    return [one for one in found if one is not None]


def _priced(block: Block, kept: tuple[bool, ...]) -> tuple[float, int] | None:
    """What a set of kept values takes: nodes run again where something first needs them, each once."""
    values, positions = block.values, block.positions
    if any(made.outside and not keep for made, keep in zip(values, kept, strict=True)):
        return None
    runs = [positions] * len(block.nodes)  # when a node runs again; `positions`: never
    for v, made in enumerate(values):
        if made.reads and not kept[v]:
            runs[made.node] = min(runs[made.node], made.reads[0])
    for node in reversed(range(len(block.nodes))):
        for v in block.operands[node]:
            if not kept[v]:
                runs[values[v].node] = min(runs[values[v].node], runs[node])
    again = [node for node, at in enumerate(runs) if at < positions]
    if any(not kept[v] for node in again for v in block.before[node]):
        return None
    latest = _latest(block)
    alive: list[set[int]] = [set() for _ in range(positions)]
    for v, made in enumerate(values):
        if made.memory is None:
            continue
        last = positions - 1 if made.outside else max(made.reads, default=-1)
        for spot in range(positions):
            there = kept[v] or runs[made.node] <= spot
            later = any(v in block.operands[w] and spot <= latest[w] for w in again)
            if there and (spot <= last or later):
                alive[spot].add(made.memory)
    resident = {made.memory for v, made in enumerate(values) if kept[v] and made.memory is not None}
    size = max(g + sum(block.bytes[m] for m in here) for g, here in zip(block.gradients, alive, strict=True))
    bytes_ = size + (len(block.alike) - 1) * sum(block.bytes[m] for m in resident)
    return sum(block.seconds[node] for node in again), bytes_


def _latest(block: Block) -> list[int]:
    """Until when a node's operands wait for it: its results' first reading, else that of what is made of them."""
    found = [-1] * len(block.nodes)
    for node in reversed(range(len(block.nodes))):
        own = [made.reads[0] for made in block.values if made.node == node and made.reads]
        mine = {v for v, made in enumerate(block.values) if made.node == node}
        users = [w for w, read in enumerate(block.operands) if mine & set(read)]
        found[node] = min(own) if own else max((found[w] for w in users), default=-1)
    return found


@settings(max_examples=150)
@given(blocks(), st.floats(0.0, 1.0))
def test_no_choice_is_cheaper(block: Block, share: float) -> None:
    every = choices(block)
    least, most = min(size for _, size in every), max(size for _, size in every)
    assert least_bytes(block) == least
    bound = least + share * (most - least)
    found = cheapest(block, bound + 1e-6)
    assert found is not None and found.gap == 0
    assert found.bytes <= bound + 1e-6
    assert found.seconds == min(seconds for seconds, size in every if size <= bound + 1e-6)
    assert (found.seconds, found.bytes) in every


@settings(max_examples=30)
@given(blocks())
def test_less_than_the_least_is_no_choice(block: Block) -> None:
    assert cheapest(block, least_bytes(block) - 0.5) is None


@settings(max_examples=30)
@given(blocks())
def test_a_choice_is_known_before_any_search(block: Block) -> None:
    """Where the solver may not search at all: what is found is a choice, and keeping all is found."""
    every = choices(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "_WORK", 0.0)
        least, fastest = least_bytes(block), cheapest(block, float("inf"))
        found = cheapest(block, least + 1e-6)
    assert any(size == least for _, size in every)
    assert fastest is not None and fastest.seconds == 0 and (0.0, fastest.bytes) in every
    assert found is not None and (found.seconds, found.bytes) in every


@settings(max_examples=60)
@given(blocks(), st.floats(0.0, 1.0))
def test_of_a_block_too_large_to_search_choices_are_real_and_no_worse_than_keeping_all(
    block: Block, share: float
) -> None:
    every = choices(block)
    whole = cheapest(block, float("inf"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "_SEARCHED", 0)
        least, fastest = least_bytes(block), cheapest(block, float("inf"))
        bound = least + share * (max(size for _, size in every) - least)
        found = cheapest(block, bound + 1e-6)
    assert whole is not None and fastest is not None and found is not None
    assert fastest.seconds == whole.seconds
    assert least <= whole.bytes
    assert found.bytes <= bound + 1e-6
    assert {(one.seconds, one.bytes) for one in (fastest, found)} <= set(every)


def test_a_long_block_too_large_to_search_keeps_a_part_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of which each node reads the last, and the backward all of them from the end on."""
    count = 60
    made = [Made((f"n{at}", 0), at, at, (count - 1 - at,)) for at in range(count)]
    operands = [(), *((at,) for at in range(count - 1))]
    names = tuple(f"n{at}" for at in range(count))
    block = Block(
        names, (1.0,) * count, tuple(made), tuple(operands), ((),) * count, (100,) * count, (1,) * count, ({},)
    )
    monkeypatch.setattr(program, "_SEARCHED", 0)
    assert least_bytes(block) <= 0.5 * 100 * count
    half = cheapest(block, 0.75 * 100 * count)
    assert half is not None and half.bytes <= 0.75 * 100 * count and half.seconds < count
