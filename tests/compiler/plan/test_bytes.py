"""A plan that fits, fits: what it is said to hold against what its step, compiled for that mesh, is counted to hold."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from partita.compiler import pipeline
from partita.compiler.clusters import cluster_named
from partita.compiler.cost.cluster import Cluster
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Plan, Recipe, Recompute
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.plan.plan import Planner, planner
from partita.compiler.plan.search import Search
from partita.compiler.plan.space import Choice, Unit
from partita.compiler.room import peak_bytes
from partita.compiler.steps import Steps

UNDER, OVER = 0.98, 1.05  # times what the lowered step holds
CASES = [
    Choice(Unit((("tensor", 2),), "cheap", 4), 1, 1, 2),
    Choice(Unit((("tensor", 4),), "full", 8, alone=True), 1, 1, 1),
    Choice(Unit((("tensor", 2),), "cheap", 2), 2, 1, 2, zero=1),
    Choice(Unit((), "cheap", 1), 4, 1, 2, zero=2),
    Choice(Unit((), "full", 1), 4, 1, 2, zero=3),
    Choice(Unit((), "cheap", 1), 4, 1, 2, zero=3),
]


@cache
def ready() -> tuple[Spec, Recipe, Cluster, Planner]:
    spec = pipeline.open_spec("specs/recipes/bench_step.partita")
    recipe = load_recipe(spec, "small", [])
    cluster = cluster_named("a100_80")
    cluster = replace(cluster, levels=(replace(cluster.levels[0], members=4),))
    steps = Steps(spec, "cuda")
    return spec, recipe, cluster, planner(spec, recipe, (steps.fused, steps.unfused), cluster)


@pytest.mark.parametrize("choice", CASES, ids=lambda c: f"{c.mesh}, {c.unit.recompute}, zero {c.zero}")
def test_a_plan_holds_what_it_is_said_to_hold(choice: Choice) -> None:
    spec, recipe, cluster, found = ready()
    priced = Search(found.space, found.layouts, found.limit).pricing(choice.unit).price(choice)
    assert priced is not None
    plan = Plan(
        mesh=choice.mesh.axes, zero=choice.zero, recompute=Recompute(choice.unit.recompute),
        pins=() if choice.data > 1 else (("batch", None),),
    )  # fmt: skip
    compiled = replace(recipe, plan=plan, microbatches=choice.microbatches)
    decision = pipeline.partitioned_step(spec, compiled, plan, cluster=cluster, device="cuda")
    held = peak_bytes(decision, "cuda")
    assert UNDER * held <= priced.peak_bytes <= OVER * held
