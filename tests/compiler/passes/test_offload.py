"""What lies on the host changes no value: random graphs, interpreted and lowered, on one device and on meshes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from generators.graphs import graphs
from generators.meshes import meshes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled, run_lowered
from oracles.meshes import laid_at_random
from oracles.properties import assert_same_values, at_level
from oracles.values import leaf_values
from oracles.virtual import Local, assert_same_lowered
from partita.compiler.cost.hosted import kept_for_later
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import LOCAL, STEP
from partita.compiler.ir.parse import parse_graph
from partita.compiler.ir.text import print_graph
from partita.compiler.ir.types import Dim, DType
from partita.compiler.ops.build import Builder
from partita.compiler.passes import check
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.offload import Offload, settled
from partita.compiler.passes.offload_activations import OffloadActivations


def trained(*steps: Graph) -> frozenset[str]:
    """The parameters that the host may hold: these steps' optimizer has no state."""
    targets = {str(node.attrs["target"]) for step in steps for node in step.nodes("assign")}
    return settled(steps, frozenset(targets))


@settings(max_examples=40, deadline=None)
@given(graphs(batch=4), st.booleans())
def test_values_stay(graph: Graph, parts: bool) -> None:
    step = at_level(graph, STEP)
    step = Microbatch(2)(step) if parts else step
    moved = Offload(trained(step))(step)
    check(moved, LOCAL, "the graph after offload")
    assert parse_graph(print_graph(moved)) == moved
    if not parts:
        assert_same_values(step, moved, leaf_values(step))


def with_a_view() -> Graph:
    """A loss of a parameter, beside it a view of that one, which is to be seen as it was."""
    graph, rows, one = GraphBuilder("viewed"), Dim("R", 3), Dim("one", 1)
    b = Builder(graph)
    w = b.parameter("w", (rows, one), DType.F32)
    x = b.input("x", (rows, one), DType.F32)
    graph.output("loss", b.one("sum", b.one("mul", w, x), over=(rows, one)))
    graph.output("tap", b.one("transpose", w, dims=(one, rows)))
    return b.finish()


@settings(max_examples=15, deadline=None)
@given(graphs(batch=4))
@example(with_a_view())
def test_lowered_values_stay_to_the_bit(graph: Graph) -> None:
    step = doubled(at_level(graph, STEP))
    moved = Offload(trained(step))(step)
    moved = OffloadActivations(kept_for_later(moved))(moved)
    check(moved, LOCAL, "the graph after offload_activations")
    values = leaf_values(step)
    for wanted, found in zip(run_lowered(step, values), run_lowered(moved, values), strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(graphs(batch=4, most=5), meshes, st.integers(0, 2**32 - 1))
def test_on_any_mesh(graph: Graph, mesh: Mesh, seed: int) -> None:
    step = doubled(at_level(graph, STEP))

    def moved(local: Local) -> Local:
        graphs, lying = local
        kinds = [graphs, *lying.variants]
        names = trained(*(kind["step"] for kind in kinds))
        sides = [Offload(names)(kind["step"]) for kind in kinds]
        first, *rest = [{"step": OffloadActivations(kept_for_later(side))(side)} for side in sides]
        return first, replace(lying, variants=tuple(rest))

    assert_same_lowered(step, laid_at_random(step, mesh, seed), mesh, moved)
