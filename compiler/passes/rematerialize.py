"""rematerialize: computing a forward value again in the backward instead of keeping it.

In: a graph with its backward. Out: the same, with clones of forward nodes in phase BACKWARD, each just before its first
reader there. Recomputing is cloning; the clone of a `random` keeps its key, so that a mask is the same both times.

Policy `cheap`: a backward use of an activation's, a norm's, a cast's or a mask's result becomes a clone, where all
that the clone reads is kept for the backward anyway (or is always there: parameters, inputs, constants), or is such a
clone itself. So the input of GELU is kept and not its output too, and no dropout mask is kept at all. Policy `light`
leaves out transcendental activations, which a CPU computes more slowly than it reads them. Policy `none` keeps all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, STEP, Level
from ..ir.types import Node, Phase, Use

_MASKS = frozenset({"random", "index", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not"})
_TRANSCENDENTAL = frozenset({"gelu", "gelu_tanh", "silu", "tanh", "sigmoid"})
_ALGEBRAIC = frozenset({"neg", "abs", "maximum", "mul", "where", "cast"})
_NORMS = frozenset({"layer_norm", "rms_norm"})
LIGHT = _MASKS | _ALGEBRAIC | _NORMS
POLICIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"none": frozenset(), "light": LIGHT, "cheap": LIGHT | _TRANSCENDENTAL}
)
_ALWAYS_THERE = frozenset({"parameter", "state", "input", "constant", "start", "extent", "step", "seed"})
_LONGEST = 4  # clones in a row that one value may take: random, compare, cast, multiply

_Value = tuple[str, int]


@dataclass(frozen=True)
class Rematerialize:
    """policy: `none`, `light` or `cheap`."""

    policy: str = "cheap"

    name: ClassVar[str] = "rematerialize"
    levels: ClassVar[tuple[Level, ...]] = (GRADIENT, STEP)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        if self.policy not in POLICIES:
            hint = did_you_mean(self.policy, tuple(POLICIES))
            raise SpecError(Diagnostic("E0913", f"no rematerialize policy `{self.policy}`", hint=hint))
        cheap = POLICIES[self.policy]
        return _Cloning(graph, _recomputed(graph, cheap)).rewrite() if cheap else graph


def _recomputed(graph: Graph, cheap: frozenset[str]) -> frozenset[_Value]:
    """The forward values that the backward is to compute again."""

    def is_cheap(node: Node, output: int) -> bool:
        """Whether a result is worth computing again; a norm's statistics are small and stay."""
        return node.op in cheap and output == 0

    wanted = dict.fromkeys(use.value for node in graph.nodes(where=_is_backward) for use in node.uses)
    forward = {value for value in wanted if graph[value[0]].phase is Phase.FORWARD}
    kept = {value for value in forward if not is_cheap(graph[value[0]], value[1])}
    depth: dict[_Value, int] = {}
    for node in graph:
        if node.phase is Phase.FORWARD and is_cheap(node, 0) and (node.id, 0) not in kept:
            steps = [_steps(graph, use, kept, depth) for use in node.uses]
            known = [step for step in steps if step is not None]
            if len(known) == len(steps) and max(known, default=0) < _LONGEST:
                depth[node.id, 0] = 1 + max(known, default=0)
            elif (node.id, 0) in forward:
                kept.add((node.id, 0))
    return frozenset(depth)


def _steps(graph: Graph, use: Use, kept: set[_Value], depth: dict[_Value, int]) -> int | None:
    """How many clones lie between this operand and what is kept; None if it cannot be had in the backward."""
    producer = graph[use.node]
    if producer.phase is Phase.PREPARE or producer.op in _ALWAYS_THERE or use.value in kept:
        return 0
    return depth.get(use.value)


def _is_backward(node: Node) -> bool:
    return node.phase is Phase.BACKWARD


@dataclass
class _Cloning:
    """Rebuilds the graph; a clone is added when the first node that reads it comes."""

    graph: Graph
    values: frozenset[_Value]

    def rewrite(self) -> Graph:
        self.builder = GraphBuilder(self.graph.name, self.graph.microbatches)
        self.clones: dict[_Value, str] = {}
        for node in self.graph:
            backward = node.phase is Phase.BACKWARD
            self.builder.add(replace(node, uses=tuple(map(self._again, node.uses))) if backward else node)
        for name, use in self.graph.outputs.items():
            self.builder.output(name, use)
        for key, body in self.graph.bodies.items():
            self.builder.body(key, body)
        return self.builder.finish()

    def _again(self, use: Use) -> Use:
        """The same value, from a clone where it is one of those computed again."""
        if use.value not in self.values:
            return use
        if use.value not in self.clones:
            node = self.graph[use.node]
            uses = tuple(map(self._again, node.uses))
            name = self.builder.fresh(f"again/{node.id}")
            self.clones[use.value] = self.builder.add(replace(node, id=name, uses=uses, phase=Phase.BACKWARD)).id
        return replace(use, node=self.clones[use.value])
