"""differentiate: reverse mode, graph to graph; the backward becomes nodes like all others.

In: a graph with a scalar loss. Out: the same with, after the forward nodes, the backward's (phase BACKWARD, each with
path, layer and origin of the forward node that it comes from) and an output `grad/<parameter>` for each parameter.

    v̄ = Σ over the uses u of v of (∂op_u/∂v)ᵀ(cotangent of u's results)

The sum is one n-ary `add`, so that a value with several readers owes one reduction later. Only what lies between a
parameter and the loss is visited. Nodes stand in the order that keeps memory small: a forward node's weight gradient is
taken as soon as its cotangent exists and before the input's, and the cotangents of parameters are finished on the spot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, LOSS, Level
from ..ir.types import Attr, Node, Phase, Use
from ..ops.definition import NotDifferentiable
from ..ops.registry import REGISTRY
from ..ops.scan_gradient import scan_gradient

_Value = tuple[str, int]
_PROVISIONAL = "\x00"  # begins ids that no spec can write


@dataclass(frozen=True)
class Differentiate:
    """loss: the output to differentiate. wrt: ids of parameters; None: every one that is trained."""

    loss: str = "loss"
    wrt: tuple[str, ...] | None = None

    name: ClassVar[str] = "differentiate"
    levels: ClassVar[tuple[Level, ...]] = (LOSS,)
    gives: ClassVar[Level | None] = GRADIENT
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        assert graph.microbatches == 1, "gradients are taken of the whole batch; microbatch comes after"
        targets = self.wrt if self.wrt is not None else trained_parameters(graph)
        reverse = _Reverse(graph, targets)
        reverse.run_from_loss(graph.outputs[self.loss])
        builder = GraphBuilder.rewriting(graph)
        builder.extend(graph)
        names, outputs = reverse.tape.emit(builder), dict(graph.outputs)
        for target in targets:
            use = reverse.gradients[target]
            outputs[f"grad/{target}"] = replace(use, node=names.get(use.node, use.node))
        return builder.finish(outputs, {**graph.bodies, **reverse.bodies})


def trained_parameters(graph: Graph) -> tuple[str, ...]:
    """The ids of the parameters that training changes, in order."""
    return tuple(node.id for node in graph.nodes("parameter") if node.attrs.get("trained", True))


@dataclass
class _Tape:
    """A `Build` that collects nodes under provisional ids; `emit` gives them readable ones and their final order."""

    source: Node  # the forward node whose backward is being written
    nodes: list[Node] = field(default_factory=list[Node])
    wanted: list[str] = field(default_factory=list[str])
    named: set[int] = field(default_factory=set[int])
    order: list[int] = field(default_factory=list[int])

    def __call__(
        self, op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        outs = REGISTRY[op].infer(tuple(use.type for use in operands), attrs)
        at = self.source
        name = f"{_PROVISIONAL}{len(self.nodes)}"
        self.nodes.append(Node(name, op, operands, outs, attrs, Phase.BACKWARD, body, at.path, at.layer, at.origin))
        self.wanted.append(f"grad/{at.id}.{hint or op}")
        return tuple(Use(name, index, out.dims, out.dtype) for index, out in enumerate(outs))

    def number(self, use: Use) -> int | None:
        """Which of the tape's nodes the edge reads; None where it reads a forward node."""
        return int(use.node[1:]) if use.node.startswith(_PROVISIONAL) else None

    def call_it(self, use: Use, name: str) -> None:
        """Names the node after the first value whose cotangent it is, unless it makes several."""
        number = self.number(use)
        if number is not None and len(self.nodes[number].outs) == 1 and number not in self.named:
            self.named.add(number)
            self.wanted[number] = name

    def place(self, begin: int, first: Iterable[Use]) -> None:
        """Orders the nodes from `begin` on: what `first` needs, then the others."""
        urgent: set[int] = set()
        stack = [number for use in first if (number := self.number(use)) is not None and number >= begin]
        while stack:
            number = stack.pop()
            if number not in urgent:
                urgent.add(number)
                reads = (self.number(use) for use in self.nodes[number].uses)
                stack += [read for read in reads if read is not None and read >= begin]
        rest = [number for number in range(begin, len(self.nodes)) if number not in urgent]
        self.order += [*sorted(urgent), *rest]

    def emit(self, builder: GraphBuilder) -> dict[str, str]:
        """Appends the nodes in their final order; gives the final id of each provisional one."""
        names: dict[str, str] = {}
        for number in self.order:
            node = self.nodes[number]
            uses = tuple(replace(use, node=names.get(use.node, use.node)) for use in node.uses)
            names[node.id] = builder.add(replace(node, id=builder.fresh(self.wanted[number]), uses=uses)).id
        return names


