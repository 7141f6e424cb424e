"""Any legal layout computes the same: random graphs on random meshes, laid out at random, held to one device."""

from __future__ import annotations

from generators.graphs import graphs
from generators.meshes import meshes
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.meshes import assert_same_on_mesh, laid_at_random, run_on_mesh
from oracles.properties import at_level
from oracles.values import error, leaf_values, run
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP
from partita.compiler.passes.microbatch import Microbatch


@settings(max_examples=80, deadline=None)
@given(graphs(), meshes, st.integers(0, 2**32 - 1))
def test_any_legal_layout_computes_the_same(graph: Graph, mesh: Mesh, seed: int) -> None:
    step = at_level(graph, STEP)
    assert_same_on_mesh(step, laid_at_random(step, mesh, seed), mesh)


@settings(max_examples=20, deadline=None)
@given(graphs(batch=4), meshes, st.integers(0, 2**32 - 1))
def test_microbatches_add_up_on_every_device(graph: Graph, mesh: Mesh, seed: int) -> None:
    whole = at_level(graph, STEP)
    try:
        parts = Microbatch(2)(whole)
    except SpecError:  # it mixes the rows of a batch
        return
    values, wanted = leaf_values(whole), run(whole, leaf_values(whole))
    found = run_on_mesh(laid_at_random(parts, mesh, seed), mesh, values)
    errors = {name: error(found[name], value) for name, value in wanted.items() if name not in graph.outputs}
    assert all(size <= 1e-8 for size in errors.values()), errors
