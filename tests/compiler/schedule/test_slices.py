"""Token slices: the dynamic program finds what trying every way finds, and cuts as theory says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.schedule.actions import Shape, one_chunk_each
from partita.compiler.schedule.orders import gpipe
from partita.compiler.schedule.simulate import Price, simulate
from partita.compiler.schedule.slices import Microbatch, cut, pipeline_s
from partita.compiler.schedule.transfers import complete


def compositions(total: int) -> Iterator[tuple[int, ...]]:
    if total == 0:
        yield ()
    for first in range(1, total + 1):
        for rest in compositions(total - first):
            yield (first, *rest)


def ways(rows: int, length: int) -> Iterator[tuple[Microbatch, ...]]:
    for split in compositions(rows):
        found: list[tuple[Microbatch, ...]] = [()]
        for n in split:
            found = [(*before, Microbatch(n, parts)) for before in found for parts in compositions(length)]
        yield from found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.data())
def test_trying_every_way_agrees(rows: int, length: int, stages: int, data: st.DataObject) -> None:
    times = {
        (n, k, c): float(data.draw(st.integers(1, 30)))
        for n in range(1, rows + 1) for c in range(length) for k in range(1, length - c + 1)
    }  # fmt: skip

    def slice_s(n: int, k: int, context: int) -> float:
        return times[n, k, context]

    found = cut(rows, length, stages, slice_s, step=1)
    assert found.seconds == min(pipeline_s(way, stages, slice_s) for way in ways(rows, length))
    assert found.seconds == pipeline_s(found.microbatches, stages, slice_s)


def causal(rows: int, length: int, context: int) -> float:
    """A start, a part linear in the tokens, and attention to what went before."""
    return 1e-3 + rows * (length * 2e-5 + length * (context + length / 2) * 1e-8)


def equal(parts: int, stages: int) -> float:
    return pipeline_s([Microbatch(1, (2048 // parts,) * parts)], stages, causal)


@pytest.mark.parametrize("stages", [8, 24, 48])
def test_unequal_slices_beat_every_equal_split(stages: int) -> None:
    found = cut(1, 2048, stages, causal, step=16, tolerance_s=1e-4)
    (one,) = found.microbatches
    times = [equal(1 << k, stages) for k in range(8)]
    assert found.seconds < min(times)
    assert 0 < times.index(min(times)) < len(times) - 1, "the best number of slices lies inside"
    assert one.lengths[0] > one.lengths[-1], "later slices attend to more, so they are shorter"
    exact = cut(1, 2048, stages, causal, step=128)
    coarse = cut(1, 2048, stages, causal, step=128, tolerance_s=1e-4)
    assert exact.seconds <= coarse.seconds <= exact.seconds + stages * 1e-4


def test_one_stage_is_not_cut() -> None:
    assert cut(4, 512, 1, causal).microbatches == (Microbatch(4, (512,)),)


def test_the_simulator_agrees_with_the_formula() -> None:
    """Σ t_i + (K - 1) max t_i where slices grow no shorter; for any others it is a bound from above."""
    lengths, stages = (512, 384, 384, 256, 256, 256), 4
    shape = Shape(one_chunk_each(stages), (len(lengths),))
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    forward = [causal(1, n, c) for n, c in zip(lengths, starts, strict=True)]
    found = simulate(
        complete("gpipe", shape, gpipe(shape)),
        lambda chunk, microbatch, part: Price(forward[part], 2 * forward[part], 0),
    )
    bound = 3 * pipeline_s([Microbatch(1, lengths)], stages, causal)
    assert found.makespan <= bound * (1 + 1e-12)
    assert found.makespan >= 0.9 * bound
