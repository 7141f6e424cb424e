"""A step on devices: graphs and what a plan asks of them, to graphs laid out on a mesh and the decisions behind them.

In: for each program graphs that compute the same, a plan's mesh and pins, the cluster that a recipe names. Out: of each
program's graphs the one that takes least time, its parameters and states lying as the first program has laid them. How
a graph lies is decided in `partition`; here is what it is told: the machines, what a plan asks of layouts, that the
axis `data` cuts the batch, and that what is said of the tokens is said of every slice of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .base.collector import uncollected
from .base.diagnostic import Diagnostic, SpecError
from .clusters import cluster_named
from .cost.cluster import H100_NODES, Cluster
from .cost.memory import step_memory
from .elaborate.load import Spec
from .elaborate.models import BATCH
from .elaborate.recipe import Plan, Recipe
from .ir.graph import Graph
from .ir.layout import PIPE, Layout, Mesh
from .ir.levels import PARTITIONED
from .ir.slices import MARK
from .lasting import Lasting
from .partition.choices import DATA, Wishes
from .partition.decide import Decision, decide
from .partition.factors import factored as in_factors
from .partition.impossible import TOO_LARGE
from .passes import check as check_graph
from .passes.localize import localize


def machines(mesh: Mesh, plan: Plan, cluster: Cluster | None) -> tuple[Cluster, int | None]:
    """What a mesh is priced on, and what a device of it may hold: of a cluster that is named no more than it has, of
    the H100s that stand for none what the plan says. Raises SpecError E0945 where there are too few devices."""
    if cluster is None:
        return H100_NODES, plan.budget_bytes
    if mesh.devices > cluster.devices:
        title = f"{mesh} is {mesh.devices} devices; the cluster has {cluster.devices}"
        raise SpecError(Diagnostic("E0945", title, hint="a record with another level, or more members in the last"))
    return cluster, min(plan.budget_bytes or cluster.memory_bytes, cluster.memory_bytes)


def of_stages(memory_bytes: int | None, mesh: Mesh, plan: Plan) -> int | None:
    """What the stages of a pipeline hold together. No bound where some of it is on the host: layouts are reckoned with
    all of it."""
    return None if plan.offload else memory_bytes and memory_bytes * dict(mesh.axes).get(PIPE, 1)


def recipe_cluster(spec: Spec, recipe: Recipe) -> Cluster | None:
    """The machines that a recipe names. Raises SpecError."""
    return None if recipe.cluster is None else cluster_named(recipe.cluster, spec)


def wishes_of(plan: Plan) -> Wishes:
    """What a plan asks of layouts. Raises SpecError E0947 for a dim that is to be cut and not to be, and for a stage of
    ZeRO without an axis to cut over."""
    if plan.zero and plan.mesh and DATA not in dict(plan.mesh):
        title = f"ZeRO stage {plan.zero} cuts over the axis `{DATA}`, and the mesh is {Mesh(plan.mesh)}"
        axes = ",".join(f"{name}={size}" for name, size in ((DATA, 2), *plan.mesh))
        raise SpecError(Diagnostic("E0947", title, hint=f"for instance --mesh {axes}"))
    pins: dict[str, tuple[str, ...]] = {}
    for dim, axis in plan.pins:
        others = {other for name, other in plan.pins if name == dim}
        if None in others and len(others) > 1:
            one = next(other for other in others if other is not None)
            title = f"the pins `{dim} -> {one}` and `{dim} -> none` exclude each other"
            raise SpecError(Diagnostic("E0947", title, hint="keep one of them"))
        pins[dim] = pins.get(dim, ()) + (() if axis is None else (axis,))
    return Wishes(pins, plan.zero)


@uncollected()
def partitioned(
    ways: Sequence[Graph], mesh: Mesh, wishes: Wishes, cluster: Cluster = H100_NODES, memory_bytes: int | None = None,
    whole: bool = False, lasting_bytes: int | None = None, flying: float = 1.0,
) -> Decision:  # fmt: skip
    """Of graphs that compute the same, the one that takes least time, laid out. Raises SpecError.

    A device is to hold no more than `memory_bytes`: of what lasts, or, where it runs the `whole` graph and holds all of
    it itself, at any moment. lasting_bytes: known to be all that may last; flying: activations of so many microbatches
    among it.
    """
    mesh, wishes = factored(ways[0], mesh, wishes)
    different = [graph for at, graph in enumerate(ways) if all(len(graph) != len(other) for other in ways[:at])]
    lasting = Lasting(lasting_bytes if whole or lasting_bytes else memory_bytes)
    while True:
        best, refused = None, None
        for graph in different:
            try:
                found = decide(graph, mesh, cluster, wishes, lasting.bound, memory_bytes, best, flying)
            except SpecError as fault:
                if {one.code for one in fault.diagnostics} == {TOO_LARGE}:
                    refused = refused or fault
                    continue
                best, refused = None, fault  # a wish that is not kept is not kept by another way
                break
            best = min(best or found, found, key=lambda decision: decision.solution.seconds)
        if best is None:
            assert refused is not None, "there is a graph to lay out"
            lasting.refuse(refused)
            continue
        over = _peak_bytes(best) - memory_bytes if whole and memory_bytes is not None else 0
        if over <= 0:
            check_graph(best.graph, PARTITIONED, "the partitioned graph", best.before)
            return best
        lasting.over(best.resident_bytes, over)


def _peak_bytes(decision: Decision) -> int:
    """The peak of a step on the device that has most, as its graph tells it."""
    first = next(iter(decision.mesh.coordinates()))
    return step_memory(localize(decision.graph, decision.mesh, first)).peak_bytes


def laid_out(
    graphs: Mapping[str, Sequence[Graph]], mesh: Mesh, wishes: Wishes, cluster: Cluster = H100_NODES,
    memory_bytes: int | None = None, whole: bool = False, lasting_bytes: int | None = None, flying: float = 1.0,
) -> dict[str, Decision]:  # fmt: skip
    """A build's graphs on a mesh, each the best of its ways; parameters and states lie as the first has laid them.

    The memory is as `partitioned` has it.
    """
    found: dict[str, Decision] = {}
    leaves: dict[str, Layout] = {}
    for name, ways in graphs.items():
        here = replace(wishes, leaves=dict(leaves))
        found[name] = partitioned(ways, mesh, here, cluster, memory_bytes, whole, lasting_bytes, flying)
        leaves |= {n.id: n.layouts[0] for n in found[name].graph if n.op in ("parameter", "state")}
    return found


def factored(graph: Graph, mesh: Mesh, wishes: Wishes) -> tuple[Mesh, Wishes]:
    """The mesh as it is laid out on, an axis in factors where a dim is too short for it, and the wishes for it."""
    return in_factors(graph, mesh, _of_slices(graph, _with_batch(graph, mesh, wishes)))


def _with_batch(graph: Graph, mesh: Mesh, wishes: Wishes) -> Wishes:
    """The axis `data` cuts the batch, where it is long enough and nothing else was asked for."""
    batch = graph.dims().get(BATCH)
    if batch is None or BATCH in wishes.pins or DATA not in mesh.names or (batch.size or 0) < mesh.size(DATA):
        return wishes
    return replace(wishes, pins={**wishes.pins, BATCH: (DATA,)})


def _of_slices(graph: Graph, wishes: Wishes) -> Wishes:
    """What is said of the tokens is said of every slice of them."""
    marks = {name: name.partition(MARK)[0] for name in graph.dims() if MARK in name}
    own = {name: wishes.pins[whole] for name, whole in marks.items() if whole in wishes.pins}
    return replace(wishes, pins={**wishes.pins, **own})
