"""Plans with token slices: chosen where a lone row leaves a pipeline empty, written as the language has it, and held to
what their slices keep; `test_search.py` holds them to brute force with all other plans."""

from __future__ import annotations

import pytest
from oracles.plans import MODELS, Small, opened, ready
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.plan import slices
from partita.compiler.plan.record import keys
from partita.compiler.plan.search import Search
from partita.compiler.plan.slices import Stay, peaks
from partita.compiler.plan.space import Choice, Unit
from partita.compiler.schedule.actions import Kind
from partita.compiler.schedule.forms import computing, parse_form

LONG = Small("gpt2", "GPT2(drop = 0).small", "L = 8, D = 2048, H = 16, F = 8192, V = 8192, N = 2048, T = 2048")
PINS = {"pipe": 4, "recompute": "none", "rows": 1}


@pytest.fixture(autouse=True)
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide layers and a long row: work beside which a slice's launches are little."""
    monkeypatch.setattr("oracles.plans.MODELS", {**MODELS, "long": LONG})


def test_a_lone_row_is_cut_into_slices() -> None:
    """Four stages that wait for one another take nearly four times as long."""
    found = ready("long", "p3_16xlarge", 4, 1)
    *_, last = found.search(PINS)
    *_, whole = found.search({**PINS, "schedule": "1f1b"})
    best = last.best[0]
    assert best.choice.sliced
    assert best.seconds < 0.4 * whole.best[0].seconds
    spec, recipe, _ = opened("long", 1)
    written = load_recipe(spec, recipe.name, [f"plan.{key}={value}" for key, value in keys(best, recipe)])
    assert written.plan is not None
    assert written.plan.schedule == best.choice.schedule


def test_what_is_pinned_is_kept() -> None:
    *_, last = ready("long", "p3_16xlarge", 4, 1).search({**PINS, "schedule": "token_slices(1024, 640, 384)"})
    assert {one.choice.schedule for one in last.best} == {"token_slices(1024, 640, 384)"}


def test_slices_that_are_found_are_lengths_of_their_own() -> None:
    found = ready("long", "p3_16xlarge", 4, 1)
    unit = Unit((), "none", 1)
    one = Search(found.space, found.layouts, found.limit).pricing(unit).price(Choice(unit, 1, 4, 1, 0, slices.ADVISED))
    assert one is not None
    lengths = parse_form(one.choice.schedule).slices
    assert sum(lengths) == 2048
    assert len(set(lengths)) > 1, "equal ones are tried already"


def test_full_pipelines_are_not_cut() -> None:
    """With more microbatches than stages no slices are tried."""
    found = ready("long", "p3_16xlarge", 2, 4)
    groups = [g for inner in found.space.inners() for g in found.space.groups(inner, "none")]
    assert all(group.microbatches <= group.pipe and group.unit.rows == 1 for group in groups if group.sliced)
    assert any(group.microbatches > group.pipe > 1 for group in groups)


def test_a_stage_holds_the_slices_in_flight() -> None:
    """The first of two stages has a slice more ahead than the last, whose microbatch's slices are all there once."""
    stays = [Stay(10, 13), Stay(20, 21), Stay(30, 32)]
    orders = computing(parse_form("token_slices(3)"), 2, 2).actions
    for order, most in zip(orders, peaks([stays, stays], 2), strict=True):
        alive = [0]
        for action in order:
            alive.append(alive[-1] + stays[action.slice].kept * (1 if action.kind is Kind.FORWARD else -1))
        assert max(alive) <= most <= max(alive) + 3
        assert alive[-1] == 0
    assert peaks([stays], 1) == [62]
