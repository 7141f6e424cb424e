"""A block's frontier, as a planner reads it: of one device's graph, per layer, without lowering."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from partita.compiler import pipeline
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.roofline import node_time
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import Node
from partita.compiler.passes.localize import localize
from partita.compiler.recompute.frontier import Frontier, frontiers

SPEC = Path(__file__).resolve().parents[3] / "specs/recipes/bench_step.partita"


def seconds(node: Node) -> float:
    return node_time(node, H100_NODES.machine).seconds


def of_tiny(tensor: int, flights: int = 1) -> Frontier:
    """The frontier of the layers of a small GPT, as one of so many devices has it."""
    spec = pipeline.open_spec(SPEC)
    sets = ["plan.recompute=none", f"plan.mesh=[tensor = {tensor}]", "plan.pin=[H -> tensor, F -> tensor, T -> none]"]
    recipe = load_recipe(spec, "tiny", sets)
    assert recipe.plan is not None
    laid = pipeline.partitioned_step(spec, recipe, recipe.plan)
    local = localize(laid.graph, laid.mesh, next(iter(laid.mesh.coordinates())))
    return frontiers(local, seconds, flights)[0]


@pytest.mark.parametrize("tensor", [1, 2])
def test_more_memory_takes_less_time(tensor: int) -> None:
    found = of_tiny(tensor)
    points = found.points
    assert len(found.block.alike) == 2 and len(points) > 2
    assert points[-1].seconds == 0 and not points[-1].again
    for small, large in pairwise(points):
        assert small.bytes < large.bytes and small.seconds > large.seconds
        assert small.working_bytes >= small.kept_bytes
    assert all(point.bytes == point.kept_bytes + point.working_bytes for point in points)  # two layers, one at work
    slopes = [(a.seconds - b.seconds) / (b.bytes - a.bytes) for a, b in pairwise(points)]
    assert slopes == sorted(slopes, reverse=True)


def test_what_a_layer_keeps_at_the_least_is_its_input() -> None:
    """With many microbatches in flight nothing else counts."""
    least = of_tiny(2, flights=1000).points[0]
    assert least.kept_bytes == 4 * 4 * 16 * 32  # float32, batch, T, D
