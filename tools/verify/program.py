"""What is verified of a recipe: each update's step and the evaluation, on one device or laid out on a mesh.

In: a spec, a recipe, a plan. Out: a chain of forms for each program; stages of a pipeline are one more form behind the
others, for all programs placed by what the first of them takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

from ...compiler import devices, pipeline
from ...compiler.cost.cluster import Cluster
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.loss import elaborate_loss
from ...compiler.elaborate.plan import PIPE
from ...compiler.elaborate.recipe import Plan, Recipe
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Layout, Mesh
from ...compiler.ir.levels import LOSS
from ...compiler.partition.choices import Wishes
from ...compiler.partition.decide import Decision
from ...compiler.passes import Pass, run_passes
from ...compiler.passes.fuse_loss import FuseLoss
from ...compiler.schedule.placing import Pipeline
from ...runtime.program import is_step
from .chain import Chain, Fault
from .forms import Alone, OnMesh
from .layouts import laid_as
from .lowered import Hosting, Stages

ROWS = 8  # of logits that a small recipe takes at once


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a program: what it begins from, and its passes."""

    loss: Graph
    passes: Sequence[Pass]


def programs(spec: Spec, recipe: Recipe, device: str, rows: int | None = None) -> Iterator[tuple[str, list[Way]]]:
    """Each program of a build with the ways to it, of which a layout chooses. `rows`: of logits that are taken at once,
    where a recipe that was made small has too few."""
    for turn in recipe.turns:
        loss, _ = elaborate_loss(spec, turn)
        fused = [pipeline.step_passes(spec, turn, device, fuse_loss=fuse) for fuse in (True, False)]
        yield turn.program, [Way(loss, [_with_rows(one, rows) for one in passes]) for passes in fused]
    part = replace(recipe.turns[0], batch=recipe.rows_per_microbatch, microbatches=1)
    loss, _ = elaborate_loss(spec, part, training=False)
    yield "evaluate", [Way(loss, pipeline.evaluation_passes(recipe))]


def _with_rows(one: Pass, rows: int | None) -> Pass:
    return replace(one, rows=rows) if rows and isinstance(one, FuseLoss) else one


@dataclass
class Verification:
    """Of one recipe: its programs one after the other, since parameters lie as the first of them has laid them.

    whole: the recipe in its own sizes, for which layouts are chosen, where `recipe` is a small one.
    """

    spec: Spec
    recipe: Recipe
    plan: Plan | None = None
    whole: Recipe | None = None
    device: str = "cpu"
    cluster: Cluster | None = None
    leaves: dict[str, Layout] = field(default_factory=dict[str, Layout])
    mesh: Mesh | None = None  # with its axes in factors, once they are known, and the wishes for it
    wishes: Wishes = field(default_factory=Wishes)
    first: Graph | None = None  # the program that stages are placed by, as it is laid out

    def chains(self) -> Iterator[Chain]:
        """The chain of each program, one by one. Raises SpecError where the recipe or a wish cannot be."""
        wholes = programs(self.spec, self.whole, self.device) if self.whole and self.plan else repeat(("", None))
        rows = ROWS if self.whole else None
        for (name, ways), (_, whole) in zip(programs(self.spec, self.recipe, self.device, rows), wholes, strict=False):
            chain = Chain(name, self.recipe.seed)
            form = chain.passes(ways[0].loss, ways[0].passes)
            if form is not None:
                if self.plan is not None and Mesh(self.plan.mesh).without(PIPE).devices > 1:
                    chain = self._on_mesh(chain, form, ways, whole, self.plan)
                else:
                    self._lowered(chain, form, form)
            yield chain

    def _on_mesh(
        self, chain: Chain, form: Alone, ways: Sequence[Way], whole: Sequence[Way] | None, plan: Plan
    ) -> Chain:
        """The same program laid out: by the way that the layout takes, which may be another than the first."""
        forms, chains = [form], [chain]
        for way in ways[1:]:
            other = Chain(chain.name, chain.seed)
            found = other.passes(way.loss, way.passes)
            if found is None:
                return other
            forms.append(found)
            chains.append(other)
        try:
            at, laid = self._laid([one.graph for one in forms], whole, plan)
        except AssertionError as fault:
            chain.fault = Fault("partition", None, (), None, str(fault))
            return chain
        assert self.mesh is not None, "it is known by now"
        local = chains[at].partitioned(forms[at], laid, self.mesh)
        if local is not None:
            self._lowered(chains[at], local, forms[at])
        return chains[at]

    def _lowered(self, chain: Chain, form: Alone | OnMesh, alone: Alone) -> None:
        """The programs of the whole chain of blocks; of a pipeline those of its stages; then with what goes to the
        host."""
        chain.lowered(form, alone)
        plan, stages = self.plan or self.recipe.plan or Plan(), None
        mesh = Mesh(self.plan.mesh if self.plan else ())
        priced = self._machines(mesh, plan)
        if chain.fault is None and dict(mesh.axes).get(PIPE, 1) > 1:
            inner = form.mesh if isinstance(form, OnMesh) else Mesh(())
            wanted = Pipeline(plan.schedule, plan.balance, *priced, plan.offload)
            stages = Stages(inner.across(PIPE, mesh), wanted, self.first)
            chain.lowered(form, alone, stages)
            self.first = self.first or form.graph
        if chain.fault is None and plan.offload and is_step(chain.name):
            chain.lowered(form, alone, stages, Hosting(plan.offload, priced[0]))

    def _laid(self, graphs: Sequence[Graph], whole: Sequence[Way] | None, plan: Plan) -> tuple[int, Graph]:
        """Which of the graphs is taken, and how it lies: as it would in its whole size, where it can."""
        if whole is not None:
            full = [run_passes(way.loss, way.passes, LOSS) for way in whole]
            decision = self._decided(full, plan)
            at = next(at for at, one in enumerate(full) if _ids(one) == set(decision.folded.of))
            laid = laid_as(decision, full[at], graphs[at])
            if laid is not None:
                return at, self._kept(laid)
        decision = self._decided(graphs, plan)
        at = next(at for at, one in enumerate(graphs) if _ids(one) == set(decision.folded.of))
        return at, self._kept(decision.graph)

    def _decided(self, graphs: Sequence[Graph], plan: Plan) -> Decision:
        if self.mesh is None:
            self.mesh, self.wishes = devices.factored(graphs[0], Mesh(plan.mesh).without(PIPE), devices.wishes_of(plan))
        wishes = replace(self.wishes, leaves=dict(self.leaves))
        return devices.partitioned(graphs, self.mesh, wishes, *self._machines(self.mesh, plan))

    def _machines(self, mesh: Mesh, plan: Plan) -> tuple[Cluster, int | None]:
        return devices.machines(mesh, plan, self.cluster or devices.recipe_cluster(self.spec, self.recipe))

    def _kept(self, laid: Graph) -> Graph:
        """Later programs find parameters and states as this one has them."""
        self.leaves |= {node.id: node.layouts[0] for node in laid if node.op in ("parameter", "state")}
        return laid


def _ids(graph: Graph) -> set[str]:
    return {node.id for node in graph}
