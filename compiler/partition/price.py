"""What a strategy takes on the machine: the time of a node's largest part, and of a collective along an axis.

In: a node, a strategy, a cluster. Out: seconds. A node is priced by its operator's own cost in the sizes of the device
that has most; a collective by the links of its axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..cost.cluster import Cluster
from ..cost.flops import ONCE_A_STEP
from ..cost.roofline import node_time
from ..ir.graph import Graph
from ..ir.layout import FACTOR, Axes, Layout, Mesh, Reduction, largest_size, usual_size
from ..ir.types import Dim, Dims, Node, Phase, TensorType, with_dims
from ..ops.collectives import COLLECTIVES
from .relayout import Move, Paths
from .strategies import On, Strategy, cut_axes

_PREFER_SMALL = 0.05  # of the time to write a result: what decides between equals is who holds less
_PREFER_FIRST = 0.005  # the same of a copy on the way to or from a message, which must not outweigh a message
_IDLE = 4  # how much worse it is to cut a dim that is shorter than the axis
# What is felt of a gather for the backward of what awaits no gradient: it goes on beside what is computed there, and
# takes of its units and its bandwidth. An estimate.
BESIDE = 1 / 3
_NO_MESSAGE_S = 1e-9  # a change of layout without a message is not quite nothing, so that none is made in vain


Ons = tuple[On, ...]  # what an axis does to a value, factor by factor


@dataclass(frozen=True)
class Prices:
    """A mesh on a cluster. What has been priced is remembered: many nodes and messages of a step are alike."""

    mesh: Mesh
    cluster: Cluster
    _known: dict[object, float] = field(default_factory=dict[object, float], init=False, repr=False, compare=False)

    @cached_property
    def paths(self) -> Paths:
        """The cheapest ways between layouts."""
        return Paths(self.mesh, self.move_s)

    def node_s(self, node: Node, strategy: Strategy) -> float:
        """Seconds of the largest part of a node, and of the messages inside of one that is taken apart."""
        cut = cut_axes(strategy, self.mesh)
        types = tuple([use.dims for use in node.uses]), tuple([use.dtype for use in node.uses]), node.outs
        taken = tuple([option.apart for option in strategy])
        key = node.op, *types, tuple(node.attrs.items()), tuple(cut.items()), taken
        if key not in self._known:
            self._known[key] = self._node_s(node, strategy, cut)
        return self._known[key]

    def _node_s(self, node: Node, strategy: Strategy, cut: Mapping[Dim, Axes]) -> float:
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
        seconds += self.apart_s(
            at if move.op == "reduce_scatter" else move.dim, layout.elements(dims, self.mesh) * itemsize
        )
        return seconds * (_IDLE if idle else 1)

    def apart_s(self, at: int | None, bytes_: float) -> float:
        """What decides between equals when parts are gathered or scattered: those along the first dim lie in one piece,
        others are copied."""
        return _PREFER_FIRST * bytes_ / self.cluster.machine.bandwidth_bytes_per_s if at else 0.0

    def collective_s(self, op: str, axis: str, bytes_: float) -> float:
        """Seconds of a collective, its launch included; of a change without a message nearly nothing."""
        if op not in COLLECTIVES or self.mesh.size(axis) == 1:
            return _NO_MESSAGE_S + 1e-3 * bytes_ / self.cluster.machine.bandwidth_bytes_per_s
        if (op, axis, bytes_) not in self._known:
            seconds = self.cluster.collective_s(op, bytes_, self.mesh, axis) + self.cluster.machine.launch_s
            self._known[op, axis, bytes_] = seconds
        return self._known[op, axis, bytes_]

    def changes_s(self, factors: Axes, ons: Ons, targets: Ons, size: int, dims: Dims) -> float:
        """Seconds of a change along an axis: along all its factors at once where all do the same, else one by one."""
        if len({*zip(ons, targets, strict=True)}) == 1:
            return self.change_s(factors[0].partition(FACTOR)[0], ons[0], targets[0], size, dims)
        held, total = size, 0.0
        for axis, on in zip(factors, ons, strict=True):
            held //= self.mesh.size(axis) if isinstance(on, int) else 1
        changes = [one for one in zip(factors, ons, targets, strict=True) if one[1] not in (one[2], None)][::-1]
        # What makes the value shorter comes first; the last factor that cuts a dim is gathered first.
        for axis, on, to in sorted(changes, key=lambda one: (one[2] is None, not isinstance(one[1], Reduction))):
            parts = self.mesh.size(axis)
            total += self.change_s(axis, on, to, held * (parts if isinstance(on, int) else 1), dims)
            held = held * parts if isinstance(on, int) and to is None else held
            held = held // parts if isinstance(on, Reduction) and isinstance(to, int) else held
        return total

    def change_s(self, axis: str, on: On, target: On, size: int, dims: Dims) -> float:
        """Seconds of a change along one axis, of a value of which the other axes leave so many bytes.

        Sorted rows come out of a sum and into one: they are neither scattered nor gathered.
        """
        part = size / self.mesh.size(axis)
        if isinstance(on, Reduction):
            scattered = isinstance(target, int) and on is Reduction.SUM and dims[target].runs is None
            at = target if isinstance(target, int) and scattered else None
            return self.collective_s("all_reduce" if at is None else "reduce_scatter", axis, size) + self.apart_s(
                at, size
            )
        if isinstance(target, int):
            return self.collective_s("all_to_all", axis, part)
        if isinstance(on, int) and dims[on].runs is not None:
            return self.collective_s("spread" if target is Reduction.SUM else "all_reduce", axis, size)
        at = on if isinstance(on, int) else None
        return self.collective_s("all_gather", axis, size) + self.apart_s(at, size)

    def keep_s(self, bytes_: float) -> float:
        """What decides between equals when a value is kept for the backward."""
        return _PREFER_SMALL * bytes_ / self.cluster.machine.bandwidth_bytes_per_s

    def part_bytes(self, out: TensorType, layout: Layout) -> int:
        """The most that a device holds of a value."""
        return layout.elements(out.dims, self.mesh) * out.dtype.itemsize_bytes


def laid_out_s(graph: Graph, prices: Prices) -> float:
    """Seconds of a step that is laid out, message by message, where the integer program has terms axis by axis.

    Each node in the sizes of the device that has most, each collective as it is sent; nothing overlaps.
    """
    machine, total, early = prices.cluster.machine, 0.0, awaiting_no_gradient(graph)
    for node in graph:
        times = 1 if node.phase in ONCE_A_STEP else graph.microbatches
        laid = [(use.dims, graph[use.node].layouts[use.output]) for use in node.uses]
        laid += [(out.dims, layout) for out, layout in zip(node.outs, node.layouts, strict=True)]
        if node.op in COLLECTIVES:
            dims, layout = laid[-1 if node.op == "all_gather" else 0]
            bytes_ = layout.elements(dims, prices.mesh) * node.outs[0].dtype.itemsize_bytes
            beside = node.op == "all_gather" and node.phase is Phase.BACKWARD and node.id in early
            total += times * (BESIDE if beside else 1.0) * prices.collective_s(node.op, str(node.attrs["axis"]), bytes_)
        else:
            cut = {dim: axes for dims, layout in laid for dim, axes in zip(dims, layout.shards, strict=True) if axes}
            total += times * node_time(largest(node, cut, prices.mesh), machine).seconds
    return total


def awaiting_no_gradient(nodes: Iterable[Node], of: Mapping[str, str] | None = None) -> frozenset[str]:
    """What the forward makes, and what the backward makes again of that. `of`: the class of each node, for nodes that
    stand for one."""
    found: dict[str, bool] = {}
    for node in nodes:
        sources = [use.node if of is None else of[use.node] for use in node.uses]
        again = bool(sources) and all(found.get(one, False) for one in sources)
        found[node.id] = node.phase in (Phase.FORWARD, Phase.PREPARE) or (node.phase is Phase.BACKWARD and again)
    return frozenset(name for name, early in found.items() if early)


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
