"""The time of a message: latency and bandwidth of the links that a mesh axis runs over.

In: a mesh laid on a cluster whose levels hold so many devices each (the innermost axis on the innermost level). Out:
seconds of a collective along an axis. With k devices, n bytes, a latency α and a bandwidth β (Thakur, Rabenseifner and
Gropp 2005; Chan et al. 2007):

    all-reduce                   2 ⌈log2 k⌉ α + 2 (k-1)/k n/β      a reduce-scatter and an all-gather
    all-gather, reduce-scatter   ⌈log2 k⌉ α + (k-1)/k n/β          n: the whole
    all-to-all                   (k-1) α + (k-1)/k n/β             n: what one device holds
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from ..ir.layout import Mesh
from ..ir.types import DType
from .roofline import Machine


@dataclass(frozen=True, slots=True)
class Link:
    """bandwidth_bytes_per_s: of one device, each way. latency_s: of one message."""

    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Level:
    """So many members (devices, or lower levels) joined by one kind of link."""

    members: int
    link: Link


@dataclass(frozen=True, slots=True)
class Cluster:
    """Devices of one kind, and how they are joined, the innermost level first."""

    machine: Machine
    memory_bytes: int
    levels: tuple[Level, ...]

    def link(self, mesh: Mesh, axis: str) -> Link:
        """The slowest link between neighbours along an axis: that of the level which the axis reaches to."""
        reach = mesh.size(axis) * math.prod(size for _, size in mesh.axes[mesh.order(axis) + 1 :])
        held = 1
        for level in self.levels:
            held *= level.members
            if reach <= held:
                return level.link
        return self.levels[-1].link


def collective_s(op: str, bytes_: float, devices: int, link: Link) -> float:
    """Seconds of a collective. bytes_: all-reduce, reduce-scatter, all-to-all what a device has before, all-gather what
    it has after."""
    if devices == 1 or op in ("shard", "partial"):
        return 0.0
    share, rounds = (devices - 1) / devices, math.ceil(math.log2(devices))
    wire, latency = bytes_ / link.bandwidth_bytes_per_s, link.latency_s
    if op == "all_reduce":
        return 2 * (rounds * latency + share * wire)
    if op == "all_to_all":
        return (devices - 1) * latency + share * wire
    return rounds * latency + share * wire


# NVIDIA H100 SXM (data sheet, dense peaks), eight to a node by NVLink 4, nodes by one 400 Gbit/s port a device. What a
# mesh is priced with where no cluster is named.
H100_NODES = Cluster(
    Machine(
        MappingProxyType({DType.F64: 34e12, DType.F32: 67e12, DType.BF16: 989e12, DType.F16: 989e12}),
        elementwise_per_s=67e12,
        bandwidth_bytes_per_s=3.35e12,
        launch_s=4e-6,
    ),
    80 << 30,
    (Level(8, Link(450e9, 3e-6)), Level(1 << 20, Link(50e9, 8e-6))),
)
