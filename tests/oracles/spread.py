"""Runs local graphs on every device of a mesh, in one process, beside the whole computation on one device.

In: a sample that writes both. Out: of some steps what each gave, and the whole store after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from partita.compiler.lower.build import compile_graphs
from partita.runtime.execute import Executable, executable
from partita.runtime.layout import Mesh
from partita.runtime.state import initial_store
from partita.runtime.virtual import Cluster
from samples.spread_mlp import SpreadMLP

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
