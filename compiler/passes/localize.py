"""localize: what one device of a mesh runs, an ordinary graph with that device's sizes.

In: a partitioned graph, the mesh and a coordinate. Out: the same operators on the device's parts: of a dim T that
`tensor` cuts, the device has the dim `T/tensor`. What depends on where a part begins reads a `start` of that dim; a
look-up in a part is masked; terms of a log-sum-exp are joined by a maximum and a sum. Devices whose sizes are equal
have equal graphs: all else that differs between them comes in through starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..ir.graph import Graph, GraphBuilder
from ..ir.layout import Coordinate, Layout, Mesh, local_dim, part
from ..ir.types import Attr, Dim, Dims, DType, Node, Phase, TensorType, Use, dims_in, with_dims
from ..ops import attributes
from ..ops.collectives import changes
from ..ops.definition import Role
from ..ops.offsets import start_operands
from ..ops.registry import REGISTRY
from ..ops.shapes import elements

DEVICE = "device"  # the pseudo-dim whose part `device/tensor` begins at the device's place along the axis


_BY_GROUP = frozenset({"grouped_dot", "grouped_outer"})  # they leave out rows of what they do not have


def localize(graph: Graph, mesh: Mesh, coordinate: Coordinate) -> Graph:
    """The graph of the device at a coordinate. Parameters, states and inputs keep their ids."""
    return localized(graph, mesh, coordinate)[0]


def localized(graph: Graph, mesh: Mesh, coordinate: Coordinate) -> tuple[Graph, Mapping[tuple[str, int], Use]]:
    """The same, and what stands there for the values whose nodes became others."""
    local = _Local(graph, mesh, coordinate)
    return local.run(), local.instead


def starts(local: Graph, graph: Graph, mesh: Mesh, coordinate: Coordinate) -> dict[str, int]:
    """For each `start` of a local graph, by its dim's name, where the device's part begins in a microbatch's whole."""
    sizes = sizes_of(graph)
    found: dict[str, int] = {}
    for node in local.nodes("start"):
        dim = attributes.dim(node.attrs, "dim")
        base, axes = cut_name(dim.name, mesh)
        whole = mesh.size(axes[0]) if base == DEVICE else sizes.get(base, 0)
        found[dim.name] = part(whole, axes, mesh, coordinate)[0]
    return found


def cut_name(name: str, mesh: Mesh) -> tuple[str, tuple[str, ...]]:
    """`T/data/tensor` as T and its axes."""
    pieces = name.split("/")
    at = len(pieces)
    while at > 1 and pieces[at - 1] in mesh.names:
        at -= 1
    return "/".join(pieces[:at]), tuple(pieces[at:])


def sizes_of(graph: Graph) -> dict[str, int]:
    """Every dim's size by its name (0 where it is free)."""
    found: dict[str, int] = {}
    for node in graph:
        dims = [d for use in node.uses for d in use.dims] + [d for out in node.outs for d in out.dims]
        for dim in (*dims, *(d for value in node.attrs.values() for d in dims_in(value))):
            found[dim.name] = dim.size or 0
    return found


