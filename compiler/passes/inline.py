"""inline: a kernel function that the fused kernel cannot compute becomes its body, its meaning in std.

In: a graph with kernel functions as nodes. Out: the same with the body's nodes in the place of each node that `covers`
refuses (or of every one, with `all`). It runs before differentiation, so that the body's own gradients are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOSS, MODEL, Level
from ..ir.types import Dim, Node, TensorType, Use, dims_in, with_dims
from ..ops.foreign import FOREIGN, package_of
from ..ops.registry import REGISTRY


@dataclass(frozen=True)
class Inline:
    """all: whether every kernel function becomes its body. only: these operators alone; empty: any.

    kernels: the packages whose foreign kernels compute instead of their bodies; those alone that have a `backward`, if
    there will be gradients.
    """

    all: bool = False
    only: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    gradients: bool = False

    name: ClassVar[str] = "inline"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        return _Inlining(graph, self._chosen, self._runs).rewrite()

    def _runs(self, node: Node) -> bool:
        """Whether a foreign kernel takes the place of its meaning."""
        if node.op != FOREIGN or self.all or package_of(node) not in self.kernels:
            return False
        return not self.gradients or node.attrs["backward"] is not None

    def _chosen(self, node: Node) -> bool:
        if node.body is None or REGISTRY[node.op].kernel is None or (self.only and node.op not in self.only):
            return False
        return self.all or not REGISTRY[node.op].covers(node)


@dataclass
class _Inlining:
    """Rebuilds the graph; `instead` holds the edge for each result of a node that is gone."""

    graph: Graph
    chosen: Callable[[Node], bool]
    runs: Callable[[Node], bool]
    instead: dict[tuple[str, int], Use] = field(default_factory=dict[tuple[str, int], Use])

    def rewrite(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        self.sizes = {name: dim.size for name, dim in self.graph.dims().items()}
        self.bodies: dict[str, Graph] = {}
        for node in self.graph:
            self._visit(replace(node, uses=tuple(map(self._resolve, node.uses))), self.graph.bodies)
        return self.builder.finish({name: self._resolve(use) for name, use in self.graph.outputs.items()}, self.bodies)

    def _resolve(self, use: Use) -> Use:
        found = self.instead.get(use.value)
        if found is None:
            assert use.node in self.builder, f"{use.node}:{use.output} is a saved result that its body does not give"
            return use
        return Use(found.node, found.output, use.dims, use.dtype)

    def _visit(self, node: Node, bodies: Mapping[str, Graph]) -> None:
        """Adds a node with its operands resolved; `bodies` are those of the graph that it comes from."""
        if self.runs(node):
            self.builder.add(replace(node, body=None))
            return
        if self.chosen(node):
            assert node.body is not None, "only a kernel function has a body"
            self._put(node, bodies[node.body])
            return
        if node.body is not None:
            body = bodies[node.body]
            if REGISTRY[node.op].kernel is None:  # a scan runs its body as it stands
                body = _Inlining(body, self.chosen, self.runs).rewrite()
            node = replace(node, body=self._keep(node.body, body))
        self.builder.add(node)

    def _keep(self, key: str, body: Graph) -> str:
        """The key under which a body stands in the new graph; another body may have taken its own."""
        number, wanted = 0, key
        while wanted in self.bodies and self.bodies[wanted] is not body and self.bodies[wanted] != body:
            number += 1
            wanted = f"{key}.{number}"
        self.bodies[wanted] = body
        return wanted

    def _put(self, node: Node, body: Graph) -> None:
        """The body's nodes, their inputs the node's operands, their dims the caller's."""
        dims = _caller_dims(node, body, self.sizes)
        for dim in dims.values():
            self.sizes.setdefault(dim.name, dim.size)
        inside: dict[tuple[str, int], Use] = {}
        arguments = iter(node.uses)
        for inner in body:
            if inner.op == "input":
                inside[inner.id, 0] = next(arguments)
                continue
            name = self.builder.fresh(f"{node.id}.{inner.id}")
            copy = _copy(inner, node, name, dims, inside)
            self._visit(copy, body.bodies)
            for index in range(len(inner.outs)):
                inside[inner.id, index] = self.instead.get((name, index)) or copy.out(index)
        for index in range(len(node.outs)):
            if str(index) in body.outputs:
                use = body.outputs[str(index)]
                self.instead[node.id, index] = _through(use.relabel(dims), inside)


def _copy(inner: Node, node: Node, name: str, dims: Mapping[Dim, Dim], inside: Mapping[tuple[str, int], Use]) -> Node:
    """A node of the body as a node of the caller: its place in the model is the caller's."""
    uses = tuple(_through(use.relabel(dims), inside) for use in inner.uses)
    outs = tuple(TensorType(tuple(dims.get(d, d) for d in out.dims), out.dtype) for out in inner.outs)
    attrs = {key: with_dims(value, dims) for key, value in inner.attrs.items()}
    if "key" in attrs:  # of random numbers: a body is shared, its draws are each caller's own
        attrs["key"] = name
    at = replace(inner, id=name, uses=uses, outs=outs, attrs=attrs, phase=node.phase, path=node.path, layer=node.layer)
    return replace(at, origin=inner.origin + node.origin)


def _through(use: Use, inside: Mapping[tuple[str, int], Use]) -> Use:
    found = inside[use.value]
    return Use(found.node, found.output, use.dims, use.dtype)


def _caller_dims(node: Node, body: Graph, sizes: Mapping[str, int | None]) -> dict[Dim, Dim]:
    """The body's dims -> the caller's: those of its inputs by position, its own under a name that is free."""
    found: dict[Dim, Dim] = {}
    inputs = body.nodes("input")
    assert len(inputs) == len(node.uses), f"{node.id} has {len(node.uses)} operands, its body {len(inputs)} inputs"
    for use, inner in zip(node.uses, inputs, strict=True):
        for outside, inside in zip(use.dims, inner.outs[0].dims, strict=True):
            assert found.setdefault(inside, outside) == outside, f"{inside} of {node.body} is two dims of {node.id}"
    taken = {dim.name for dim in found.values()}
    for dim in _every_dim(body):
        if dim not in found:
            clash = dim.name in taken or sizes.get(dim.name, dim.size) != dim.size
            found[dim] = replace(dim, name=f"{node.id}.{dim.name}") if clash else dim
    return found


def _every_dim(body: Graph) -> Iterator[Dim]:
    yield from body.dims().values()
    for node in body:
        for value in node.attrs.values():
            yield from dims_in(value)
