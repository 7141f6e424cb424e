"""Builder: writes nodes into a graph, each typed by its operator's own shape rule.

In: operator names, edges, attributes, and a context (instance path, phase, layer, origin) that new nodes get. Out:
edges. The elaborator, the passes and every gradient rule write with it. Operands that do not fit raise `TypeRuleError`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Dim, Dims, DType, Layer, Node, Origin, Phase, Use
from .definition import TypeRuleError
from .registry import op as find


@dataclass(frozen=True, slots=True)
class Context:
    """What a new node is told about where it belongs."""

    path: str = ""
    phase: Phase = Phase.FORWARD
    layer: Layer | None = None
    origin: tuple[Origin, ...] = ()


class Builder:
    """Implements the `Build` protocol over a `GraphBuilder`.

    A new node's id is `path.hint` (or `path.op` without a hint), made unique; parameters, states and clocks have theirs
    as given.
    """

    def __init__(self, graph: GraphBuilder, context: Context | None = None) -> None:
        self.graph = graph
        self.context = context or Context()

    @contextmanager
    def within(self, **changes: Any) -> Generator[None, None, None]:
        """`with b.within(path = "blocks.0", phase = Phase.UPDATE):` nodes made inside belong there."""
        before, self.context = self.context, replace(self.context, **changes)
        try:
            yield
        finally:
            self.context = before

    def __call__(
        self,
        op: str,
        *operands: Use,
        hint: str | None = None,
        body: str | None = None,
        **attrs: Attr,
    ) -> tuple[Use, ...]:
        """Apply an operator; an edge for each result."""
        node = self._make(op, operands, attrs, hint=hint, body=body)
        return tuple(node.out(i) for i in range(len(node.outs)))

    def node(self, op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr) -> Node:
        """Apply an operator; the node."""
        return self._make(op, operands, attrs, hint=hint, body=body)

    def _make(
        self,
        op: str,
        operands: tuple[Use, ...],
        attrs: Mapping[str, Attr],
        *,
        hint: str | None = None,
        body: str | None = None,
        at: str | None = None,
    ) -> Node:
        definition = find(op)
        assert attrs.keys() == definition.attrs.keys(), (
            f"{op} has the attributes {sorted(definition.attrs)}, got {sorted(attrs)}"
        )
        try:
            outs = definition.infer(tuple(u.type for u in operands), attrs)
        except TypeRuleError as fault:
            raise TypeRuleError(f"{op}: {fault.message}", fault.found) from None
        c = self.context
        name = hint or op
        node_id = at or self.graph.fresh(f"{c.path}.{name}" if c.path else name)
        frozen = MappingProxyType(dict(attrs))
        return self.graph.add(Node(node_id, op, operands, outs, frozen, c.phase, body, c.path, c.layer, c.origin))

    def one(self, op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr) -> Use:
        """Apply an operator that has one result."""
        given: dict[str, Any] = attrs
        (result,) = self(op, *operands, hint=hint, body=body, **given)
        return result

    def constant(self, value: float | bool, dtype: DType, dims: Dims = (), hint: str | None = None) -> Use:
        """A tensor that has `value` everywhere."""
        return self.one("constant", hint=hint, value=value, dims=dims, dtype=dtype)

    def parameter(self, path: str, dims: Dims, dtype: DType, init: Attr = ("zeros",), trained: bool = True) -> Use:
        """A parameter, whose id is its path in the model."""
        with self.within(phase=Phase.PREPARE):
            attrs: dict[str, Attr] = {"dims": dims, "dtype": dtype, "init": init, "trained": trained}
            return self._make("parameter", (), attrs, at=path).out()

    def state(
        self, name: str, dims: Dims, dtype: DType, init: Attr = ("zeros",), of: str | None = None, role: str = "m"
    ) -> Use:
        """A tensor that lives across steps beside the parameters, by its id (`adamw.m/<parameter>`)."""
        with self.within(phase=Phase.PREPARE):
            attrs: dict[str, Attr] = {"dims": dims, "dtype": dtype, "init": init, "of": of, "role": role}
            return self._make("state", (), attrs, at=name).out()

    def input(self, name: str, dims: Dims, dtype: DType, below: Dim | None = None) -> Use:
        """A tensor of each microbatch, given under its name."""
        return self.one("input", hint=name, name=name, below=below, dims=dims, dtype=dtype)

    def clock(self, op: str) -> Use:
        """`step` or `seed`: one node a graph."""
        if op in self.graph:
            return self.graph[op].out()
        with self.within(phase=Phase.PREPARE):
            return self._make(op, (), {}, at=op).out()

    def output(self, name: str, use: Use) -> None:
        """Ask for a value under a name."""
        self.graph.output(name, use)

    def finish(self) -> Graph:
        """The graph; the builder must not be used after."""
        return self.graph.finish()
