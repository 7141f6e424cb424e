"""The time of a message: latency and bandwidth of the links that a mesh axis runs over.

In: a mesh laid on a cluster whose levels hold so many devices each (the innermost axis on the innermost level). Out:
seconds of a collective along an axis. With k devices, n bytes, a latency α and a bandwidth β of a device's link, on one
level (Thakur, Rabenseifner and Gropp 2005, sections 4.1-4.4; Chan et al. 2007):

    all-gather, reduce-scatter   ⌈log2 k⌉ α + (k-1)/k n/β          n: the whole; recursive doubling and halving
    all-reduce                   twice that                        a reduce-scatter and an all-gather (Rabenseifner)
    all-to-all                   (k-1) α + (k-1)/k n/β             n: what one device holds; pairwise exchange

(k-1)/k n is what each device must send, whatever the algorithm: a ring reaches it too, in k-1 messages; NCCL takes
trees where those would be felt. The terms' arithmetic is not felt beside the link. Over several levels, level by level
(as NCCL's rings do, one a port): k0 neighbours each reduce-scatter n, the k1 outside of them n/k0, at the same time on
all their links; an all-gather goes the same way back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from ..ir.layout import Mesh
from ..ir.types import DType
from .host import USUAL, Host
from .roofline import Machine

# What neighbouring messages of a kind are joined up to: as DistributedDataParallel does (its bucket_cap_mb).
BUCKET_BYTES = 25 << 20
GLOO_BUCKET_BYTES = 4 << 20  # more costs it as much, and large members go alone (`runtime/parcels.py`)


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
    """Devices of one kind, and how they are joined, the innermost level first.

    messages  timed on the innermost level
    host      of each device
    abreast   so many devices of the innermost level work at a time at their own pace, where they are processes that
              share fewer cores: n of them take n / abreast times as long, messages too, which are the cores' work
    bucket_bytes  what neighbouring messages of a kind are joined up to: over NCCL as DistributedDataParallel has it
    """

    machine: Machine
    memory_bytes: int
    levels: tuple[Level, ...]
    messages: tuple[Message, ...] = ()
    host: Host = USUAL
    abreast: int | None = None
    bucket_bytes: int = BUCKET_BYTES

    @property
    def gloo(self) -> bool:
        """Whether gloo carries messages, which joins few bytes, rather than NCCL."""
        return self.bucket_bytes == GLOO_BUCKET_BYTES

    @property
    def devices(self) -> int:
        """How many it has in all."""
        return math.prod(level.members for level in self.levels)

    def share(self, devices: int) -> float:
        """How many times as long anything takes when so many devices work at once."""
        return 1.0 if self.abreast is None else max(1.0, devices / self.abreast)

    def link(self, mesh: Mesh, axis: str) -> Link:
        """The slowest link between neighbours along an axis: that of the level which the axis reaches to."""
        return self.spans(mesh, axis)[-1].link

    def spans(self, mesh: Mesh, axis: str) -> tuple[Level, ...]:
        """What an axis runs over, the innermost first: of each level that it needs, how many members lie along it."""
        inside = math.prod(size for _, size in mesh.axes[mesh.order(axis) + len(mesh.members(axis)) :])
        left, held, found = mesh.size(axis), 1, list[Level]()
        for level in self.levels:
            held *= level.members
            here = min(left, max(1, held // inside))
            inside *= here
            if here > 1:
                found.append(Level(here, level.link))
                left = -(-left // here)
        if left > 1 or not found:
            found.append(Level(left, self.levels[-1].link))
        return tuple(found)

    def collective_s(self, op: str, bytes_: float, mesh: Mesh, axis: str) -> float:
        """Seconds of a collective along an axis: as it was measured, or by its links.

        bytes_: all-reduce, reduce-scatter, all-to-all what a device has before, all-gather what it has after.
        """
        spans = self.spans(mesh, axis)
        seconds = collective_s(op, bytes_, spans)
        return seconds * self._ratio(op, bytes_, spans[0]) if len(spans) == 1 else seconds

    def _ratio(self, op: str, bytes_: float, span: Level) -> float:
        """How many times the links' seconds a collective was measured to take, between the sizes on either side."""
        alike = [m for m in self.messages if m.kind == op and span.link == self.levels[0].link]
        if not alike or bytes_ <= 0:
            return 1.0
        nearest = min((m.devices for m in alike), key=lambda devices: abs(math.log2(devices / span.members)))
        points = sorted((m.bytes_, m.seconds / m.by_links_s(span.link)) for m in alike if m.devices == nearest)
        above = next((at for at, (size, _) in enumerate(points) if size >= bytes_), len(points) - 1)
        (low, first), (high, last) = points[max(0, above - 1)], points[above]
        if bytes_ <= low or low == high:
            return first if bytes_ <= low else last
        share = min(1.0, math.log(bytes_ / low) / math.log(high / low))
        return first ** (1 - share) * last**share


@dataclass(frozen=True, slots=True)
class Message:
    """A collective of a kind, timed among so many devices. bytes_: as `Cluster.collective_s` counts them."""

    kind: str
    devices: int
    bytes_: int
    seconds: float

    def by_links_s(self, link: Link) -> float:
        """What the formula says."""
        return collective_s(self.kind, self.bytes_, (Level(self.devices, link),))


def collective_s(op: str, bytes_: float, spans: tuple[Level, ...]) -> float:
    """Seconds of a collective over levels, the innermost first. bytes_: as `Cluster.collective_s` counts them."""
    devices = math.prod(span.members for span in spans)
    if devices == 1 or op in ("shard", "partial"):
        return 0.0
    seconds, inside = 0.0, 1  # inside: the devices within the levels so far
    for span in spans:
        wire, members = bytes_ / span.link.bandwidth_bytes_per_s, span.members
        if op == "all_to_all":  # with each device of the other members
            others = (members - 1) * inside
            seconds += others * span.link.latency_s + others / devices * wire
        else:
            share = (members - 1) / members / inside
            seconds += math.ceil(math.log2(members)) * span.link.latency_s + share * wire
        inside *= members
    return 2 * seconds if op == "all_reduce" else seconds


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
