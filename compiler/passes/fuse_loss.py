"""fuse_loss: the head's product, the cross-entropy and their gradients as one operator that takes some rows at a time.

In: a graph with its backward. Out: the same, where a cross-entropy's logits are a product that nothing else reads, and
its cotangent does not wait for the loss (it is a constant, or a weight from the data): then the gradients are computed
in the forward, as the loss is, and no logits are kept.

    z = Σ[D] h w,  loss = cross_entropy(z, target),  dz = cross_entropy_backward(dloss, …),  dh = Σ[V] dz w,
    dw = Σ[rows] dz h    become    loss, dh, dw = linear_cross_entropy(h, w, target, dloss)

Where all rows of a microbatch would be taken at once there is nothing to gain, and nothing is changed. Of low logits dw
is summed in the wide type, which takes as much more memory as D rows of logits: the others must be more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, Level
from ..ir.types import Dims, Node, Phase, TensorType, Use
from ..ops.attributes import dims as dims_of
from ..ops.registry import REGISTRY
from ..ops.shapes import product, statistic, without

_Value = tuple[str, int]


@dataclass(frozen=True)
class FuseLoss:
    """rows: how many are taken at a time. microbatches: into how many the rows will be divided."""

    rows: int = 512
    microbatches: int = 1

    name: ClassVar[str] = "fuse_loss"
    levels: ClassVar[tuple[Level, ...]] = (GRADIENT,)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        finder = _Finder(graph, self.rows, self.microbatches)
        for node in graph.nodes("cross_entropy"):
            head = finder.head(node)
            if head is not None:
                return self(_fused(graph, head, self.rows))  # again for the next: this one moved nodes
        return graph


@dataclass(frozen=True, slots=True)
class _Head:
    """The five nodes that become one, and the later nodes that its cotangent is made by, in order."""

    logits: Node
    loss: Node
    dlogits: Node
    dhidden: Node
    dweight: Node
    hidden: Use
    weight: Use
    dloss: Use
    cone: tuple[str, ...]


class _Finder:
    """Looks for heads in one graph."""

    def __init__(self, graph: Graph, rows: int, microbatches: int) -> None:
        self.graph, self.rows, self.microbatches = graph, rows, microbatches
        self.position = {node.id: position for position, node in enumerate(graph)}
        self.asked = {use.value for use in graph.outputs.values()}
        self.readers: dict[_Value, list[Node]] = {}
        for node in graph:
            for use in node.uses:
                self.readers.setdefault(use.value, []).append(node)

    def head(self, loss: Node) -> _Head | None:
        """The head that ends in this cross-entropy, if it may be fused."""
        logits = self.graph[loss.uses[0].node]
        dlogits = next((n for n in self.readers.get((loss.id, 1), ()) if n.op == "cross_entropy_backward"), None)
        if logits.op != "dot" or dlogits is None or loss.phase is not Phase.FORWARD:
            return None
        classes, over = dims_of(loss.attrs, "V"), dims_of(logits.attrs, "over")
        if len(classes) != 1 or len(over) != 1 or not self._lone(logits, loss, dlogits):
            return None
        weight = next((use for use in logits.uses if set(use.dims) == {*classes, *over}), None)
        hidden = next((use for use in logits.uses if use is not weight), None)
        if weight is None or hidden is None or not self._rows_fit(loss, hidden, over):
            return None
        dloss = self._narrow(dlogits.uses[0])
        cone = self._cone(dloss, self.position[loss.id])
        dhidden, dweight = self._gradients(dlogits, hidden, weight)
        if cone is None or dhidden is None or dweight is None:
            return None
        return _Head(logits, loss, dlogits, dhidden, dweight, hidden, weight, dloss, cone)

    def _lone(self, logits: Node, loss: Node, dlogits: Node) -> bool:
        """Whether nobody else looks at the logits and at what is saved of them."""
        reads = {node.id for node in self.readers[logits.id, 0]}
        saved = {node.id for node in self.readers[loss.id, 1]}
        known = dlogits.uses[1].dims == loss.uses[0].dims == logits.outs[0].dims
        inner = {(logits.id, 0), (loss.id, 1), (dlogits.id, 0)}
        return known and reads == {loss.id, dlogits.id} and saved == {dlogits.id} and not inner & self.asked

    def _rows_fit(self, loss: Node, hidden: Use, over: Dims) -> bool:
        """Whether the loss has the hidden rows in their order, and more of them than are taken at a time."""
        rows, dtype = product(loss.outs[0].dims), hidden.dtype
        if loss.uses[0].dtype is not dtype or loss.outs[0].dtype is not statistic(dtype):
            return False
        in_order = loss.outs[0].dims == without(hidden.dims, over)
        more = 0 if statistic(dtype) is dtype else over[0].size or 0
        return in_order and rows is not None and rows // self.microbatches > self.rows + more

    def _narrow(self, dloss: Use) -> Use:
        """The cotangent before it was spread over rows that are all alike."""
        while self.graph[dloss.node].op == "expand":
            spread = self.graph[dloss.node]
            names = dict(zip(spread.outs[0].dims, dloss.dims, strict=True))
            dloss = spread.uses[0].relabel(names)
        return dloss

    def _gradients(self, dlogits: Node, hidden: Use, weight: Use) -> tuple[Node | None, Node | None]:
        """The two products that alone read dlogits: with the weight, and with the hidden rows."""
        found = self.readers.get((dlogits.id, 0), [])
        if len(found) != 2 or any(node.op != "dot" or dlogits.outs[0].dims not in _labels(node) for node in found):
            return None, None
        return _product(found, dlogits, weight, hidden.dims), _product(found, dlogits, hidden, weight.dims)

    def _cone(self, dloss: Use, loss_at: int) -> tuple[str, ...] | None:
        """What the cotangent is made by behind the loss; None if it needs the loss itself."""
        wanted, found = [dloss.node], dict[str, None]()
        while wanted:
            node = self.graph[wanted.pop()]
            if self.position[node.id] < loss_at or node.id in found:
                continue
            if self.position[node.id] == loss_at or REGISTRY[node.op].effects.writes:
                return None
            found[node.id] = None
            wanted.extend(use.node for use in node.uses)
        return tuple(sorted(found, key=self.position.__getitem__))


def _labels(node: Node) -> list[Dims]:
    return [use.dims for use in node.uses]


def _product(candidates: list[Node], dlogits: Node, other: Use, dims: Dims) -> Node | None:
    """The contraction of dlogits with `other` that has the axes `dims`."""
    for node in candidates:
        reads = {(use.value, use.dims) for use in node.uses}
        wanted = {((dlogits.id, 0), dlogits.outs[0].dims), (other.value, other.dims)}
        if reads == wanted and set(node.outs[0].dims) == set(dims):
            return node
    return None


def _earlier(node: Node) -> Node:
    """A node of the cone, in front of the loss; what is made once a step (a loss scale) still is."""
    return replace(node, phase=Phase.FORWARD, layer=None) if node.phase is Phase.BACKWARD else node


def _fused(graph: Graph, head: _Head, rows: int) -> Graph:
    """The graph with one head as one node, where the loss stood; both products become (transposes of) its results."""
    builder = GraphBuilder.rewriting(graph)
    fused = _node(head, rows)
    gone = {head.logits.id, head.dlogits.id, *head.cone}
    results = {head.dhidden.id: fused.out(1), head.dweight.id: fused.out(2)}
    instead: dict[_Value, Use] = {}
    wide: dict[_Value, Use] = {}
    for node in graph:
        if node.id in gone:
            continue
        if node.id == head.loss.id:
            builder.extend(_earlier(graph[name]) for name in head.cone)
            builder.add(fused)
        elif node.id in results:
            result = _turned(builder, node, results[node.id])
            if result.dtype is node.outs[0].dtype:
                instead[node.id, 0] = result
            else:  # the sum is wide: who wants it so reads it itself
                builder.add(replace(node, op="cast", uses=(result,), attrs={"to": node.outs[0].dtype}))
                wide[node.id, 0] = result
        elif node.op == "cast" and node.uses[0].value in wide and node.outs[0].dtype is wide[node.uses[0].value].dtype:
            instead[node.id, 0] = wide[node.uses[0].value]
        else:
            builder.add(replace(node, uses=tuple(_now(use, instead) for use in node.uses)))
    return builder.finish({name: _now(use, instead) for name, use in graph.outputs.items()}, graph.bodies)


def _turned(builder: GraphBuilder, node: Node, result: Use) -> Use:
    """A result with the axes of the product that it takes the place of."""
    dims = node.outs[0].dims
    if result.dims == dims:
        return result
    name = node.id if result.dtype is node.outs[0].dtype else builder.fresh(f"{node.id}.turned")
    out = TensorType(dims, result.dtype)
    turned = replace(node, id=name, op="transpose", uses=(result,), outs=(out,), attrs={"dims": dims})
    return builder.add(turned).out()


def _node(head: _Head, rows: int) -> Node:
    target = head.loss.uses[1]
    (over,), (classes,) = dims_of(head.logits.attrs, "over"), dims_of(head.loss.attrs, "V")
    uses = (head.hidden, head.weight, target, head.dloss)
    attrs = {"D": over, "V": classes, "rows": rows}
    outs: tuple[TensorType, ...] = REGISTRY["linear_cross_entropy"].infer(tuple(use.type for use in uses), attrs)
    return replace(head.loss, op="linear_cross_entropy", uses=uses, outs=outs, attrs=attrs, body=None)


def _now(use: Use, instead: Mapping[_Value, Use]) -> Use:
    found = instead.get(use.value)
    return use if found is None else Use(found.node, found.output, use.dims, found.dtype)
