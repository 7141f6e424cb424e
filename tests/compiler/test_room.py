"""A bound on memory: what is laid out under it never takes more once it is lowered, or is refused with a reason."""

from __future__ import annotations

from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled
from oracles.properties import at_level
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP
from partita.compiler.partition.choices import Wishes
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
