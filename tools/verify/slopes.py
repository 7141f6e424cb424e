"""What differentiate is held to: differences of the loss, value by value.

    ⟨dL/dv, d⟩ = (L(v + h d) − L(v − h d)) / 2h     from h and h/2 (Richardson), error O(h⁴)

In: the graph with the loss, and the graph with its gradients. Out: the first cotangent that is not the loss's slope.
Any value can be moved, not only parameters: so the first rule that is wrong is found, and not what it did to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...compiler.interpret import interpret
from ...compiler.ir.graph import Graph, GraphBuilder
from ...compiler.ir.types import Attr, Node, Phase, Use
from ...compiler.ops.definition import Array
from .forms import Alone
from .values import Gap, Value

SLOPE = 1e-5  # of ‖gradient‖ · ‖direction‖: what differences are good for
_LENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)  # of h: the next one where a kink lies between
_MOVED = "verify.move"


@dataclass(frozen=True)
class Slopes:
    """The loss around the leaves. loss: the output that is differentiated."""

    before: Alone
    after: Alone
    loss: str

    def parameters(self) -> Iterator[Gap]:
        """Of each parameter's gradient, how far it is from the loss's slope."""
        for name, use in self.after.graph.outputs.items():
            if name.startswith("grad/"):
                yield self._gap((name.removeprefix("grad/"), 0), use)

    def first_wrong(self) -> tuple[Node, Gap] | None:
        """The first node of the backward whose value is not the slope that its name says."""
        for node in self.after.graph:
            value = self._slope_of(node)
            if value is not None:
                gap = self._gap(value, node.out())
                if gap.error > SLOPE:
                    return node, gap
        return None

    def _slope_of(self, node: Node) -> Value | None:
        """`grad/x` is the slope along x, `grad/x:1` along its second result."""
        if node.phase is not Phase.BACKWARD or not node.id.startswith("grad/") or len(node.outs) != 1:
            return None
        name, colon, number = node.id.removeprefix("grad/").rpartition(":")
        name, index = (name, int(number)) if colon and number.isdecimal() else (node.id.removeprefix("grad/"), 0)
        known = name in self.before.graph and index < len(self.before.graph[name].outs)
        return (name, index) if known and self.before.graph[name].outs[index] == node.outs[0] else None

    def _gap(self, value: Value, gradient: Use) -> Gap:
        """Along a direction that has the gradient's own in it, and something of every other."""
        found = self.after.trace.parts[-1][gradient.value]
        rng = np.random.default_rng(len(value[0]))
        direction = _unit(rng.normal(size=found.shape)) + _unit(found)
        along = float(np.sum(found * direction))
        size = float(np.linalg.norm(found)) * float(np.linalg.norm(direction))
        best = Gap(value, float("inf"), np.asarray(np.nan), np.asarray(along))
        moved = self._moved(value)
        for length in _LENGTHS:
            wanted, rounding = self._slope(moved, direction, length)
            error = max(0.0, abs(along - wanted) - rounding) / max(size, abs(wanted), 1e-12)
            if error < best.error:
                best = Gap(value, error, np.asarray(wanted), np.asarray(along), "slope of the loss along a direction")
            if error <= SLOPE / 10:
                break
        return best

    def _slope(self, moved: Graph, direction: Array, length: float) -> tuple[float, float]:
        """The slope, and what rounding of the loss may make of it."""

        def loss(step: float) -> float:
            frozen = {f"{name}{_MOVED}": value for name, value in self._frozen().items()}
            given = {**self.before.leaves, **frozen, _MOVED: step * direction}
            return float(interpret(moved, given)[self.loss])

        def slope(step: float) -> float:
            return (loss(step) - loss(-step)) / (2 * step)

        rounding = 50 * np.finfo(np.float64).eps * abs(float(self.before.trace.results[self.loss])) / length
        return (4 * slope(length / 2) - slope(length)) / 3, rounding

    def _frozen(self) -> Mapping[str, Array]:
        """What no gradient goes through keeps its value."""
        return {node.id: self.before.trace.parts[-1][node.id, 0] for node in self.before.graph.nodes("stop")}

    def _moved(self, value: Value) -> Graph:
        """The loss alone, with something added to one value."""
        graph = self.before.graph
        wanted = graph.ancestors(graph.outputs[self.loss].node) | {graph.outputs[self.loss].node}
        builder = GraphBuilder(graph.name)
        new: Use | None = None

        def now(use: Use) -> Use:
            return use if new is None or use.value != value else Use(new.node, 0, use.dims, use.dtype)

        for node in graph:
            if node.id not in wanted:
                continue
            if node.op == "stop":
                builder.add(_given(node, f"{node.id}{_MOVED}", node.id, 0))
                continue
            builder.add(replace(node, uses=tuple(map(now, node.uses))))
            if node.id == value[0]:
                move = builder.add(_given(node, _MOVED, _MOVED, value[1]))
                out = node.outs[value[1]]
                name, uses = f"{_MOVED}.sum", (node.out(value[1]), move.out())
                new = builder.add(Node(name, "add", uses, (out,), {}, node.phase)).out()
        builder.output(self.loss, now(graph.outputs[self.loss]))
        for key, body in graph.bodies.items():
            builder.body(key, body)
        return builder.finish()


def _given(node: Node, name: str, node_id: str, output: int) -> Node:
    """An input in the place of a node's result."""
    out = node.outs[output]
    attrs: dict[str, Attr] = {"name": name, "below": None, "dims": out.dims, "dtype": out.dtype}
    return Node(node_id, "input", (), (out,), attrs, node.phase)


def _unit(value: Array) -> Array:
    size = float(np.linalg.norm(value))
    return value / size if size else np.zeros_like(value)