class _Reverse:
    """One run of reverse mode over one graph."""

    def __init__(self, graph: Graph, targets: Sequence[str]) -> None:
        self.graph, self.targets = graph, dict.fromkeys(targets)  # a set that keeps its order
        self.parts: dict[_Value, list[Use]] = {}
        self.tape = _Tape(next(iter(graph)))
        self.visited: set[str] = set()
        self.gradients: dict[str, Use] = {}
        self.bodies: dict[str, Graph] = {}  # of the scans that the backward makes

    def run_from_loss(self, loss: Use) -> None:
        """Writes the backward on the tape and finds the gradient of each target."""
        assert not loss.dims, "the loss is a scalar"
        self.tape.source = self.graph[loss.node]
        active = loss.node in _between(self.graph, [loss.node], self.targets)
        one = self.tape("constant", hint="one", value=1.0, dims=(), dtype=loss.dtype) if active else ()
        self.tape.place(0, ())
        self.run({loss.value: list(one)} if active else {})

    def run(self, seeds: Mapping[_Value, list[Use]]) -> None:
        """The same from the cotangents of any values."""
        self.active = _between(self.graph, [node for node, _ in seeds], self.targets)
        self.unread = _readers(self.graph, self.active)
        self.parts = {value: list(uses) for value, uses in seeds.items() if value[0] in self.active}
        for node in reversed(list(self.graph)):
            if node.id in self.active:
                self._visit(node)
        for target in [one for one in self.targets if one not in self.gradients]:
            self._zero(self.graph[target])

    def _visit(self, node: Node) -> None:
        """Once every reader has given its part: this node's share to what it reads."""
        if node.id in self.visited:
            return
        self.visited.add(node.id)
        begin = len(self.tape.nodes)
        self.tape.source = node
        cotangents = [self._cotangent(node, index) for index in range(len(node.outs))]
        if node.id in self.targets:
            if cotangents[0] is not None:
                self.gradients[node.id] = cotangents[0]
            self.tape.place(begin, ())
            return
        if any(cotangent is not None for cotangent in cotangents):
            self._share(node, cotangents, begin)
        self._settle(node)

    def _share(self, node: Node, cotangents: Sequence[Use | None], begin: int) -> None:
        """Applies the operator's rule; its results, in the producers' labels, join the parts of what it reads."""
        definition = REGISTRY[node.op]
        assert definition.covers(node), f"{node.op} ({node.id}) has no fused kernel: inline it before differentiating"
        wants = [use.node in self.active and use.dtype.is_float for use in node.uses]
        results = self._results(node, cotangents, wants)
        assert len(results) == len(node.uses), f"the gradient rule of {node.op} gives a cotangent for each operand"
        weights: list[Use] = []
        for use, result, wanted in zip(node.uses, results, wants, strict=True):
            if result is None or not wanted:
                continue
            assert result.type == use.type, f"a cotangent of {node.op} ({node.id}) has its operand's dims and dtype"
            producer = self.graph[use.node]
            names = dict(zip(use.dims, producer.outs[use.output].dims, strict=True))
            self.parts.setdefault(use.value, []).append(result.relabel(names))
            if producer.phase is Phase.PREPARE:
                weights.append(result)
        self.tape.place(begin, weights)

    def _results(self, node: Node, cotangents: Sequence[Use | None], wants: Sequence[bool]) -> Sequence[Use | None]:
        """The cotangent of each operand, by the operator's rule; of a scan, by its body's."""
        if node.op == "scan":
            assert node.body is not None, "a scan has a body"
            found = scan_gradient(node, self.graph.bodies[node.body], cotangents, wants)
            key, number = f"grad/{node.body}", 0
            while key in self.bodies:
                number += 1
                key = f"grad/{node.body}.{number}"
            body = found.reverse_body(key, _reversed)
            key = next((known for known, other in self.bodies.items() if _same(other, body)), key)
            self.bodies.setdefault(key, body)
            return found.apply(self.tape, cotangents, key)
        rule = REGISTRY[node.op].gradient
        assert not isinstance(rule, NotDifferentiable), f"{node.op} is active though it has no gradient"
        return rule(self.tape, node, cotangents, wants)

    def _cotangent(self, node: Node, index: int) -> Use | None:
        """The sum of the parts that the readers gave."""
        parts = self.parts.pop((node.id, index), None)
        if parts is None:
            return None
        total = parts[0] if len(parts) == 1 else self.tape("add", *parts, hint="sum")[0]
        self.tape.call_it(total, f"grad/{node.id}" + (f":{index}" if index else ""))
        return total

    def _settle(self, node: Node) -> None:
        """Counts this reader off; parameters (and their casts) that wait for nobody else are finished at once."""
        for use in node.uses:
            if use.node in self.active:
                self.unread[use.node] -= 1
        for use in node.uses:
            if use.node in self.active and not self.unread[use.node] and self.graph[use.node].phase is Phase.PREPARE:
                self._visit(self.graph[use.node])

    def _zero(self, target: Node) -> None:
        """The gradient of a parameter that the loss does not depend on."""
        self.tape.source = target
        begin = len(self.tape.nodes)
        out = target.outs[0]
        (self.gradients[target.id],) = self.tape("constant", hint="zero", value=0.0, dims=out.dims, dtype=out.dtype)
        self.tape.place(begin, ())


