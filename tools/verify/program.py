"""What is verified of a recipe: each update's step and the evaluation, on one device or laid out on a mesh.

In: a spec, a recipe, a plan. Out: a chain of forms for each program. A new way to run a step (stages of a pipeline) is
one more form behind the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...compiler import pipeline
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.loss import elaborate_loss
from ...compiler.elaborate.recipe import Plan, Recipe
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Layout, Mesh
from ...compiler.passes import Pass
from .chain import Chain, Fault
from .forms import Alone


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a program: what it begins from, and its passes."""

    loss: Graph
    passes: Sequence[Pass]


def programs(spec: Spec, recipe: Recipe, device: str) -> Iterator[tuple[str, list[Way]]]:
    """Each program of a build with the ways to it, of which a layout chooses."""
    for turn in recipe.turns:
        loss, _ = elaborate_loss(spec, turn)
        fused = [pipeline.step_passes(spec, turn, device, fuse_loss=fuse) for fuse in (True, False)]
        yield turn.program, [Way(loss, passes) for passes in fused]
    rows = replace(recipe.turns[0], batch=recipe.rows_per_microbatch, microbatches=1)
    loss, _ = elaborate_loss(spec, rows, training=False)
    yield "evaluate", [Way(loss, pipeline.evaluation_passes(recipe))]


def verified(spec: Spec, recipe: Recipe, plan: Plan | None, device: str = "cpu") -> Iterator[Chain]:
    """The chain of each program, one by one. Raises SpecError where the recipe or a wish cannot be."""
    leaves: dict[str, Layout] = {}
    for name, ways in programs(spec, recipe, device):
        chain = Chain(name, recipe.seed)
        form = chain.passes(ways[0].loss, ways[0].passes)
        if form is not None:
            if plan is not None and Mesh(plan.mesh).devices > 1:
                chain = _on_mesh(chain, form, ways, plan, leaves)
            else:
                chain.lowered(form, form)
        yield chain


def _on_mesh(chain: Chain, form: Alone, ways: Sequence[Way], plan: Plan, leaves: dict[str, Layout]) -> Chain:
    """The same program laid out: by the way that the layout takes, which may be another than the first."""
    mesh, forms, chains = Mesh(plan.mesh), [form], [chain]
    for way in ways[1:]:
        other = Chain(chain.name, chain.seed)
        found = other.passes(way.loss, way.passes)
        if found is None:
            return other
        forms.append(found)
        chains.append(other)
    wishes = replace(pipeline.wishes_of(plan), leaves=dict(leaves))
    try:
        decision = pipeline.partitioned([one.graph for one in forms], mesh, wishes, memory_bytes=plan.budget_bytes)
    except AssertionError as fault:
        chain.fault = Fault("partition", None, (), None, str(fault))
        return chain
    taken = next(at for at, one in enumerate(forms) if _ids(one.graph) == set(decision.folded.of))
    leaves |= {node.id: node.layouts[0] for node in decision.graph if node.op in ("parameter", "state")}
    local = chains[taken].partitioned(forms[taken], decision.graph, mesh)
    if local is not None:
        chains[taken].lowered(local, forms[taken])
    return chains[taken]


def _ids(graph: Graph) -> set[str]:
    return {node.id for node in graph}
