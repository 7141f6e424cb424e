"""A small recipe on a pipeline, all devices in one process, beside the same recipe on one device.

In: a model, a mesh, a schedule. Out: what both give in some steps and in an evaluation, and their stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.host import Host
from partita.compiler.elaborate.recipe import Plan, Recompute
from partita.compiler.ir.graph import DUMP
from partita.compiler.ir.layout import Mesh
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.stages import piped
from partita.compiler.offloaded import offloaded
from partita.compiler.pipeline import compile_recipe
from partita.compiler.schedule.placing import Pipeline
from partita.runtime.execute import Executable
from partita.runtime.folder import executable, load
from partita.runtime.state import initial_store
from partita.runtime.virtual import Cluster
from samples.recipes import recipe_over
from samples.spread_mlp import SpreadMLP

from .spread import alone
from .spread import rows as mlp_rows

Tensors = dict[str, torch.Tensor]
NO_SLOWER = replace(H100_NODES, host=Host(1e18))


@dataclass(frozen=True)
class Piped:
    """What runs: a model of the zoo, a mesh with the axis `pipe`, how. `keys` are further keys of the recipe.

    `dump` names values that both give too; `near` is how near both are, relatively, in the types of `precision`.
    """

    file: str
    model: str
    mesh: tuple[tuple[str, int], ...]
    schedule: str = "1f1b"
    microbatches: int = 2
    balance: tuple[int, ...] = ()
    keys: Mapping[str, object] = field(default_factory=dict[str, object])
    precision: str = "f64"
    recompute: Recompute = field(default_factory=Recompute)
    offload: tuple[str, ...] = ()
    dump: tuple[str, ...] = ()
    near: float = 1e-9

    def compiled(self, folder: Path) -> tuple[Executable, Executable]:
        """On one device, and on the mesh."""
        given = {"batch": 2 * self.microbatches, "clip": 0.5, **self.keys, "microbatches": self.microbatches}
        spec, recipe = recipe_over(self.file, self.model, self.precision, **given)
        plan = Plan(
            self.mesh, schedule=self.schedule, balance=self.balance, recompute=self.recompute, offload=self.offload
        )
        alone_ = replace(recipe, plan=Plan(recompute=Recompute("none")))
        compile_recipe(spec, alone_, folder / "one", dump=self.dump)
        compile_recipe(spec, replace(recipe, plan=plan), folder / "many", dump=self.dump)
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
    """Losses, norms, evaluations, dumped values, parameters and states agree. Gives the pipeline's build."""
    one, many = what.compiled(folder)
    cluster, store = Cluster(many), initial_store(one.build, 0)
    stores = [initial_store(many.build, 0, rank=rank) for rank in range(many.build.mesh.size)]
    for step in range(steps):
        for program in ("step", "evaluate"):
            data = rows(one, program, step)
            wanted, found = one.run(program, store, data, step), cluster.run(program, stores, data, step)
            for name, tensor in wanted.items():
                having = [outputs[name] for outputs in found if name in outputs]
                assert len(having) == len(found) or (having and name.startswith(DUMP)), f"{program} {name} is missing"
                for one_ in having:
                    assert_near(one_, having[0], 0.0, f"{program} {name}")
                    assert_near(one_, tensor, what.near, f"{program} {name}")
    joined = cluster.join(stores)
    for name, tensor in store.items():
        assert_near(joined[name], tensor, 10 * what.near, name)
    return many


def assert_near(found: torch.Tensor, wanted: torch.Tensor, near: float, name: str) -> None:
    """NaN, which an overflow leaves, is NaN in both."""
    torch.testing.assert_close(found, wanted, rtol=near, atol=near / 100, equal_nan=True, msg=name)


# ---- graphs that are written by hand: no passes, no solver


@dataclass(frozen=True)
class PipedMLP:
    """A sample over a mesh of `data` and `tensor`, its layers over `pipe`; `at`: the place of that axis in the mesh;
    `offload`: what lies on the host, over a link that nothing is slower than."""

    what: SpreadMLP
    stages: int
    schedule: str
    at: int = 0
    offload: tuple[str, ...] = ()

    def built(self) -> Executable:
        """Lowered for the whole mesh. Raises SpecError where it cannot be cut so."""
        graph, spread = self.what.spread()
        axes = self.what.mesh.axes
        mesh = Mesh((*axes[: self.at], ("pipe", self.stages), *axes[self.at :]))
        lying = piped({"step": graph}, spread, mesh, Pipeline(self.schedule, (), H100_NODES))
        graphs, lying = offloaded({"step": graph}, lying, self.offload, NO_SLOWER)
        return executable(*compile_graphs(graphs, {}, {}, spread=lying))

    def ran(self, steps: int = 2) -> tuple[list[list[Tensors]], Tensors]:
        """What each device gives in each step, and what is stored behind them."""
        cluster = Cluster(self.built())
        stores = cluster.split(initial_store(cluster.build, 0))
        given = [cluster.run("step", stores, mlp_rows(self.what, step), step) for step in range(steps)]
        return given, cluster.join(stores)


def assert_same_as_alone(piped_: PipedMLP, steps: int = 2) -> None:
    """Losses, norms, parameters and states agree in float64; all devices give the same."""
    wanted, whole = alone(piped_.what, steps)
    found, stored = piped_.ran(steps)
    for step in range(steps):
        for outputs in found[step]:
            for name, tensor in wanted[step].items():
                torch.testing.assert_close(outputs[name], tensor, rtol=1e-10, atol=1e-12, msg=name)
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-10, atol=1e-12, msg=name)
