"""Which token slices are advised: none where they gain nothing, by what was timed, on the cores that there are."""

from __future__ import annotations

import pytest
from partita.compiler.schedule.advice import Pipe, best_slices, candidates, compute_s, equal_lengths
from partita.compiler.schedule.ladder import HALVES, Ladder, Rung
from partita.compiler.schedule.simulate import Price

TOKENS = 512


def even(chunk: int, length: int, context: int) -> Price:
    """What is linear in the tokens: slices cost nothing, but for a start each."""
    return Price(1 + length, 1 + length, 1 + length)


def pipe(abreast: float | None = None, stages: int = 4, microbatches: int = 1) -> Pipe:
    return Pipe(stages, microbatches, TOKENS, even, abreast)


def test_rows_are_cut_where_every_stage_has_a_core() -> None:
    whole = pipe().seconds((TOKENS,))
    best = best_slices(pipe())
    assert len(best) > 4
    assert sum(best) == TOKENS
    assert pipe().seconds(best) < 0.5 * whole
    assert all(pipe().seconds(best) <= pipe().seconds(one) for one in equal_lengths(TOKENS))


def test_stages_that_share_a_core_gain_nothing_by_slices() -> None:
    """All of the work goes through the one core whatever the order, and a slice has its own start."""
    work = 4 * compute_s(even(0, TOKENS, 0))
    assert pipe(1.0).seconds((TOKENS,)) == pytest.approx(work, rel=1e-2)
    assert best_slices(pipe(1.0)) == (TOKENS,)


def test_stages_that_share_two_cores_take_half_of_all_work_at_the_least() -> None:
    work = 4 * compute_s(even(0, TOKENS, 0))
    for lengths in candidates(pipe(2.0)):
        assert pipe(2.0).seconds(lengths) >= max(work / 2, pipe().seconds(lengths)) * (1 - 1e-9)


def test_many_microbatches_are_hardly_cut() -> None:
    assert len(best_slices(pipe(microbatches=64))) <= 4
    assert best_slices(pipe(stages=1)) == (TOKENS,)


def test_a_ladder_gives_what_was_timed_and_lines_between() -> None:
    """A block whose time is a start, tokens, and tokens times what they attend to."""

    def taken(length: float, context: float) -> float:
        return 5 + length + length * context / 100 + length * length / 200

    def rung(count: int) -> Rung:
        length = TOKENS // count
        times = [taken(length, at * length) for at in range(count)]
        return Rung(length, [dict.fromkeys(HALVES, times)])

    ladder = Ladder([rung(count) for count in (8, 4, 2, 1)])
    assert ladder.shortest == 64
    for length, context in ((64, 64), (64, 448), (128, 0), (256, 256), (512, 0)):
        assert ladder.seconds(0, "forward", length, context) == pytest.approx(taken(length, context))
    for length, context in ((96, 32), (100, 300), (192, 64), (192, 320)):
        assert ladder.seconds(0, "input", length, context) == pytest.approx(taken(length, context), rel=0.06)
