"""rematerialize: computing a forward value again in the backward instead of keeping it.

In: a graph with its backward. Out: the same, with clones of forward nodes in phase BACKWARD, each just before its first
reader there. Recomputing is cloning; the clone of a `random` keeps its key, so that a mask is the same both times.

Policy `cheap`: a backward use of an activation's, a norm's, a cast's or a mask's result becomes a clone, where all
that the clone reads is kept for the backward anyway (or is always there: parameters, inputs, constants), or is such a
clone itself. So the input of GELU is kept and not its output too, and no dropout mask is kept at all. Policy `light`
leaves out transcendental activations, which a CPU computes more slowly than it reads them. Policy `none` keeps all.
What a recipe asks for beyond it is named (`recompute/named.py`) or chosen by a program (`recompute/program.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..elaborate.recipe import matches
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, STEP, Level
from ..ir.types import Node, Phase, Use
from ..recompute.block import GIVEN, Value
from ..recompute.named import full, matching, selective

_MASKS = frozenset({"random", "index", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not"})
_TRANSCENDENTAL = frozenset({"gelu", "gelu_tanh", "silu", "tanh", "sigmoid"})
_ALGEBRAIC = frozenset({"neg", "abs", "maximum", "mul", "where", "cast"})
_NORMS = frozenset({"layer_norm", "rms_norm"})
LIGHT = _MASKS | _ALGEBRAIC | _NORMS
POLICIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"none": frozenset(), "light": LIGHT, "cheap": LIGHT | _TRANSCENDENTAL}
)
LAYERS: Mapping[str, Callable[[Graph], frozenset[Value]]] = MappingProxyType(
    {"none": lambda graph: frozenset(), "full": full, "selective": selective}
)
_TAKEN_IN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "add": frozenset({"add", "dot", "scatter_add"}),
        "sum": frozenset({"mul", "cast"}),
        "transpose": frozenset({"dot"}),
    }
)
_LONGEST = 4  # clones in a row that one value may take: random, compare, cast, multiply


@dataclass(frozen=True)
class Rematerialize:
    """policy: of all layers and what stands in none: `none`, `light` or `cheap`.
    layers: beyond it, `full` or `selective` (see `recompute/named.py`); paths: patterns of instances;
    values: what was chosen one by one."""

    policy: str = "cheap"
    layers: str = "none"
    paths: tuple[str, ...] = ()
    values: frozenset[Value] = frozenset()

    name: ClassVar[str] = "rematerialize"
    levels: ClassVar[tuple[Level, ...]] = (GRADIENT, STEP)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        for name, known in ((self.policy, POLICIES), (self.layers, LAYERS)):
            if name not in known:
                raise SpecError(
                    Diagnostic("E0913", f"no rematerialize policy `{name}`", hint=did_you_mean(name, known))
                )
        cheap = POLICIES[self.policy]
        again = _recomputed(graph, cheap) if cheap else frozenset[Value]()
        again |= LAYERS[self.layers](graph) | self.values
        if self.paths:
            again |= matching(graph, self._fits)
        return _Cloning(graph, again | _taken_in(graph, again)).rewrite() if again else graph

    def _fits(self, path: str) -> bool:
        return any(matches(pattern, path) for pattern in self.paths)


def _taken_in(graph: Graph, again: frozenset[Value]) -> set[Value]:
    """What nodes that are made again alone read and may take in (`lower/sums.py`, `lower/fuse.py`): made again too.
    They round once together, and keeping an operand would take them apart, in the forward too."""
    readers = Counter(use.value for node in graph for use in node.uses)
    readers.update(use.value for use in graph.outputs.values())
    found: set[Value] = set()
    open_ = [graph[name] for name, _ in again]
    while open_:
        node = open_.pop()
        for use in node.uses:
            maker = graph[use.node]
            taken = maker.op in _TAKEN_IN.get(node.op, ()) and maker.phase is node.phase and readers[use.value] == 1
            if taken and use.value not in again | found:
                found.add(use.value)
                open_.append(maker)
    return found


def _recomputed(graph: Graph, cheap: frozenset[str]) -> frozenset[Value]:
    """The forward values that the backward is to compute again."""

    def is_cheap(node: Node, output: int) -> bool:
        """Whether a result is worth computing again; a norm's statistics are small and stay."""
        return node.op in cheap and output == 0

    wanted = dict.fromkeys(use.value for node in graph.nodes(where=_is_backward) for use in node.uses)
    forward = {value for value in wanted if graph[value[0]].phase is Phase.FORWARD}
    kept = {value for value in forward if not is_cheap(graph[value[0]], value[1])}
    depth: dict[Value, int] = {}
    for node in graph:
        if node.phase is Phase.FORWARD and is_cheap(node, 0) and (node.id, 0) not in kept:
            steps = [_steps(graph, use, kept, depth) for use in node.uses]
            known = [step for step in steps if step is not None]
            if len(known) == len(steps) and max(known, default=0) < _LONGEST:
                depth[node.id, 0] = 1 + max(known, default=0)
            elif (node.id, 0) in forward:
                kept.add((node.id, 0))
    return frozenset(depth)


def _steps(graph: Graph, use: Use, kept: set[Value], depth: dict[Value, int]) -> int | None:
    """How many clones lie between this operand and what is kept; None if it cannot be had in the backward."""
    producer = graph[use.node]
    if producer.phase is Phase.PREPARE or producer.op in GIVEN or use.value in kept:
        return 0
    return depth.get(use.value)


def _is_backward(node: Node) -> bool:
    return node.phase is Phase.BACKWARD


@dataclass
class _Cloning:
    """Rebuilds the graph; a clone is added when the first node that reads it comes."""

    graph: Graph
    values: frozenset[Value]

    def rewrite(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        self.clones: dict[str, str] = {}
        self.order = {node.id: at for at, node in enumerate(self.graph)}
        for node in self.graph:
            self.builder.add(self._reading(node) if node.phase is Phase.BACKWARD else node)
        return self.builder.finish(self.graph.outputs, self.graph.bodies)

    def _reading(self, node: Node) -> Node:
        """A node of the backward, which reads clones."""
        self._make(node)
        return replace(node, uses=tuple(map(self._again, node.uses)))

    def _make(self, reader: Node) -> None:
        """Clones of all that a node needs and that is not there, in the order of the forward."""
        wanted: set[str] = set()
        open_ = [reader]
        while open_:
            for use in open_.pop().uses:
                if use.value in self.values and use.node not in self.clones and use.node not in wanted:
                    wanted.add(use.node)
                    open_.append(self.graph[use.node])
        for name in sorted(wanted, key=self.order.__getitem__):
            node = self.graph[name]
            uses = tuple(map(self._again, node.uses))
            self.clones[name] = self.builder.fresh(f"again/{name}")
            self.builder.add(replace(node, id=self.clones[name], uses=uses, phase=Phase.BACKWARD))

    def _again(self, use: Use) -> Use:
        """The same value, from a clone where it is one of those computed again."""
        return replace(use, node=self.clones[use.node]) if use.value in self.values else use
