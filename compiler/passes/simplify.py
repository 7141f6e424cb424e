"""simplify: constants folded, common subexpressions merged, identities dropped, dead code removed.

In: any graph. Out: one with the same outputs and writes and no more nodes. One walk in topological order rewrites each
node by the local rules (`rules.py`) until none applies, then merges it with an equal one; a walk back from the outputs
and the writes finds what is still needed.

Two nodes are equal if operator, operands, attributes, phase and layer are: phases run at different times, and layers
are to stay alike, as one module serves them all. What is random, or writes, or has an identity of its own is never
merged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, LOSS, MODEL, STEP, Level
from ..ir.types import Node, Phase, Use
from ..ops.registry import REGISTRY
from .rules import AFTER_GRADIENTS, RULES, Rule

_OWN_IDENTITY = frozenset({"parameter", "state", "input"})  # a graph's signature: never merged, never removed


@dataclass(frozen=True)
class Simplify:
    """merge: whether common subexpressions are merged. dead: whether dead code is removed."""

    merge: bool = True
    dead: bool = True

    name: ClassVar[str] = "simplify"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, GRADIENT, STEP)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        walk = _Walk(graph, _rules_for(graph), self.merge)
        nodes = walk.run()
        outputs = {name: walk.resolve(use) for name, use in graph.outputs.items()}
        if self.dead:
            nodes = live(nodes, outputs.values())
        builder = GraphBuilder.rewriting(graph)
        builder.extend(nodes)
        for name, use in outputs.items():
            builder.output(name, use)
        used = {node.body for node in nodes}
        run = {node.body for node in nodes if REGISTRY[node.op].kernel is None}
        for key, body in graph.bodies.items():
            if key in used or not self.dead:
                builder.body(key, self(body) if key in run else body)
        return builder.finish()


def _rules_for(graph: Graph) -> dict[str, list[Rule]]:
    """The rules by operator; `stop` means nothing once the gradients are there."""
    late = any(name.startswith("grad/") for name in graph.outputs) or bool(
        graph.nodes(where=lambda node: node.phase in (Phase.BACKWARD, Phase.UPDATE))
    )
    found: dict[str, list[Rule]] = {}
    for rule in RULES + (AFTER_GRADIENTS if late else ()):
        for op in rule.ops:
            found.setdefault(op, []).append(rule)
    return found


@dataclass
class _Walk:
    """The forward walk: which edge stands for each value that is gone, which node for each expression."""

    graph: Graph
    rules: dict[str, list[Rule]]
    merge: bool
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    instead: dict[tuple[str, int], Use] = field(default_factory=dict[tuple[str, int], Use])
    known: dict[object, Node] = field(default_factory=dict[object, Node])

    def run(self) -> list[Node]:
        for node in self.graph:
            self._visit(replace(node, uses=tuple(map(self.resolve, node.uses))))
        return list(self.nodes.values())

    def resolve(self, use: Use) -> Use:
        """The edge that stands for this one now, with the reader's own labels."""
        found = self.instead.get(use.value)
        return use if found is None else Use(found.node, found.output, use.dims, use.dtype)

    def _visit(self, node: Node) -> None:
        result = self._rewritten(node)
        if isinstance(result, Use):
            self.instead[node.id, 0] = result
            return
        key = _expression(result) if self.merge else None
        equal = None if key is None else self.known.setdefault(key, result)
        if equal is None or equal is result:
            self.nodes[result.id] = result
            return
        for index in range(len(result.outs)):
            self.instead[node.id, index] = equal.out(index)

    def _rewritten(self, node: Node) -> Node | Use:
        """The node after every rule that applies, or the edge that stands for it."""
        changed = True
        while changed:
            changed = False
            for rule in self.rules.get(node.op, ()):
                result = rule.apply(node, self.nodes.__getitem__)
                if isinstance(result, Use):
                    return result
                if isinstance(result, Node) and result != node:
                    node, changed = result, True
                    break
        return node


def _expression(node: Node) -> object | None:
    """What makes two nodes the same; None where they never are."""
    effects = REGISTRY[node.op].effects
    if effects.random or effects.writes or node.op in _OWN_IDENTITY:
        return None
    attrs = tuple(sorted((key, type(value).__name__, repr(value)) for key, value in node.attrs.items()))
    return (node.op, node.uses, node.outs, attrs, node.phase, node.layer, node.body)


def live(nodes: Iterable[Node], outputs: Iterable[Use]) -> list[Node]:
    """The nodes that outputs and writes need, in order, and those that are the graph's signature."""
    every = list(nodes)
    needed = {use.node for use in outputs}
    kept: list[Node] = []
    for node in reversed(every):
        root = node.op in _OWN_IDENTITY or REGISTRY[node.op].effects.writes
        if root or node.id in needed:
            needed.update(use.node for use in node.uses)
            kept.append(node)
    kept.reverse()
    return kept
