"""Which prices a list scheduler's order follows: those of machines that are named, else equal halves."""

from __future__ import annotations

from dataclasses import replace

from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.pipeline import step_graph
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.placing import Pipeline, placed_step
from partita.compiler.schedule.simulate import Price, by_chunk, simulate
from samples.recipes import recipe_over

FORM = parse_form("zero_bubble_v")
MICROBATCHES = 8


def test_orders_follow_prices_only_of_machines_that_are_named() -> None:
    spec, recipe = recipe_over("gpt2", "GPT2", batch=MICROBATCHES, microbatches=MICROBATCHES)
    step = step_graph(spec, recipe)
    unnamed = placed_step(step, FORM, 2, Pipeline(str(FORM), (), H100_NODES))
    named = placed_step(step, FORM, 2, Pipeline(str(FORM), (), replace(H100_NODES)))
    assert unnamed.placed == named.placed
    assert unnamed.schedule == build(FORM, 2, MICROBATCHES)
    assert named.schedule == build(FORM, 2, MICROBATCHES, by_chunk(named.prices()))


def test_an_order_for_another_machines_halves_idles_more_than_one_for_equal_ones() -> None:
    """Small kernels on an H100 take what launching them takes: most in the weights' half. Milliseconds of each."""
    few = [(0.17, 0.12, 0.27), (0.23, 0.17, 0.38), (0.15, 0.11, 0.25), (0.11, 0.07, 0.15)]
    many = [(8.0, 10.4, 8.8), (12.0, 15.6, 13.2), (8.0, 10.4, 8.8), (10.0, 12.2, 8.4)]
    launched, computed = (by_chunk([Price(*one) for one in prices]) for prices in (few, many))
    right, equal, wrong = (
        simulate(order, computed).makespan
        for order in (
            build(FORM, 2, MICROBATCHES, computed),
            build(FORM, 2, MICROBATCHES),
            build(FORM, 2, MICROBATCHES, launched),
        )
    )
    assert equal <= 1.02 * right
    assert wrong >= 1.1 * right
