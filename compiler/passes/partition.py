"""partition: every value gets a layout over the mesh, and collectives become nodes.

In: a graph with sizes, of any level before. Out: one graph for all devices, in which each operand lies as its reader
wants it. The choice is one integer program over forward, backward and update together (`compiler/partition`): data,
tensor and sequence parallelism, the vocabulary that is cut in embedding and loss, and ZeRO all come out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..cost.cluster import H100_NODES, Cluster
from ..ir.graph import Graph
from ..ir.layout import Mesh
from ..ir.levels import GRADIENT, LOSS, MODEL, PARTITIONED, STEP, Level
from ..partition.choices import Wishes
from ..partition.decide import decide


@dataclass(frozen=True)
class Partition:
    """mesh: the devices. cluster: what they are priced as. wishes: pins and a ZeRO stage. memory_bytes: of a device;
    None: not asked."""

    mesh: Mesh
    cluster: Cluster = H100_NODES
    wishes: Wishes = field(default_factory=Wishes)
    memory_bytes: int | None = None

    name: ClassVar[str] = "partition"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, GRADIENT, STEP)
    gives: ClassVar[Level | None] = PARTITIONED
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        return decide(graph, self.mesh, self.cluster, self.wishes, self.memory_bytes).graph
