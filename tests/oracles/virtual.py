"""Runs a partitioned graph as lowered, all devices in one process, and holds it to the reference on one device.

In: a graph before and after partition, the mesh. Out: whole outputs and what is left in parameters and states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.outside import Spread
from partita.compiler.lower.spread import spread as spread_out
from partita.runtime.execute import DTYPES
from partita.runtime.folder import executable
from partita.runtime.virtual import Cluster

from .values import Array, error, leaf_values, run, spread

Local = tuple[dict[str, Graph], Spread]


def run_lowered_on_mesh(
    graph: Graph, mesh: Mesh, values: Mapping[str, Array], change: Callable[[Local], Local] = lambda local: local
) -> dict[str, Array]:
    """Whole outputs, and what is left in parameters and states that are written. `change`: the devices' own graphs."""
    local, lying = change(spread_out({"step": graph}, mesh))
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


def assert_same_lowered(
    before: Graph, partitioned: Graph, mesh: Mesh, change: Callable[[Local], Local] = lambda local: local
) -> None:
    """In float64, within what the order of sums moves."""
    values = leaf_values(before)
    wanted, found = run(before, values), run_lowered_on_mesh(partitioned, mesh, values, change)
    assert found.keys() == wanted.keys()
    errors = {name: error(found[name], value) for name, value in wanted.items()}
    far = {name: size for name, size in errors.items() if not size <= 1e-10}
    allowed = spread(before, values) if far else {}
    assert not {name: size for name, size in far.items() if not size <= 100 * allowed[name]}, far
