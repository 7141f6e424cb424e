"""What a strategy takes on the machine: the time of a node's largest part, and of a collective along an axis.

In: a node, a strategy, a cluster. Out: seconds. A node is priced by its operator's own cost in the sizes of the device
that has most; a collective by the links of its axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..cost.cluster import Cluster
from ..cost.roofline import node_time
from ..ir.layout import Axes, Layout, Mesh, largest_size, usual_size
from ..ir.types import Dim, Dims, Node, TensorType, with_dims
from ..ops.collectives import COLLECTIVES
from .relayout import Move
from .strategies import Strategy, cut_axes

_PREFER_SMALL = 0.05  # of the time to write a result: what decides between equals is who holds less
_IDLE = 4  # how much worse it is to cut a dim that is shorter than the axis
_NO_MESSAGE_S = 1e-9  # a change of layout without a message is not quite nothing, so that none is made in vain


@dataclass(frozen=True)
class Prices:
    """A mesh on a cluster."""

    mesh: Mesh
    cluster: Cluster

    def node_s(self, node: Node, strategy: Strategy) -> float:
        """Seconds of the largest part of a node, and of the messages inside of one that is taken apart."""
        cut = cut_axes(strategy, self.mesh)
        part = largest(node, cut, self.mesh)
        written = sum(_bytes(out.dims, out.dtype.itemsize_bytes) for out in part.outs)
        seconds = node_time(part, self.cluster.machine).seconds
        seconds += _PREFER_SMALL * written / self.cluster.machine.bandwidth_bytes_per_s
        for axis, option in zip(self.mesh.names, strategy, strict=True):
            if option.apart:  # a maximum, a sum of exponentials, and the target's logit
                seconds += 3 * self.cluster.collective_s("all_reduce", written, self.mesh, axis)
        return seconds

    def move_s(self, move: Move, dims: Dims, itemsize: int) -> float:
        """Seconds of a change of layout."""
        layout = move.after if move.op == "all_gather" else move.before
        seconds = self.collective_s(move.op, move.axis, layout.usual_elements(dims, self.mesh) * itemsize)
        at = move.after.position(move.axis)
        idle = at is not None and (dims[at].size or 0) < self.mesh.size(move.axis)
        return seconds * (_IDLE if idle else 1)

    def collective_s(self, op: str, axis: str, bytes_: float) -> float:
        """Seconds of a collective, its launch included; of a change without a message nearly nothing."""
        if op not in COLLECTIVES or self.mesh.size(axis) == 1:
            return _NO_MESSAGE_S + 1e-3 * bytes_ / self.cluster.machine.bandwidth_bytes_per_s
        return self.cluster.collective_s(op, bytes_, self.mesh, axis) + self.cluster.machine.launch_s

    def keep_s(self, bytes_: float) -> float:
        """What decides between equals when a value is kept for the backward."""
        return _PREFER_SMALL * bytes_ / self.cluster.machine.bandwidth_bytes_per_s

    def part_bytes(self, out: TensorType, layout: Layout) -> int:
        """The most that a device holds of a value."""
        return layout.elements(out.dims, self.mesh) * out.dtype.itemsize_bytes


def largest(node: Node, cut: Mapping[Dim, Axes], mesh: Mesh) -> Node:
    """The node in the sizes of the device that has most."""
    if not cut:
        return node
    sizes = {dim: largest_size(dim, axes, mesh) for dim, axes in cut.items()}
    # Where rows meet their own expert alone, the rows that there are are computed, not those that there is room for.
    sizes |= {d: usual_size(d, axes, mesh) for d, axes in cut.items() if d.runs is not None}
    names = {dim: Dim(dim.name, size) for dim, size in sizes.items()}
    outs = tuple(TensorType(tuple(names.get(d, d) for d in out.dims), out.dtype) for out in node.outs)
    attrs = {key: with_dims(value, names) for key, value in node.attrs.items()}
    return replace(node, uses=tuple(use.relabel(names) for use in node.uses), outs=outs, attrs=attrs)


def _bytes(dims: Dims, itemsize: int) -> int:
    total = itemsize
    for dim in dims:
        total *= dim.size or 0
    return total