def _reversed(graph: Graph, seeds: Mapping[_Value, list[Use]], targets: Sequence[str]) -> tuple[Graph, dict[str, Use]]:
    """The graph with its backward from these cotangents, and the gradient of each target."""
    reverse = _Reverse(graph, targets)
    reverse.run(seeds)
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    names = reverse.tape.emit(builder)
    for key, body in {**graph.bodies, **reverse.bodies}.items():
        builder.body(key, body)
    found = {name: replace(use, node=names.get(use.node, use.node)) for name, use in reverse.gradients.items()}
    return builder.finish(), found


def _same(one: Graph, other: Graph) -> bool:
    """Whether two bodies say the same, whatever they are called."""
    return list(one) == list(other) and dict(one.outputs) == dict(other.outputs) and one.bodies == other.bodies


def _between(graph: Graph, ends: Sequence[str], targets: Collection[str]) -> frozenset[str]:
    """The nodes through which gradients flow: they depend on a target, and the loss on them."""
    above: set[str] = set()
    for node in graph:
        reads = any(use.node in above and use.dtype.is_float for use in node.uses)
        smooth = not isinstance(REGISTRY[node.op].gradient, NotDifferentiable)
        if node.id in targets or (reads and smooth):
            above.add(node.id)
    found: set[str] = set()
    stack = list(ends)
    while stack:
        node_id = stack.pop()
        if node_id in above and node_id not in found:
            found.add(node_id)
            stack += [use.node for use in graph[node_id].uses]
    return frozenset(found)


def _readers(graph: Graph, active: frozenset[str]) -> dict[str, int]:
    """How many edges from active nodes read each active node."""
    count = dict.fromkeys(active, 0)
    for node_id in active:
        for use in graph[node_id].uses:
            if use.node in count:
                count[use.node] += 1
    return count
