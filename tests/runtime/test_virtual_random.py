"""Any legal layout, lowered: random graphs on random meshes, every device in one process, held to one device."""

from __future__ import annotations

import numpy as np
import torch
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled
from oracles.meshes import laid_at_random
from oracles.properties import at_level
from oracles.values import Array, error, leaf_values, run, spread
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import STEP
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.spread import spread as spread_out
from partita.runtime.execute import DTYPES, executable
from partita.runtime.virtual import Cluster

SIZES = ((1,), (2,), (3,), (5,), (1, 1), (2, 1), (2, 2), (2, 3), (3, 2), (2, 2, 2))
meshes = st.sampled_from(SIZES).map(lambda sizes: Mesh(tuple(zip(("data", "tensor", "context"), sizes, strict=False))))


def run_lowered_on_mesh(graph: Graph, mesh: Mesh, values: dict[str, Array]) -> dict[str, Array]:
    """Whole outputs, and what is left in parameters and states that are written."""
    local, lying = spread_out({"step": graph}, mesh)
    build, sources = compile_graphs(local, {}, {}, spread=lying)
    cluster = Cluster(executable(build, sources))
    kept = [*build.parameters, *build.states]
    stores = cluster.split({t.name: torch.tensor(values[t.name], dtype=DTYPES[t.dtype]) for t in kept})
    names = {str(node.attrs["name"]): node.id for node in graph.nodes("input")}
    inputs = build.programs["step"].inputs
    rows = {i.name: torch.tensor(values[names[i.name]], dtype=DTYPES[i.dtype]) for i in inputs if i.source == "data"}
    given_ = [rows] * graph.microbatches
    outputs = cluster.run("step", stores, given_, int(values.get("step", 0)), int(values.get("seed", 0)))
    found: dict[str, Array] = {}
    for name, use in graph.outputs.items():
        layout = graph[use.node].layouts[use.output]
        whole = np.zeros([dim.size or 0 for dim in use.dims])
        for rank, coordinate in enumerate(mesh.coordinates()):
            whole[layout.slices(use.dims, mesh, coordinate)] = outputs[rank][name].numpy()
        found[name] = whole
    written = {str(node.attrs["target"]) for node in graph.nodes("assign")}
    return found | {name: t.numpy() for name, t in cluster.join(stores).items() if name in written}


@settings(max_examples=20, deadline=None)
@given(graphs(), meshes, st.integers(0, 2**32 - 1))
def test_any_legal_layout_computes_the_same_lowered(graph: Graph, mesh: Mesh, seed: int) -> None:
    step = doubled(at_level(graph, STEP))
    laid, values = laid_at_random(step, mesh, seed), leaf_values(step)
    wanted, found = run(step, values), run_lowered_on_mesh(laid, mesh, values)
    assert found.keys() == wanted.keys()
    errors = {name: error(found[name], value) for name, value in wanted.items()}
    far = {name: size for name, size in errors.items() if not size <= 1e-10}
    allowed = spread(step, values) if far else {}
    assert not {name: size for name, size in far.items() if not size <= 100 * allowed[name]}, far
