"""A bound on memory: what is laid out under it never takes more once it is lowered, or is refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled
from oracles.plans import cluster, opened
from oracles.properties import at_level
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.devices import partitioned
from partita.compiler.elaborate.recipe import Plan, Recompute
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP
from partita.compiler.ir.types import Phase
from partita.compiler.ops.shapes import elements
from partita.compiler.partition.choices import Wishes
from partita.compiler.partition.decide import Decision, decide
from partita.compiler.passes.localize import localize
from partita.compiler.pipeline import compile_recipe, step_graph, unfused_step
from partita.compiler.room import laid_within, peak_bytes

MESHES = (Mesh((("data", 2),)), Mesh((("tensor", 3),)))


@settings(max_examples=5, deadline=None)
@given(graphs(most=3), st.sampled_from(MESHES), st.floats(0.7, 1.0), st.sampled_from([None, 0, 3]))
def test_a_lowered_step_keeps_to_the_memory_of_a_device(
    graph: Graph, mesh: Mesh, share: float, zero: int | None
) -> None:
    step = doubled(at_level(graph, STEP))
    free = laid_within({"step": [step]}, mesh, Wishes(zero=zero), H100_NODES, None, "cpu")["step"]
    memory = max(1, int(share * peak_bytes(free, "cpu")))
    try:
        found = laid_within({"step": [step]}, mesh, Wishes(zero=zero), H100_NODES, memory, "cpu")["step"]
    except SpecError as fault:
        assert [one.code for one in fault.diagnostics] == ["E0943"]
    else:
        assert peak_bytes(found, "cpu") <= memory


def test_what_is_gathered_for_all_microbatches_lasts() -> None:
    """Parameters that lie cut and are whole for all of a step are bounded with what lies there always."""
    _, recipe, steps = opened("gpt2", 4)
    step = steps[0](replace(recipe, microbatches=4, plan=Plan(recompute=Recompute("full"))))
    mesh, wishes, machines = Mesh((("tensor", 2),)), Wishes({"batch": ()}), cluster("dgx_a100", 2)
    free = partitioned([step], mesh, wishes, machines)
    lasting, gathered = _lasting(free)
    assert gathered
    assert lasting + gathered <= free.program.resident.bytes(free.solution.strategies)
    bound = lasting + gathered - 1
    found = partitioned([step], mesh, wishes, machines, lasting_bytes=bound)
    assert sum(_lasting(found)) <= found.program.resident.bytes(found.solution.strategies) <= bound


def test_of_steps_that_compute_the_same_one_that_fits_is_enough() -> None:
    """The loss apart from its head keeps all logits; where they have no room, the fused one is laid out still."""
    spec, recipe, _ = opened("llama", 4)
    recipe = replace(recipe, microbatches=2)
    ways = [step_graph(spec, recipe), unfused_step(spec, recipe)]
    mesh, wishes, machines = Mesh((("tensor", 2),)), Wishes({"batch": ()}), cluster("dgx_a100", 2)
    too_little = sum(partitioned([ways[1]], mesh, wishes, machines).program.resident.least().values()) - 1
    found = partitioned(ways, mesh, wishes, machines, lasting_bytes=too_little)
    assert len(found.before) == len(ways[0])
    assert found.resident_bytes <= too_little


def test_a_sparing_layout_is_the_one_of_several_microbatches_at_the_price_of_all() -> None:
    """What is gathered once for all microbatches lasts: a plan's layout has it only where it pays within two."""
    spec, recipe, _ = opened("gpt2", 16)
    mesh, wishes, machines = Mesh((("tensor", 2),)), Wishes({"batch": ()}), cluster("dgx_a100", 2)
    many, two = (step_graph(spec, replace(recipe, batch=n, microbatches=n), device="cuda") for n in (16, 2))
    free, few = (decide(step, mesh, machines, wishes) for step in (many, two))
    sparing = decide(many, mesh, machines, replace(wishes, sparing=True))
    assert sparing.solution.strategies == few.solution.strategies
    assert sparing.resident_bytes < free.resident_bytes
    assert sparing.solution.seconds >= free.solution.seconds > few.solution.seconds


def test_the_stages_of_a_pipeline_keep_to_the_memory_of_a_device() -> None:
    """Where the fastest layouts are too high with all microbatches in flight, others are looked for; or it is said."""
    spec, recipe, _ = opened("gpt2", 8)
    recipe = replace(recipe, microbatches=8, plan=Plan(mesh=(("pipe", 2), ("tensor", 2))))
    machines = cluster("dgx_a100", 4)

    def peak(memory_bytes: int) -> float:
        there = replace(machines, memory_bytes=memory_bytes)
        return compile_recipe(spec, recipe, None, device="cuda", cluster=there).predictions["peak_bytes"]

    free = peak(machines.memory_bytes)
    bound = int(0.95 * free)
    assert peak(bound) <= bound
    with pytest.raises(SpecError) as refused:
        peak(int(0.5 * free))
    assert {one.code for one in refused.value.diagnostics} <= {"E0943", "E0946", "E0952"}


def _lasting(found: Decision) -> tuple[int, int]:
    """Bytes of a device's parameters, states and sums of gradients, and of what it gathers before all microbatches."""
    local = localize(found.graph, found.mesh, (0,))
    sizes = [(node, elements(node.outs[0].dims) * node.outs[0].dtype.itemsize_bytes) for node in local if node.outs]
    return (
        sum(size for node, size in sizes if node.op in ("parameter", "state", "accumulate")),
        sum(size for node, size in sizes if node.op == "all_gather" and node.phase is Phase.PREPARE),
    )
