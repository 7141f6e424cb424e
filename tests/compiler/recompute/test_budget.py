"""A budget for a step: the lowered program keeps to it, at the least cost; one that is too small is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from partita.compiler import pipeline
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.roofline import node_time
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.lower.build import graph_footprint

SPEC = Path(__file__).resolve().parents[3] / "specs/recipes/bench_step.partita"


MIB = 1 << 20


@cache
def step(recompute: str) -> tuple[Graph, float]:
    """The step of a small recipe, and the peak of its program in MiB."""
    spec = pipeline.open_spec(SPEC)
    recipe = load_recipe(spec, "tiny", [f"plan.recompute={recompute}", "dims.T=32", "batch=16"])
    graph = pipeline.step_graph(spec, recipe)
    return graph, graph_footprint(graph).memory.peak_bytes / MIB


def seconds_again(graph: Graph) -> float:
    """What is made again takes so long."""
    again = (node for node in graph if node.id.startswith("again/"))
    return sum(node_time(node, H100_NODES.machine).seconds for node in again)


def refused() -> float:
    """The least budget, as the refusal of one that is too small names it, in MiB."""
    with pytest.raises(SpecError, match="E0951") as found:
        step("budget(0.01 MiB)")
    return float(str(found.value).partition("budget(")[2].partition(" MiB")[0])


def test_a_budget_is_kept_and_less_of_it_takes_more_time() -> None:
    """Full recomputation's peak as the budget takes no more time than full recomputation; the least one is enough."""
    full, peak = step("full")
    budgets = [peak, refused()]
    found = [step("none"), *(step(f"budget({budget:.6f} MiB)") for budget in budgets)]
    assert all(size <= budget + 1e-6 for (_, size), budget in zip(found[1:], budgets, strict=True))
    seconds, sizes = [seconds_again(graph) for graph, _ in found], [size for _, size in found]
    assert seconds == sorted(seconds) and seconds[0] == 0 and seconds[1] <= seconds_again(full)
    assert sizes == sorted(sizes, reverse=True)


def test_the_stage_that_takes_most_keeps_to_it() -> None:
    """What is compiled for a mesh has the peak that a budget allows; the least that a refusal names is enough."""
    spec = pipeline.open_spec(SPEC)
    plan = ("mesh=[pipe = 2, tensor = 2]", "schedule=gpipe", "pin=[H -> tensor, F -> tensor]", "microbatches=4")
    sets = (*(f"plan.{key}" for key in plan), "dims.T=32", "batch=16")

    def peak(recompute: str) -> float:
        recipe = load_recipe(spec, "tiny", [f"plan.recompute={recompute}", *sets])
        return pipeline.compile_recipe(spec, recipe, None).predictions["peak_bytes"] / MIB

    with pytest.raises(SpecError, match="E0951") as found:
        peak("budget(0.01 MiB)")
    least = float(str(found.value).partition("budget(")[2].partition(" MiB")[0])
    assert peak(f"budget({least} MiB)") <= least < peak("none")
