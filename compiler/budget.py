"""A step within its budget: the passes of a training step, made to compute again just what its plan's bytes ask for.

In: a loss, the passes that make it a step, and its recipe. Out: the same passes, save that `Rematerialize` names the
values. `recompute` finds what is cheapest to make again; whether it fits is no estimate but read off the lowered step,
on the device of the mesh that takes most. So torch is loaded where a plan has a budget, and only there.
"""

from __future__ import annotations

from .base.diagnostic import Diagnostic, SpecError
from .cost.cluster import H100_NODES, Cluster
from .cost.roofline import node_time
from .devices import factored, laid_out, wishes_of
from .elaborate.recipe import Plan, Recipe
from .ir.graph import Graph
from .ir.layout import PIPE, Mesh
from .ir.levels import GRADIENT, LOSS
from .passes import Pass, run_passes
from .passes.rematerialize import Rematerialize
from .recompute.block import Value, blocks_of
from .recompute.chain import chain_of
from .recompute.fit import fit


def within_budget(loss: Graph, passes: list[Pass], recipe: Recipe, device: str) -> list[Pass]:
    """The passes of a step, computing as little again as its plan's budget asks for. Raises SpecError E0951."""
    budget = None if recipe.plan is None else recipe.plan.recompute.budget_bytes
    if budget is None:
        return passes
    at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
    kept = run_passes(loss, passes[:at], LOSS)
    chain = chain_of(blocks_of(kept, lambda node: node_time(node, H100_NODES.machine).seconds))

    def peak_bytes(again: frozenset[Value]) -> int:
        step = run_passes(kept, [Rematerialize("none", values=again), *passes[at + 1 :]], GRADIENT)
        return peak_on_mesh(step, recipe.plan or Plan(), device)

    return [*passes[:at], Rematerialize("none", values=fit(chain, peak_bytes, budget)), *passes[at + 1 :]]


def peak_on_mesh(step: Graph, plan: Plan, device: str = "cpu", cluster: Cluster = H100_NODES) -> int:
    """Bytes of the device of a plan's mesh that takes most. Raises SpecError."""
    from .lower.build import compile_graphs, graph_footprint
    from .lower.spread import spread

    if PIPE in dict(plan.mesh):
        raise SpecError(
            Diagnostic("E0416", "a budget for what the stages of a pipeline compute again is not built yet")
        )
    if Mesh(plan.mesh).devices == 1:
        return graph_footprint(step, device).memory.peak_bytes
    mesh, wishes = factored(step, Mesh(plan.mesh), wishes_of(plan))
    laid = laid_out({"step": [step]}, mesh, wishes, cluster, plan.budget_bytes)
    graphs, lying = spread({name: decision.graph for name, decision in laid.items()}, mesh)
    build, _ = compile_graphs(graphs, {}, {}, device=device, spread=lying)
    return int(build.predictions["peak_bytes"])
