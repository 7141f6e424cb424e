"""A small recipe on a pipeline, all devices in one process, beside the same recipe on one device.

In: a model, a mesh, a schedule. Out: what both give in some steps and in an evaluation, and their stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.ir.layout import Mesh
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.stages import Pipeline, piped
from partita.compiler.pipeline import compile_recipe
from partita.runtime.execute import Executable
from partita.runtime.folder import executable, load
from partita.runtime.state import initial_store
from partita.runtime.virtual import Cluster
from samples.recipes import recipe_over
from samples.spread_mlp import SpreadMLP

from .spread import alone
from .spread import rows as mlp_rows

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Piped:
    """What runs: a model of the zoo, a mesh with the axis `pipe`, how. `keys` are further keys of the recipe."""

    file: str
    model: str
    mesh: tuple[tuple[str, int], ...]
    schedule: str = "1f1b"
    microbatches: int = 2
    balance: tuple[int, ...] = ()
    keys: Mapping[str, object] = field(default_factory=dict[str, object])

    def compiled(self, folder: Path) -> tuple[Executable, Executable]:
        """On one device, and on the mesh."""
        given = {"batch": 2 * self.microbatches, "clip": 0.5, **self.keys, "microbatches": self.microbatches}
        spec, recipe = recipe_over(self.file, self.model, **given)
        compile_recipe(spec, recipe, folder / "one")
        plan = Plan(self.mesh, schedule=self.schedule, balance=self.balance)
        compile_recipe(spec, replace(recipe, plan=plan), folder / "many")
        return load(folder / "one"), load(folder / "many")


def rows(ours: Executable, program: str, number: int) -> list[Tensors]:
    """Whole inputs of each microbatch."""
    draw, found = torch.Generator().manual_seed(number), list[Tensors]()
    for _ in range(ours.programs[program].microbatches):
        found.append({})
        for item in ours.programs[program].inputs:
            if item.source == "data" and item.below is not None:
                found[-1][item.name] = torch.randint(item.below, item.shape, generator=draw)
            elif item.source == "data":
                found[-1][item.name] = torch.randn(item.shape, generator=draw, dtype=torch.float64)
    return found


def assert_same_piped(what: Piped, folder: Path, steps: int = 2) -> Executable:
    """Losses, norms, evaluations, parameters and states agree in float64. Gives the pipeline's build."""
    one, many = what.compiled(folder)
    cluster, store = Cluster(many), initial_store(one.build, 0)
    stores = [initial_store(many.build, 0, rank=rank) for rank in range(many.build.mesh.size)]
    for step in range(steps):
        for program in ("step", "evaluate"):
            data = rows(one, program, step)
            wanted, found = one.run(program, store, data, step), cluster.run(program, stores, data, step)
            for rank, outputs in enumerate(found):
                for name, tensor in wanted.items():
                    assert torch.equal(outputs[name], found[0][name]), f"{name} differs on {rank}"
                    torch.testing.assert_close(outputs[name], tensor, rtol=1e-9, atol=1e-11, msg=f"{program} {name}")
    joined = cluster.join(stores)
    for name, tensor in store.items():
        torch.testing.assert_close(joined[name], tensor, rtol=1e-8, atol=1e-10, msg=name)
    return many


# ---- graphs that are written by hand: no passes, no solver


@dataclass(frozen=True)
class PipedMLP:
    """A sample over a mesh of `data` and `tensor`, its layers over `pipe`; `at`: the place of that axis in the mesh."""

    what: SpreadMLP
    stages: int
    schedule: str
    at: int = 0

    def built(self) -> Executable:
        """Lowered for the whole mesh. Raises SpecError where it cannot be cut so."""
        graph, spread = self.what.spread()
        axes = self.what.mesh.axes
        mesh = Mesh((*axes[: self.at], ("pipe", self.stages), *axes[self.at :]))
        lying = piped({"step": graph}, spread, mesh, Pipeline(self.schedule, (), H100_NODES))
        return executable(*compile_graphs({"step": graph}, {}, {}, spread=lying))


def assert_same_as_alone(piped_: PipedMLP, steps: int = 2) -> None:
    """Losses, norms, parameters and states agree in float64; all devices give the same."""
    what = piped_.what
    wanted, whole = alone(what, steps)
    cluster = Cluster(piped_.built())
    stores = cluster.split(initial_store(cluster.build, 0))
    for step in range(steps):
        for outputs in cluster.run("step", stores, mlp_rows(what, step), step):
            for name, tensor in wanted[step].items():
                torch.testing.assert_close(outputs[name], tensor, rtol=1e-10, atol=1e-12, msg=name)
    for name, tensor in cluster.join(stores).items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-10, atol=1e-12, msg=name)
