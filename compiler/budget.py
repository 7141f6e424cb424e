"""A step within its budget: the passes of a training step, made to compute again just what its plan's bytes ask for.

In: a loss, the passes that make it a step, its recipe, and the machines. Out: the same passes, save that what
`Rematerialize` makes again is named. `recompute` finds what is cheapest, of one device's part of the step and at what
its kernels take; whether it fits is no estimate but read off the lowered step, on the device of the mesh (and the stage
of the pipeline) that takes most. So torch is loaded where a plan has a budget, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .base.diagnostic import SpecError
from .cost.cluster import Cluster
from .cost.roofline import node_time
from .devices import factored, laid_out, machines, of_stages, wishes_of
from .elaborate.recipe import Plan, Recipe
from .ir.graph import Graph
from .ir.layout import PIPE, Mesh
from .ir.levels import GRADIENT, LOSS
from .ir.types import Node
from .offloaded import offloaded
from .ops.collectives import COLLECTIVES
from .ops.shapes import elements
from .passes import Pass, run_passes
from .passes.rematerialize import Rematerialize
from .recompute.block import Value, blocks_of
from .recompute.chain import chain_of
from .recompute.fit import fit
from .schedule.forms import build, parse_form
from .schedule.place import in_flight

if TYPE_CHECKING:
    from .cost.table import Table
    from .lower.build import Occupied
    from .lower.library import Library
    from .lower.outside import Spread

STEP = "step"


@dataclass(frozen=True, slots=True)
class Target:
    """What a step is for. cluster: the machines that it is laid out on, where some are named; table: what kernels take
    on this one, where they were timed."""

    device: str = "cpu"
    cluster: Cluster | None = None
    table: Table | None = None


def within_budget(loss: Graph, passes: list[Pass], recipe: Recipe, target: Target) -> list[Pass]:
    """The passes of a step, computing as little again as its plan's budget asks for. Raises SpecError E0951."""
    plan = recipe.plan or Plan()
    if plan.recompute.budget_bytes is None:
        return passes
    from .lower.library import Library

    at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
    kept = run_passes(loss, passes[:at], LOSS)

    def again(values: frozenset[Value]) -> Rematerialize:
        """Messages, and what layouts alone bring in, are in no step yet."""
        return Rematerialize("none", values=frozenset(value for value in values if value[0] in kept))

    def lying(values: frozenset[Value]) -> _Lying:
        return _lying(run_passes(kept, [again(values), *passes[at + 1 :]], GRADIENT), plan, target)

    library = Library(target.device)
    whole = lying(frozenset())
    timed = _occupied(whole, plan, library, target.table)
    flights = _flights(plan, recipe.microbatches)
    blocks = [replace(block, flights=flights) for block in blocks_of(whole.local, _seconds(whole, timed.seconds))]

    def peak_bytes(values: frozenset[Value]) -> int:
        if not again(values).values:
            return timed.peak_bytes
        return _occupied(lying(values), plan, library).peak_bytes

    return [*passes[:at], again(fit(chain_of(blocks), peak_bytes, plan.recompute.budget_bytes)), *passes[at + 1 :]]


def _flights(plan: Plan, microbatches: int) -> int:
    """Microbatches that a layer's values are kept of at a time, on the stage that has most."""
    stages = dict(plan.mesh).get(PIPE, 1)
    if stages == 1:
        return 1
    form = parse_form(plan.schedule)
    numbers = in_flight(build(form, stages, microbatches))
    most = max(sum(one) / len(one) for device in numbers for one in device)
    return max(1, round(most / form.count))


@dataclass(frozen=True)
class _Lying:
    """A step on a mesh without the axis of the pipeline: the graph of rank 0, and how all lie."""

    local: Graph
    spread: Spread
    mesh: Mesh
    machines: tuple[Cluster, int | None]


def _lying(step: Graph, plan: Plan, target: Target) -> _Lying:
    """A step as its plan lays it out. Raises SpecError."""
    from .lower.outside import ALONE
    from .lower.spread import spread

    mesh, priced = Mesh(plan.mesh).without(PIPE), machines(Mesh(plan.mesh), plan, target.cluster)
    if mesh.devices == 1:
        return _Lying(step, ALONE, mesh, priced)
    mesh, wishes = factored(step, mesh, wishes_of(plan))
    try:
        laid = laid_out({STEP: [step]}, mesh, wishes, priced[0], of_stages(priced[1], Mesh(plan.mesh), plan))
    except SpecError:  # too large as it is; how much of it must be computed again is what is looked for
        laid = laid_out({STEP: [step]}, mesh, wishes, priced[0])
    graphs, lying = spread({STEP: laid[STEP].graph}, mesh)
    return _Lying(graphs[STEP], lying, mesh, priced)


def _occupied(lying: _Lying, plan: Plan, library: Library, table: Table | None = None) -> Occupied:
    """What the step takes once it is lowered. Where no stages fit, it is cut evenly: that takes more than the budget,
    and how much more is seen. Raises SpecError."""
    from .lower.build import occupied
    from .lower.stages import Pipeline, piped

    mesh, spread, least = Mesh(plan.mesh), lying.spread, 0
    if dict(mesh.axes).get(PIPE, 1) > 1:
        wanted = Pipeline(plan.schedule, plan.balance, *lying.machines, plan.offload)
        across = lying.mesh.across(PIPE, mesh)
        try:
            spread = piped({STEP: lying.local}, spread, across, wanted)
        except SpecError:
            spread = piped({STEP: lying.local}, spread, across, replace(wanted, memory_bytes=None))
            least = (plan.recompute.budget_bytes or 0) + 1
    graphs, spread = offloaded({STEP: lying.local}, spread, plan.offload, lying.machines[0])
    found = occupied(STEP, graphs[STEP], library, spread, table)
    return replace(found, peak_bytes=max(found.peak_bytes, least))


def _seconds(lying: _Lying, timed: Mapping[str, float]) -> Callable[[Node], float]:
    """Of a node that runs again: as its kernels were foretold, else by its roofline; of a message by its links."""
    cluster, _ = lying.machines

    def seconds(node: Node) -> float:
        if node.op in COLLECTIVES:
            sent = node.outs[0] if node.op == "all_gather" else node.uses[0].type
            size = elements(sent.dims) * sent.dtype.itemsize_bytes
            return cluster.collective_s(node.op, size, lying.mesh, str(node.attrs["axis"])) + cluster.machine.launch_s
        return timed.get(node.id, 0.0) if timed else node_time(node, cluster.machine).seconds

    return seconds
