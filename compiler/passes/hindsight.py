"""Which values look at no later position: what is zero, or -inf, wherever a key stands behind its query.

In: a graph and the dims that count positions. Out: for each value the pairs (query's dim, key's dim) beyond whose
diagonal it is zero (or false), and those beyond which it is -inf. It follows from a comparison of two indices, and from
what operators declare: one that keeps both dims and is linear in operands that are zero there gives zero there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.types import Dim, Node, Use
from ..ops.definition import Role
from ..ops.registry import REGISTRY

Value = tuple[str, int]
Pair = tuple[Dim, Dim]  # the query's dim and the key's, as the value calls them
Pairs = frozenset[Pair]
NONE: Pairs = frozenset()
_FORWARD = {"ge": (0, 1), "gt": (0, 1), "le": (1, 0), "lt": (1, 0)}  # which operand counts queries, which keys


@dataclass
class Hindsight:
    """zero: beyond what a value is zero. low: beyond what it is -inf. counts: values that are positions themselves."""

    graph: Graph
    zero: dict[Value, Pairs] = field(default_factory=dict[Value, Pairs])
    low: dict[Value, Pairs] = field(default_factory=dict[Value, Pairs])
    counts: dict[Value, Dim] = field(default_factory=dict[Value, Dim])

    def __post_init__(self) -> None:
        for node in self.graph:
            if self._counts(node):
                (self.counts[node.id, 0],) = node.outs[0].dims
            elif len(node.outs) == 1:
                self._node(node)

    def _counts(self, node: Node) -> bool:
        """Whether a node gives the very position along its dim, not one that is shifted."""
        if node.op == "index":
            return self.graph[node.uses[0].node].op == "start"
        return node.op == "cast" and node.uses[0].value in self.counts

    def zeros(self, use: Use) -> Pairs:
        """Beyond what an operand is zero, in the reader's labels."""
        return self._relabelled(self.zero, use)

    def lows(self, use: Use) -> Pairs:
        """Beyond what an operand is -inf, in the reader's labels."""
        return self._relabelled(self.low, use)

    def _relabelled(self, known: Mapping[Value, Pairs], use: Use) -> Pairs:
        found = known.get(use.value, NONE)
        if not found:
            return NONE
        names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
        return frozenset((names[query], names[key]) for query, key in found)

    def _node(self, node: Node) -> None:
        dims = set(node.outs[0].dims)
        for known, found in ((self.zero, self._zeros(node)), (self.low, self._lows(node))):
            kept = frozenset(pair for pair in found if dims.issuperset(pair))
            if kept:
                known[node.id, 0] = kept

    def _zeros(self, node: Node) -> Pairs:
        uses = node.uses
        match node.op:
            case "ge" | "gt" | "le" | "lt":
                query, key = (uses[place] for place in _FORWARD[node.op])
                if query.value in self.counts and key.value in self.counts and query.dims != key.dims:
                    return frozenset({(query.dims[0], key.dims[0])})
                return NONE
            case "logical_and":
                return self.zeros(uses[0]) | self.zeros(uses[1])
            case "where":
                chosen = self.zeros(uses[0]) if self._is(uses[2], 0.0) else NONE
                return chosen | self._all(uses[1], uses[2])
            case "exp":
                return self.lows(uses[0])
            case "softmax":
                return self.lows(uses[0])
            case "cast":
                return self.zeros(uses[0])
            case _:
                return self._linear(node)

    def _linear(self, node: Node) -> Pairs:
        """Zero where a set of operands is, in which the node is linear; both dims must stay what they are."""
        found = NONE
        for group in REGISTRY[node.op].linear(node):
            found |= self._all(*(node.uses[place] for place in sorted(group)))
        roles = REGISTRY[node.op].roles(node) if found else {}
        return frozenset(pair for pair in found if all(roles.get(dim) is Role.MAP for dim in pair))

    def _lows(self, node: Node) -> Pairs:
        uses = node.uses
        if node.op == "where":
            chosen = self.zeros(uses[0]) if self._is(uses[2], -math.inf) else NONE
            return chosen | (self.lows(uses[1]) & self.lows(uses[2]))
        if node.op == "add":
            return NONE.union(*map(self.lows, uses))
        return self.lows(uses[0]) if node.op in ("sub", "cast", "stop", "split_dim", "merge_dims") else NONE

    def _all(self, *uses: Use) -> Pairs:
        """Beyond what every one of them is zero; a constant zero is so everywhere."""
        own = [self.zeros(use) for use in uses if not self._is(use, 0.0)]
        return own[0].intersection(*own[1:]) if own else NONE

    def _is(self, use: Use, value: float) -> bool:
        node = self.graph[use.node]
        return node.op == "constant" and node.attrs["value"] == value
