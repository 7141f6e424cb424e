"""scale: the loss times a factor that is a state, so that small gradients do not vanish in float16.

In: a graph with a loss. Out: the same with the output `scaled_loss`, which is differentiated in the loss's place. The
update divides the gradients by the factor, and lets it grow or back off (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOSS, Level
from ..ir.types import Node
from .guard import SCALED_LOSS, scalar_state, scale_name


@dataclass(frozen=True)
class ScaleLoss:
    """start: the factor of the first step. label: begins the state's name, so that each update has its own."""

    start: float = 65536.0
    label: str = "step"

    name: ClassVar[str] = "scale"
    levels: ClassVar[tuple[Level, ...]] = (LOSS,)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        builder = GraphBuilder.rewriting(graph)
        builder.extend(graph)
        loss = graph.outputs["loss"]
        factor = scalar_state(builder, scale_name(self.label), loss.dtype, self.start).out()
        name = builder.fresh(f"{loss.node}.scaled")
        scaled = builder.add(Node(name, "mul", (loss, factor), (loss.type,), origin=graph[loss.node].origin))
        return builder.finish({**graph.outputs, SCALED_LOSS: scaled.out()}, graph.bodies)
