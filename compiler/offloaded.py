"""What a plan lays on the host, in all of a build's graphs: each device's of a mesh, each stage's of a pipeline.

In: local graphs by program with how they lie on the mesh. Out: the same, where what `offload` names lies on the host
and is moved. A parameter lies on the same side in every program and on every device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runtime.program import is_step
from .ir.graph import Graph
from .passes.offload import Offload, hosted

if TYPE_CHECKING:
    from .lower.outside import Spread

OPTIMIZER, ACTIVATIONS = "optimizer", "activations"


def offloaded(graphs: Mapping[str, Graph], spread: Spread, kinds: Collection[str]) -> tuple[dict[str, Graph], Spread]:
    """The graphs of a build, and of the devices and stages that run others, with what is kept on the host there."""
    if OPTIMIZER not in kinds:
        return dict(graphs), spread
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
