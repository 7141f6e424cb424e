"""offsets: the starts of dims that nobody cuts are 0, known while compiling.

In: a graph in which `index`, masks and `random` read each dim's global start, and the dims that devices, slices or
microbatches cut. Out: the same with every other start a constant, so that what only served a cut folds away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, LOSS, MODEL, STEP, Level
from ..ir.types import Dim, Node


@dataclass(frozen=True)
class Offsets:
    """cut: the names of the dims of which a module may see a part that does not begin at 0."""

    cut: tuple[str, ...] = ()

    name: ClassVar[str] = "offsets"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, GRADIENT, STEP)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        builder = GraphBuilder.rewriting(graph)
        builder.extend(self._known(node) for node in graph)
        return builder.finish(graph.outputs, graph.bodies)

    def _known(self, node: Node) -> Node:
        dim = node.attrs.get("dim")
        if node.op != "start" or (isinstance(dim, Dim) and dim.name in self.cut):
            return node
        zero = MappingProxyType({"value": 0, "dims": (), "dtype": node.outs[0].dtype})
        return replace(node, op="constant", attrs=zero)
