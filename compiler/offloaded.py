"""What a plan lays on the host, in all of a build's graphs: each device's of a mesh, each stage's of a pipeline.

In: local graphs by program with how they lie on the mesh. Out: the same, where what `offload` names lies on the host
and is moved. A parameter lies on the same side in every program and on every device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runtime.program import is_step
from .base.diagnostic import Diagnostic, SpecError
from .cost.cluster import H100_NODES, Cluster
from .cost.roofline import node_time
from .ir.graph import Graph
from .passes.offload import Offload, hosted
from .passes.offload_activations import OffloadActivations, cheaper_to_move

if TYPE_CHECKING:
    from .lower.outside import Spread

OPTIMIZER, ACTIVATIONS = "optimizer", "activations"


def offloaded(
    graphs: Mapping[str, Graph], spread: Spread, kinds: Collection[str], cluster: Cluster = H100_NODES
) -> tuple[dict[str, Graph], Spread]:
    """The graphs of a build, and of the devices and stages that run others, with what is kept on the host there.

    cluster: what computing again and copies are priced on. Raises SpecError E0416 for a pipeline's activations.
    """
    found = dict(graphs)
    if OPTIMIZER in kinds:
        found, spread = _optimizer(found, spread)
    if ACTIVATIONS in kinds:
        if spread.stages:
            title = "activations of a pipeline's stages do not go to the host yet"
            raise SpecError(Diagnostic("E0416", title, hint="offload = optimizer; recompute = full"))
        found = _activations(found, cluster)
        spread = replace(spread, variants=tuple(_activations(some, cluster) for some in spread.variants))
    return found, spread


def _activations(graphs: Mapping[str, Graph], cluster: Cluster) -> dict[str, Graph]:
    """What the backward reads later goes down where that takes less time than making it again."""

    def moved(graph: Graph) -> Graph:
        link = cluster.host.link_bytes_per_s
        values = cheaper_to_move(graph, lambda node: node_time(node, cluster.machine).seconds, link)
        return OffloadActivations(values)(graph)

    return {name: moved(graph) if is_step(name) else graph for name, graph in graphs.items()}


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
