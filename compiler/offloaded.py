"""What a plan lays on the host, in all of a build's graphs: each device's of a mesh, each stage's of a pipeline.

In: local graphs by program with how they lie on the mesh. Out: the same, where what `offload` names lies on the host
and is moved. A parameter lies on the same side in every program and on every device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runtime.program import is_step
from .cost.cluster import H100_NODES, Cluster
from .cost.hosted import Parts, cheaper_to_move
from .ir.graph import Graph
from .passes.offload import Offload, hosted
from .passes.offload_activations import moved
from .schedule.copies import goes_back_at_once, with_copies
from .schedule.stages import Stage

if TYPE_CHECKING:
    from .lower.outside import Spread

OPTIMIZER, ACTIVATIONS = "optimizer", "activations"


def offloaded(
    graphs: Mapping[str, Graph], spread: Spread, kinds: Collection[str], cluster: Cluster = H100_NODES
) -> tuple[dict[str, Graph], Spread]:
    """The graphs of a build, and of the devices and stages that run others, with what is kept on the host there.

    cluster: what computing again and copies are priced on.
    """
    found = dict(graphs)
    if OPTIMIZER in kinds:
        found, spread = _optimizer(found, spread)
    if ACTIVATIONS in kinds:
        found, spread = _activations(found, spread, cluster)
    return found, spread


def _activations(graphs: Mapping[str, Graph], spread: Spread, cluster: Cluster) -> tuple[dict[str, Graph], Spread]:
    """What the backward reads later goes down where that takes less time than making it again."""

    def graph_moved(graph: Graph) -> Graph:
        return moved(graph, cheaper_to_move(graph, cluster.machine, cluster.host)).graph

    def all_moved(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
        return {name: graph_moved(graph) if is_step(name) else graph for name, graph in graphs.items()}

    def stage_moved(stage: Stage) -> Stage:
        parts = Parts(stage.part, stage.ranks, goes_back_at_once(stage))
        values = cheaper_to_move(stage.graph, cluster.machine, cluster.host, parts)
        found = moved(stage.graph, values, parts)
        return with_copies(stage, found.graph, found.beside, found.early)

    return all_moved(graphs), replace(
        spread,
        variants=tuple(map(all_moved, spread.variants)),
        stages=tuple(
            {name: stage_moved(stage) if is_step(name) else stage for name, stage in some.items()}
            for some in spread.stages
        ),
    )


def _optimizer(graphs: Mapping[str, Graph], spread: Spread) -> tuple[dict[str, Graph], Spread]:
    local = [*spread.variants, *({name: stage.graph for name, stage in some.items()} for some in spread.stages)]
    names = hosted(graph for some in (graphs, *local) for name, graph in some.items() if is_step(name))
    whole, part = Offload(names), Offload(names, early=False)
    return {name: whole(graph) for name, graph in graphs.items()}, replace(
        spread,
        variants=tuple({name: whole(graph) for name, graph in some.items()} for some in spread.variants),
        stages=tuple(
            {name: replace(stage, graph=part(stage.graph)) for name, stage in some.items()} for some in spread.stages
        ),
    )
