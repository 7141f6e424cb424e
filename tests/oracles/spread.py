"""Runs local graphs on every device of a mesh, in one process, beside the whole computation on one device.

In: a sample that writes both. Out: of some steps what each gave, and the whole store after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from partita.compiler.ir import layout as compiler
from partita.compiler.ir.graph import Graph
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.spread import spread as spread_out
from partita.runtime.execute import Executable
from partita.runtime.folder import executable
from partita.runtime.layout import Mesh
from partita.runtime.mesh import join_mesh
from partita.runtime.program import Receive, Send
from partita.runtime.program_json import from_json, to_json
from partita.runtime.state import initial_store
from partita.runtime.virtual import Cluster, cut_inputs
from samples.spread_mlp import SpreadMLP

from .values import leaf_values

Tensors = dict[str, torch.Tensor]


def built(what: SpreadMLP) -> Executable:
    """The sample lowered for its mesh."""
    graph, spread = what.spread()
    return executable(*compile_graphs({"step": graph}, {}, {}, spread=spread))


def rows(what: SpreadMLP, step: int) -> list[Tensors]:
    """Whole inputs of each microbatch of a step."""
    draw = torch.Generator().manual_seed(step)
    shape = (what.batch, what.width)
    return [
        {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name in ("x", "y")}
        for _ in range(what.microbatches)
    ]


def alone(what: SpreadMLP, steps: int) -> tuple[list[Tensors], Tensors]:
    """On one device."""
    whole = replace(what, mesh=Mesh())
    ours = built(whole)
    store = initial_store(ours.build, 0)
    outputs = [ours.run("step", store, rows(whole, step), step) for step in range(steps)]
    return outputs, store


def together(what: SpreadMLP, steps: int) -> tuple[list[list[Tensors]], Tensors]:
    """On all devices of the mesh: of each step what each device gave."""
    cluster = Cluster(built(what))
    stores = cluster.split(initial_store(cluster.build, 0))
    outputs = [cluster.run("step", stores, rows(what, step), step) for step in range(steps)]
    return outputs, cluster.join(stores)


Case = tuple[str, dict[str, str], list[list[Tensors]]]  # a build as JSON, its modules, each step's whole inputs


def case(what: SpreadMLP, steps: int = 2) -> Case:
    """A sample lowered, for processes that have no compiler."""
    graph, spread = what.spread()
    build, sources = compile_graphs({"step": graph}, {}, {}, spread=spread)
    return to_json(build), sources, [rows(what, step) for step in range(steps)]


def case_of(step: Graph, partitioned: Graph, mesh: compiler.Mesh, steps: int = 2) -> Case:
    """A step that was laid out, lowered, with random inputs."""
    local, lying = spread_out({"step": partitioned}, mesh)
    build, sources = compile_graphs(local, {}, {}, spread=lying)
    names = {node.id: str(node.attrs["name"]) for node in step.nodes("input")}
    values = [leaf_values(step, seed) for seed in range(steps)]
    return to_json(build), sources, [[{n: torch.tensor(each[i]) for i, n in names.items()}] for each in values]


def among_processes(cases: Sequence[Case]) -> Tensors:
    """In one of the processes of meshes, one after another: its outputs and its parts of the store, by case."""
    found: Tensors = {}
    for number, (text, sources, batches) in enumerate(cases):
        build = from_json(text)
        place = join_mesh(build.mesh, torch.device("cpu"))
        assert place is not None, "several processes"
        ours = replace(executable(build, sources), communicator=place.processes)
        store, inputs = initial_store(build, 0, rank=place.rank), ours.programs["step"].inputs
        for step, batch in enumerate(batches):
            outputs = ours.run("step", store, [cut_inputs(build, inputs, place.rank, whole) for whole in batch], step)
            found |= {f"{number}/{step}/{name}": tensor for name, tensor in outputs.items()}
        found |= {f"{number}/{name}": tensor for name, tensor in store.items()}
    return found


def messages_that_cross() -> Tensors:
    """In each of two processes that both receive before they send, with a group for each way."""
    place = join_mesh(Mesh((("pipe", 2),)), torch.device("cpu"), ways=[("pipe", 0, 1, 0), ("pipe", 1, 0, 1)])
    assert place is not None, "two processes"
    ours, at = place.processes, place.rank
    arriving = ours.receive(Receive("pipe", 1 - at, "x", (3,), "f32", tag=1 - at), 0, torch.empty(3))
    ours.send(Send("pipe", 1 - at, "y", tag=at), 0, torch.full((3,), float(at)))
    (found,) = arriving.results()
    ours.finish()
    return {"found": found, "ways": torch.tensor(len(ours.ways))}


def in_one_process(cases: Sequence[Case]) -> list[Tensors]:
    """What `among_processes` should give, rank by rank, by the cluster in one process."""
    found: list[Tensors] = [{} for _ in range(from_json(cases[0][0]).mesh.size)]
    for number, (text, sources, batches) in enumerate(cases):
        cluster = Cluster(executable(from_json(text), sources))
        stores = cluster.split(initial_store(cluster.build, 0))
        for step, batch in enumerate(batches):
            for rank, outputs in enumerate(cluster.run("step", stores, batch, step)):
                found[rank] |= {f"{number}/{step}/{name}": tensor for name, tensor in outputs.items()}
        for rank, store in enumerate(stores):
            found[rank] |= {f"{number}/{name}": tensor for name, tensor in store.items()}
    return found


def assert_same(what: SpreadMLP, steps: int = 2) -> None:
    """Losses, norms, parameters and states agree in float64; all devices give the same."""
    (one, whole), (many, joined) = alone(what, steps), together(what, steps)
    for wanted, found in zip(one, many, strict=True):
        _assert_alike(wanted, found)
    for name, tensor in whole.items():
        torch.testing.assert_close(joined[name], tensor, rtol=1e-10, atol=1e-12, msg=name)


def _assert_alike(wanted: Tensors, found: Sequence[Tensors]) -> None:
    for rank, outputs in enumerate(found):
        for name, tensor in wanted.items():
            assert torch.equal(outputs[name], found[0][name]), f"{name} differs on {rank}"
            torch.testing.assert_close(outputs[name], tensor, rtol=1e-10, atol=1e-12, msg=name)
