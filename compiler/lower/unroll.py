"""Scans written out: every step's nodes, one after the other.

In: a graph whose scans may have bodies of their own scans. Out: the same without scans: a step's operands are slices,
its carries what the step before left, and what is emitted is stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Dim, Node, TensorType, Use
from ..ops.attributes import dim as dim_attr
from ..ops.scan import emitted, operands, step_dims


def unrolled(graph: Graph, outputs: Mapping[str, Use]) -> tuple[list[Node], Mapping[str, Use]]:
    """The nodes without scans, and the outputs that are asked for."""
    if not graph.nodes("scan"):
        return list(graph), outputs
    writing = _Writing(GraphBuilder.rewriting(graph))
    for node in graph:
        writing.visit(replace(node, uses=tuple(map(writing.resolve, node.uses))), graph.bodies)
    return list(writing.builder), {name: writing.resolve(use) for name, use in outputs.items()}


def without_scans(graph: Graph) -> Graph:
    """The graph with its scans written out: stages of a pipeline may not cut one."""
    nodes, outputs = unrolled(graph, graph.outputs)
    builder = GraphBuilder.rewriting(graph)
    builder.extend(nodes)
    return builder.finish(outputs, graph.bodies)


@dataclass
class _Writing:
    """The new graph; `instead` holds the edge for each result of a scan."""

    builder: GraphBuilder
    instead: dict[tuple[str, int], Use] = field(default_factory=dict[tuple[str, int], Use])

    def resolve(self, use: Use) -> Use:
        found = self.instead.get(use.value)
        return use if found is None else Use(found.node, found.output, use.dims, use.dtype)

    def visit(self, node: Node, bodies: Mapping[str, Graph]) -> None:
        """Adds a node, or the steps of a scan."""
        if node.op != "scan":
            self.builder.add(node)
            return
        assert node.body is not None, "a scan has a body"
        self._steps(node, bodies[node.body])

    def _steps(self, node: Node, body: Graph) -> None:
        dim = dim_attr(node.attrs, "dim")
        assert dim.size is not None, f"dim {dim} has no size; bind it before lowering"
        carries, steps, outer = operands(node)
        sliced = [self._slices(node, use, at, dim) for at, use in enumerate(steps)]
        rows: dict[int, list[Use]] = {}
        order = range(dim.size - 1, -1, -1) if node.attrs["reverse"] else range(dim.size)
        for t in order:
            results = self._step(node, body, t, [*carries, *(parts[t] for parts in sliced), *outer])
            rows[t] = [*results[len(carries) :], *carries]
            carries = tuple(results[: len(carries)])
        for at, use in enumerate(carries):
            self.instead[node.id, at] = use
        count = len(node.outs) - len(carries)
        types = [*emitted(node.attrs), *(use.type for use in operands(node)[0])]
        for at in range(count):
            column = [rows[t][at] for t in range(dim.size)]
            out = self._like(
                node, f"out.{at}", "stack", column, {"dim": dim}, TensorType((dim, *types[at].dims), types[at].dtype)
            )
            self.instead[node.id, len(carries) + at] = out.out()

    def _slices(self, node: Node, use: Use, at: int, dim: Dim) -> list[Use]:
        """The slice of each step."""
        one = TensorType(step_dims(use, dim), use.dtype)
        made = self._like(node, f"step.{at}", "unstack", [use], {"dim": dim}, *[one] * (dim.size or 0))
        return [made.out(t) for t in range(dim.size or 0)]

    def _like(
        self, node: Node, name: str, op: str, uses: Sequence[Use], attrs: Mapping[str, Attr], *outs: TensorType
    ) -> Node:
        """A node where the scan stands."""
        made = replace(
            node, id=self.builder.fresh(f"{node.id}.{name}"), op=op, uses=tuple(uses), outs=outs, attrs=attrs, body=None
        )
        return self.builder.add(made)

    def _step(self, node: Node, body: Graph, t: int, arguments: Sequence[Use]) -> list[Use]:
        """The body once; what it gives, labelled as the body labels it."""
        inside: dict[tuple[str, int], Use] = {}
        given = iter(arguments)
        for inner in body:
            if inner.op == "input":
                inside[inner.id, 0] = next(given)
                continue
            name = self.builder.fresh(f"{node.id}.{t}.{inner.id}")
            uses = tuple(_through(use, inside) for use in inner.uses)
            copy = replace(inner, id=name, uses=uses, phase=node.phase, layer=node.layer)
            self.visit(replace(copy, uses=tuple(map(self.resolve, copy.uses))), body.bodies)
            for index in range(len(inner.outs)):
                inside[inner.id, index] = self.instead.get((name, index)) or copy.out(index)
        return [_through(body.outputs[str(at)], inside) for at in range(len(body.outputs))]


def _through(use: Use, inside: Mapping[tuple[str, int], Use]) -> Use:
    found = inside[use.value]
    return Use(found.node, found.output, use.dims, use.dtype)
