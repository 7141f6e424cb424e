"""`partita bench plan`: two real processes run some plans of a small model, and the table says what was measured."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.processes import launch_module
from partita.compiler.cost.cluster import Level, Link, Message, collective_s
from partita.compiler.cost.roofline import Machine
from partita.compiler.cost.table import Table
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.types import DType
from partita.compiler.pipeline import open_spec
from partita.compiler.plan.plan import planner
from partita.compiler.steps import Steps
from partita.tools.bench import others
from partita.tools.bench import plan as bench
from partita.tools.bench.others import Round, Rounds, Taken, round_of, undisturbed
from partita.tools.bench.plan import Prepared, as_json, every, held, prepared, ranking, sampled, text
from partita.tools.bench.plan_contest import PlanContest, PlanOutcome, paced, ratio
from samples.spec_texts import ROOT

LINK = Link(1e9, 1e-4)
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
MESSAGES = tuple(
    Message(kind, 2, size, collective_s(kind, size, (Level(2, LINK),))) for kind in KINDS for size in (1 << 10, 1 << 20)
)
TABLE = Table("cpu", "2", 1, 4 << 30, Machine({DType.F32: 5e10}, 1e10, 1e10, 2e-6), (), MESSAGES, 2, 2)


def test_two_processes_run_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "launch_module", launch_module)
    monkeypatch.setattr(bench, "here", lambda word: TABLE)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(bench, "SPEC", "recipes/tour.partita")
    monkeypatch.setattr(bench, "FINAL", 1)
    ready = prepared("tour", 2, 2, tmp_path, (1, 1))
    assert [plan[0] for plan in ready.chosen] == [1, ready.ranked]
    found = held(ready, tmp_path)
    assert [one.predicted_seconds for one in found.plans] == sorted(one.predicted_seconds for one in found.plans)
    for one in found.plans:
        assert min(one.seconds, one.predicted_bytes, one.bytes) > 0
    assert "| 1 | " in text(found) and f"of {ready.ranked} plans" in text(found)


def test_the_first_is_held_to_the_fastest() -> None:
    chosen = tuple((rank, "", 1.0, 1) for rank in (1, 2, 3))
    seconds = ((1.1, 1.1), (1.0, 1.0), (2.0, 2.0))
    final = ((2.2, 4.4, 2.2), (2.0, 4.0, 2.0))
    ready = Prepared("m", 2, 3, chosen, PlanContest((), 2, 3, 1))
    found = ranking(ready, PlanOutcome(seconds, (1, 1, 1), (0, 1), final, 0.01, 2))
    assert found.ratio.median == found.ratio.high == pytest.approx(1.1)
    assert [one.final_seconds for one in found.plans] == [pytest.approx(2.2), pytest.approx(2.0), None]
    assert as_json([found])["worst_ratio"] == found.ratio.median
    assert "1.100 (1.100 to 1.100, 3 rounds, 2 disturbed ones left out, others took 1%)" in text(found)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_a_ratio_lies_within_its_bounds_and_more_rounds_tell_it_better(seed: int) -> None:
    mixed = random.Random(seed)
    plan, other = ([mixed.gauss(mean, 0.05) for _ in range(400)] for mean in (1.1, 1.0))
    few, many = ratio(plan[:25], other[:25]), ratio(plan, other)
    assert few.low <= few.median <= few.high and few.high - few.low > many.high - many.low
    assert many.known and many.low - 0.02 < 1.1 < many.high + 0.02
    assert ratio(plan[:1], other[:1]).low == ratio(plan[:1], other[:1]).high


def test_a_step_that_others_disturbed_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter((Taken(3.0, 0.5), Taken(2.0, 0.2), Taken(1.0, 0.3), Taken(5.0, 0.05), Taken(4.0, 0.0)))
    monkeypatch.setattr(others, "_taken", lambda step: next(found))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert undisturbed(lambda: 0.0) == Taken(2.0, 0.2)  # it is tried so often
    assert undisturbed(lambda: 0.0) == Taken(5.0, 0.05)


def test_a_round_that_others_disturbed_is_left_out_and_run_again() -> None:
    shares = iter((0.0, 0.3, 0.01, 0.2, 0.0, *[0.4, 0.3] * 9))
    timed = Rounds(lambda: round_of([Taken(1.0, 0.0), Taken(1.0, 2 * next(shares))]))
    timed.run(3, 2)
    assert [one.others for one in timed.counted] == [0.0, 0.01, 0.0] and len(timed.run_so_far) == 5
    timed = Rounds(timed.once)
    timed.run(4, 3)  # it is never quiet: all the same it ends, and something counts
    assert len(timed.run_so_far) == 8 and [one.others for one in timed.counted] == [0.3] * 3
    assert timed.seconds == ((1.0,) * 3, (1.0,) * 3)


def test_rounds_end_when_enough_is_known() -> None:
    timed = Rounds(lambda: Round((1.0, 1.0), 0.0))
    timed.run(9, 2, lambda seconds: len(seconds[0]) == 4)
    assert len(timed.run_so_far) == len(timed.counted) == 4


def test_what_slows_a_round_slows_no_plan_against_another() -> None:
    assert paced([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]) == pytest.approx([2.0, 4.0])


def test_a_sample_has_the_best_of_all_and_of_each_kind_and_the_last() -> None:
    assert sampled("aaaaa", 4, 3) == [0, 1, 2, 3, 4]
    assert sampled("a" * 100, 3, 3) == [0, 1, 2, 3, 51, 99]
    assert sampled("aaa" + "a" * 40 + "b" * 50 + "c" * 7, 3, 4) == [0, 1, 2, 3, 43, 93, 99]


@pytest.mark.parametrize("cores", [1, 2])
def test_no_plan_is_faster_than_the_one_that_is_found_whatever_kernels_take(cores: int) -> None:
    """Times that no roofline has, and devices that share a core: bounds still hold to all plans."""

    def kernels(step: Graph, mesh: Mesh) -> Mapping[str, float]:
        return {node.id: 1e-6 * (zlib.crc32(f"{node.id} {mesh.devices}".encode()) % 97) for node in step}

    spec = open_spec(ROOT / "specs/recipes/tour.partita")
    recipe = load_recipe(spec, "tour", ["batch=2"])
    steps, cluster = Steps(spec, "cpu"), replace(TABLE, cores=cores).cluster()
    ready = planner(spec, recipe, (steps.fused, steps.unfused), cluster, kernels)
    found = [*ready.search()][-1]
    least = min(one.seconds for one in every(ready))
    assert found.over and found.best[0].seconds == pytest.approx(least, rel=1e-9)
    assert (cluster.share(2) == 2) == (cores == 1)
