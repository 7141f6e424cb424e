"""Which values are zero wherever a `top` did not pick: what `route` may leave out.

In: a graph. Out: for each value the picks outside of which it is zero, with its labels of the pick's dims.
It follows from declarations: an operator that keeps a dim and is linear in operands that are all zero there gives
zero there. Beside that a choice between what is masked and zero, and a softmax or an exp of what is -inf there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.types import Dim, Dims, Node, Use, dims_in
from ..ops.definition import Role
from ..ops.registry import REGISTRY

Value = tuple[str, int]
Picks = Mapping[str, Dims]  # the id of a `top`, and what the value calls its dims, in their order
NOTHING: Picks = {}


@dataclass
class Masks:
    """zero: the picks outside of which a value is zero (or false); low: those outside of which it is -inf."""

    graph: Graph
    zero: dict[Value, Picks] = field(default_factory=dict[Value, Picks])
    low: dict[Value, Picks] = field(default_factory=dict[Value, Picks])

    def __post_init__(self) -> None:
        for node in self.graph:
            if node.op == "top":
                self.zero[node.id, 0] = {node.id: node.outs[0].dims}
            elif len(node.outs) == 1 and any(use.value in self.zero or use.value in self.low for use in node.uses):
                self._node(node)

    def of(self, use: Use, known: dict[Value, Picks] | None = None) -> Picks:
        """The picks outside of which an operand is zero, in the reader's labels."""
        found = (self.zero if known is None else known).get(use.value, NOTHING)
        if not found:
            return NOTHING
        names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
        return {pick: tuple(names[dim] for dim in dims) for pick, dims in found.items()}

    def _node(self, node: Node) -> None:
        for known, found in ((self.zero, self._zeros(node)), (self.low, self._lows(node))):
            kept = {pick: dims for pick, dims in found.items() if set(dims) <= set(node.outs[0].dims)}
            if kept:
                known[node.id, 0] = kept

    def _zeros(self, node: Node) -> Picks:
        uses = node.uses
        if node.op == "where":
            chosen = self.of(uses[0]) if _is(self.graph, uses[2], 0.0) else self._common(uses[0], uses[2])
            return {**chosen, **self._common(*uses[1:])}
        if node.op == "logical_and":
            return {**self.of(uses[0]), **self.of(uses[1])}
        if node.op == "exp":
            return self.of(uses[0], self.low)
        if node.op == "softmax":
            over = tuple(dims_in(node.attrs["S"]))
            low = self.of(uses[0], self.low)
            return {pick: dims for pick, dims in low.items() if over == (self.experts(pick, dims),)}
        if node.op == "cast":
            return self.of(uses[0])
        common: dict[str, Dims] = {}
        for group in REGISTRY[node.op].linear(node):
            common |= self._common(*(uses[place] for place in sorted(group)))
        roles = REGISTRY[node.op].roles(node) if common else {}
        return {pick: dims for pick, dims in common.items() if all(roles.get(dim) is Role.MAP for dim in dims)}

    def experts(self, pick: str, dims: Dims) -> Dim:
        """What the reader calls the dim that is picked along."""
        return dims[[dim == self.graph[pick].attrs["dim"] for dim in self.graph[pick].outs[0].dims].index(True)]

    def _lows(self, node: Node) -> Picks:
        uses = node.uses
        if node.op == "where" and _is(self.graph, uses[2], -math.inf):
            return self.of(uses[0])
        if node.op == "where" and _is(self.graph, uses[1], 0.0) and uses[2].value in self.low:
            return self.of(uses[2], self.low)
        if node.op == "add":
            return {pick: dims for use in uses for pick, dims in self.of(use, self.low).items()}
        return self.of(uses[0], self.low) if node.op in ("sub", "cast", "stop") else NOTHING

    def _common(self, *uses: Use) -> dict[str, Dims]:
        """What masks every one of them; constants that are zero are masked by anything."""
        own = [self.of(use) for use in uses if not _is(self.graph, use, 0.0)]
        if not own:
            return {}
        return {pick: dims for pick, dims in own[0].items() if all(other.get(pick) == dims for other in own)}


def _is(graph: Graph, use: Use, value: float) -> bool:
    node = graph[use.node]
    return node.op == "constant" and node.attrs["value"] == value
