"""Any legal layout computes the same: random graphs on random meshes, laid out at random, held to one device."""

from __future__ import annotations

from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.meshes import assert_same_on_mesh, laid_at_random
from oracles.properties import at_level
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP

SIZES = ((1,), (2,), (3,), (5,), (1, 1), (2, 1), (2, 2), (2, 3), (3, 2), (2, 2, 2))
meshes = st.sampled_from(SIZES).map(lambda sizes: Mesh(tuple(zip(("data", "tensor", "context"), sizes, strict=False))))


@settings(max_examples=80, deadline=None)
@given(graphs(), meshes, st.integers(0, 2**32 - 1))
def test_any_legal_layout_computes_the_same(graph: Graph, mesh: Mesh, seed: int) -> None:
    step = at_level(graph, STEP)
    assert_same_on_mesh(step, laid_at_random(step, mesh, seed), mesh)
