"""`partita bench plan`: two real processes run some plans of a small model, and the table says what was measured."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
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
from partita.tools.bench import plan as bench
from partita.tools.bench.plan import Measured, Ranking, as_json, every, held, prepared, sampled, text
from partita.tools.bench.plan_contest import paced
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
    ready = prepared("tour", 2, 2, tmp_path, (1, 1))
    assert [plan[0] for plan in ready.chosen] == [1, 2]
    found = held(ready, tmp_path)
    assert [one.predicted_seconds for one in found.plans] == sorted(one.predicted_seconds for one in found.plans)
    for one in found.plans:
        assert min(one.seconds, one.predicted_bytes, one.bytes) > 0
    assert "| 1 | " in text(found) and f"of {ready.ranked} plans" in text(found)


def test_the_first_is_held_to_the_fastest() -> None:
    finals = ((1, 2.2), (2, 2.0), (3, None))
    plans = tuple(Measured(rank, "", 1.0, 1.5, 1.5, seconds, 1, 1) for rank, seconds in finals)
    ranking = Ranking("m", 2, 3, plans)
    assert ranking.ratio == pytest.approx(1.1)
    assert as_json([ranking])["worst_ratio"] == ranking.ratio


def test_what_slows_a_round_slows_no_plan_against_another() -> None:
    assert paced([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]) == pytest.approx([2.0, 4.0])


def test_a_sample_has_the_best_and_the_last() -> None:
    assert sampled(5, 4, 3) == [0, 1, 2, 3, 4]
    assert sampled(100, 3, 3) == [0, 1, 2, 3, 51, 99]


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
