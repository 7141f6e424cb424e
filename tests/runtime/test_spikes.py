"""Loss spikes: what counts as one, and that neither a new level nor a flat or falling curve is one for long."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.recipe import Spikes
from partita.runtime.spikes import Watcher

RULE = Spikes(deviations=6.0, window=16)


def seen(losses: list[float], rule: Spikes = RULE) -> list[int]:
    watcher = Watcher(rule)
    return [step for step, loss in enumerate(losses, 1) if watcher.see(step, loss) is not None]


def noisy(count: int, level: float = 3.0) -> list[float]:
    return [level + 0.1 * math.sin(7.0 * step * step) for step in range(count)]


def test_a_single_high_loss_is_named_with_what_it_was_held_against() -> None:
    watcher = Watcher(RULE)
    for step, loss in enumerate(noisy(16), 1):
        assert watcher.see(step, loss) is None
    spike = watcher.see(17, 9.0)
    assert spike is not None and spike.steps == 16
    assert spike.median == statistics.median(noisy(16))
    assert "the loss 9 of step 17 lies" in str(spike) and "deviations above the median 3" in str(spike)


def test_too_few_losses_judge_nothing() -> None:
    assert seen([*noisy(7), 100.0]) == []
    assert seen([*noisy(8), 100.0]) == [9]


def test_a_new_level_is_one_spike_and_then_the_level() -> None:
    losses = [*noisy(16), *noisy(24, level=6.0)]
    assert seen(losses) == [17]
    watcher = Watcher(RULE)
    for step, loss in enumerate(losses, 1):
        watcher.see(step, loss)
    assert watcher.bound() > 6.0


@given(st.floats(0.01, 100.0), st.floats(0.8, 1.0))
def test_a_falling_or_flat_curve_has_no_spikes(first: float, factor: float) -> None:
    assert seen([first * factor**step for step in range(60)]) == []


@given(st.lists(st.floats(1.0, 2.0), min_size=16, max_size=16), st.floats(0.0, 50.0))
def test_the_bound_says_what_is_seen(losses: list[float], last: float) -> None:
    watcher = Watcher(RULE)
    for step, loss in enumerate(losses, 1):
        watcher.see(step, loss)
    watcher.high = False
    bound = watcher.bound()
    assert (watcher.see(17, last) is not None) == (last > bound)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_measure(bad: float) -> None:
    watcher = Watcher(RULE)
    for step, loss in enumerate([*noisy(10), bad, *noisy(4)], 1):
        watcher.see(step, loss)
    assert math.isfinite(watcher.bound()) and len(watcher.losses) == 14
