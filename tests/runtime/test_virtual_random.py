"""Any legal layout, lowered: random graphs on random meshes, every device in one process, held to one device."""

from __future__ import annotations

from generators.graphs import graphs
from generators.meshes import meshes
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled
from oracles.meshes import laid_at_random
from oracles.properties import at_level
from oracles.virtual import assert_same_lowered
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP


@settings(max_examples=20, deadline=None)
@given(graphs(), meshes, st.integers(0, 2**32 - 1))
def test_any_legal_layout_computes_the_same_lowered(graph: Graph, mesh: Mesh, seed: int) -> None:
    step = doubled(at_level(graph, STEP))
    assert_same_lowered(step, laid_at_random(step, mesh, seed), mesh)