@dataclass
class _Local:
    graph: Graph
    mesh: Mesh
    coordinate: Coordinate
    shared: dict[tuple[object, ...], Use] = field(default_factory=dict[tuple[object, ...], Use])

    def run(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        self.bodies = dict(self.graph.bodies)
        self.instead: dict[tuple[str, int], Use] = {}
        for node in self.graph:
            self._node(node)
        return self.builder.finish({name: self._use(use) for name, use in self.graph.outputs.items()}, self.bodies)

    def _node(self, node: Node) -> None:
        if node.op == "partial":
            self._partial(node)
        elif node.op == "all_reduce" and node.attrs["reduction"] == "lse":
            self._join_lse(node)
        elif node.op == "extent":
            size = elements(attributes.dims(node.attrs, "over"))
            attrs: dict[str, Attr] = {"value": size, "dims": (), "dtype": DType.I64}
            self.builder.add(replace(node, op="constant", attrs=attrs, layouts=()))
        elif node.op == "mask":
            self._mask(node)
        elif changes(node) or node.op == "all_reduce":
            self.builder.add(self._collective(node))
        else:
            self._operator(node)

    # ---- uses and dims

    def _layout(self, value: tuple[str, int]) -> Layout:
        return self.graph[value[0]].layouts[value[1]]

    def _use(self, use: Use) -> Use:
        """The edge to the device's part, its axes named after the reader's."""
        dims = self._layout(use.value).local_dims(use.dims, self.mesh, self.coordinate)
        found = self.instead.get(use.value)
        return Use(found.node, found.output, dims, use.dtype) if found else Use(use.node, use.output, dims, use.dtype)

    def _cut(self, node: Node) -> dict[Dim, tuple[str, ...]]:
        """The dims that the node has parts of, and which axes cut them."""
        found: dict[Dim, tuple[str, ...]] = {}
        pairs = [(use.dims, self._layout(use.value)) for use in node.uses]
        pairs += [(out.dims, layout) for out, layout in zip(node.outs, node.layouts, strict=True)]
        for dims, layout in pairs:
            for dim, axes in zip(dims, layout.shards, strict=True):
                known = found.setdefault(dim, axes)
                assert known == axes, f"{node.id}: {dim} is cut by {known} and by {axes}"
        return {dim: axes for dim, axes in found.items() if axes}

    def _dim(self, dim: Dim, axes: tuple[str, ...]) -> Dim:
        return local_dim(dim, axes, self.mesh, self.coordinate)

    # ---- collectives

    def _collective(self, node: Node) -> Node:
        use, (layout,) = node.uses[0], node.layouts
        before = dict(zip(use.dims, self._layout(use.value).shards, strict=True))
        after = dict(zip(node.outs[0].dims, layout.shards, strict=True))
        attrs = dict(node.attrs)
        pairs = (("split", "split_into"), ("join", "join_into")) if node.op == "all_to_all" else (("dim", "into"),)
        for old, new in pairs if changes(node) else ():
            dim = attributes.dim(node.attrs, old)
            attrs[old], attrs[new] = self._dim(dim, before[dim]), self._dim(dim, after[dim])
        out = TensorType(layout.local_dims(node.outs[0].dims, self.mesh, self.coordinate), node.outs[0].dtype)
        return replace(node, uses=tuple(map(self._use, node.uses)), outs=(out,), attrs=attrs, layouts=())

    # where(device = 0, x, 0): the first device along the axis has the value, the others owe nothing
    def _partial(self, node: Node) -> None:
        axis = attributes.text(node.attrs, "axis")
        write = _Writer(self.builder, node)
        first = write("eq", self._start(Dim(DEVICE, self.mesh.size(axis)), (axis,)), write.integer(0))
        x = self._use(node.uses[0])
        self.instead[node.id, 0] = write("where", first, x, write.constant(0, x.dtype))

    # m = max of lse_i over devices,  lse = m + log(sum of exp(lse_i - m) over devices)
    def _join_lse(self, node: Node) -> None:
        axis = attributes.text(node.attrs, "axis")
        write = _Writer(self.builder, node)
        x = self._use(node.uses[0])
        top = write("all_reduce", x, axis=axis, reduction="max")
        finite = write(
            "where", write("gt", top, write.constant(float("-inf"), x.dtype)), top, write.constant(0, x.dtype)
        )
        total = write("all_reduce", write("exp", write("sub", x, finite)), axis=axis, reduction="sum")
        self.instead[node.id, 0] = write("add", finite, write("log", total))

    # where(ids < E, x, 0): in a list that has fewer rows than another, ids beyond the last expert stand
    def _mask(self, node: Node) -> None:
        """0 beside the rows that there are."""
        write, (x, ids) = _Writer(self.builder, node), map(self._use, node.uses)
        there = write("lt", ids, write.integer(_sorted_by(node).size or 0))
        self.instead[node.id, 0] = write.ordered(write("where", there, x, write.constant(0, x.dtype)), x.dims)

    def _start(self, dim: Dim, axes: tuple[str, ...]) -> Use:
        """Where this device's part of a dim begins."""
        mine = self._dim(dim, axes)
        key = ("start", mine)
        if key not in self.shared:
            out = REGISTRY["start"].infer((), {"dim": mine})
            node = Node(self.builder.fresh(f"start.{mine}"), "start", (), out, {"dim": mine}, Phase.PREPARE)
            self.shared[key] = self.builder.add(node).out()
        return self.shared[key]

    # ---- operators

    def _operator(self, node: Node) -> None:
        cut = self._cut(node)
        names = {dim: self._dim(dim, axes) for dim, axes in cut.items()}
        uses = [self._use(use) for use in node.uses]
        for dim, place in start_operands(node).items():
            if dim in cut:
                uses[place] = self._shifted(node, uses[place], dim, cut[dim])
        outs = tuple(
            TensorType(layout.local_dims(out.dims, self.mesh, self.coordinate), out.dtype)
            for out, layout in zip(node.outs, node.layouts, strict=True)
        )
        attrs = {key: value if key == "below" else with_dims(value, names) for key, value in node.attrs.items()}
        body = self._body(node, names) if node.op == "scan" and names else node.body
        local = replace(node, uses=tuple(uses), outs=outs, attrs=attrs, body=body, layouts=())
        looked = [d for d, role in REGISTRY[node.op].roles(node).items() if role is Role.GATHER and d in cut]
        if looked and any(d.runs is not None and d.runs.by == looked[0] for d in cut) and node.op in _BY_GROUP:
            ids = _Writer(self.builder, node)("sub", uses[-1], self._start(looked[0], cut[looked[0]]))
            self.builder.add(replace(local, uses=(*uses[:-1], ids)))
        elif looked:
            self._look_up(local, looked[0], cut[looked[0]])
        else:
            self.builder.add(local)

    def _shifted(self, node: Node, use: Use, dim: Dim, axes: tuple[str, ...]) -> Use:
        """The start of this device's part, where the graph has that of the whole."""
        start = self._start(dim, axes)
        source = self.builder[use.node]
        whole = source.op == "start" or (source.op == "constant" and source.attrs["value"] == 0)
        return start if whole else _Writer(self.builder, node)("add", use, start)

    # ids that lie elsewhere look up the nearest place that is here (so what ascends still does), and count as 0
    def _look_up(self, node: Node, dim: Dim, axes: tuple[str, ...]) -> None:
        loss = node.op == "cross_entropy_backward"
        write, ids, mine = _Writer(self.builder, node), node.uses[2 if loss else -1], self._dim(dim, axes)
        last = write.integer(elements((mine,)) - 1)
        shifted = write("sub", ids, self._start(dim, axes))
        safe = write("minimum", write("maximum", shifted, write.integer(0)), last)
        inside, zero = write("eq", shifted, safe), write.constant(0, node.outs[0].dtype)
        if loss:
            self._loss_backward(node, inside, safe, mine)
            return
        values, *others, _ = node.uses
        kept = mine in node.outs[0].dims  # then each part has its own rows of the result
        if kept:
            values = write("where", inside, values, zero)
        attrs: dict[str, Any] = dict(node.attrs)
        found = write(node.op, values, *others, safe, **attrs)
        self.instead[node.id, 0] = found if kept else write("where", inside, found, zero)

    # dlogits = dloss exp(logits - lse) - [V = target] dloss, the second term where the target is
    def _loss_backward(self, node: Node, inside: Use, safe: Use, mine: Dim) -> None:
        write = _Writer(self.builder, node)
        dloss, logits, _, lse = node.uses
        every = write("logsumexp_backward", dloss, logits, lse, V=(mine,))
        kept = write("where", inside, dloss, write.constant(0, dloss.dtype))
        narrow = kept if dloss.dtype is logits.dtype else write("cast", kept, to=logits.dtype)
        hit = write("scatter_add", narrow, safe, dim=mine, dims=logits.dims)
        self.instead[node.id, 0] = write("sub", every, hit)

    def _body(self, node: Node, names: Mapping[Dim, Dim]) -> str:
        """The body of a scan that runs on parts of its rows."""
        assert node.body is not None, "a scan has a body"
        body = self.graph.bodies[node.body]
        known: dict[Dim, Dim] = {}
        along = node.attrs["dim"]
        for use, inner in zip(node.uses, body.nodes("input"), strict=True):
            dims = [d for d in use.dims if d != along] if len(use.dims) > len(inner.outs[0].dims) else use.dims
            for outside, inside in zip(dims, inner.outs[0].dims, strict=True):
                if outside in names:
                    known[inside] = names[outside]
        key = f"{node.body}/{'/'.join(sorted(d.name for d in names.values()))}"
        self.bodies[key] = _renamed(body, known)
        return key


def _sorted_by(node: Node) -> Dim:
    """What the rows of a node are sorted by."""
    runs = attributes.dim(node.attrs, "dim").runs
    assert runs is not None, f"{node.id}: what is not sorted is cut by the chunk rule"
    return runs.by


def _renamed(body: Graph, names: Mapping[Dim, Dim]) -> Graph:
    """A body with some dims called and sized otherwise."""
    builder = GraphBuilder.rewriting(body)
    for node in body:
        outs = tuple(TensorType(tuple(names.get(d, d) for d in out.dims), out.dtype) for out in node.outs)
        attrs = {key: with_dims(value, names) for key, value in node.attrs.items()}
        builder.add(replace(node, uses=tuple(use.relabel(names) for use in node.uses), outs=outs, attrs=attrs))
    for name, use in body.outputs.items():
        builder.output(name, use.relabel(names))
    for key, inner in body.bodies.items():
        builder.body(key, inner)
    return builder.finish()


@dataclass(frozen=True)
class _Writer:
    """Writes the operators that a node becomes on a device, where it stood."""

    builder: GraphBuilder
    node: Node

    def __call__(self, op: str, *uses: Use, **attrs: Attr) -> Use:
        given: dict[str, Any] = attrs
        outs = REGISTRY[op].infer(tuple(use.type for use in uses), given)
        name = self.builder.fresh(f"{self.node.id}.{op}")
        made = replace(self.node, id=name, op=op, uses=uses, outs=outs, attrs=attrs, body=None, layouts=())
        return self.builder.add(made).out()

    def constant(self, value: float, dtype: DType) -> Use:
        """A scalar."""
        return self("constant", value=value, dims=(), dtype=dtype)

    def ordered(self, use: Use, dims: Dims) -> Use:
        """The axes in this order."""
        return use if use.dims == dims else self("transpose", use, dims=dims)

    def integer(self, value: int) -> Use:
        """An integer scalar."""
        return self.constant(value, DType.I64)
