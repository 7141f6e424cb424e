"""precision: every value gets its type; casts become nodes.

In: a graph in one wide type (float32 or float64), forward alone or with its backward. Out: the same with the types that
each operator's rule (`OpDef.precision`) gives under the recipe's `compute` type:

    CONTRACTION  takes its operands in the compute type and gives it
    FOLLOW       the widest of its operands; what depends on no data (a parameter, a mask, a table) yields to the others
    INSIDE       the same, but operands named in `OpDef.wide` and statistics stay wide
    HIGH         takes its operands wide
    EXACT        as it is written

A cast stands once for each value and type in a phase, so a parameter is cast once a step. Gradients and outputs come
out wide. Kernel functions keep their bodies, which say what they mean in exact numbers; a scan's body is typed too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..elaborate.recipe import matches
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, LOSS, MODEL, Level
from ..ir.types import DType, Node, Phase, TensorType, Use
from ..ops import scan
from ..ops.definition import Precision
from ..ops.registry import REGISTRY

_Value = tuple[str, int]


@dataclass(frozen=True)
class AssignPrecision:
    """compute: of contractions and what follows them. overrides: (pattern of paths, type), the first that fits.

    Nothing changes where `compute` is the graph's own type and no override says otherwise.
    """

    compute: DType = DType.F32
    wide: DType = DType.F32
    overrides: tuple[tuple[str, DType], ...] = ()

    name: ClassVar[str] = "precision"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, GRADIENT)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        if self.compute is self.wide and all(dtype is self.wide for _, dtype in self.overrides):
            return graph
        return _Typing(graph, self).rewrite()

    def of(self, node: Node) -> DType:
        """The type in which a node contracts."""
        return next((dtype for pattern, dtype in self.overrides if fits(pattern, node)), self.compute)


def unused(graph: Graph, overrides: Sequence[tuple[str, DType]]) -> tuple[str, ...]:
    """The patterns that no node falls to: a slip of the pen, likely."""
    found: set[str] = set()
    for node in graph:
        first = next((pattern for pattern, _ in overrides if fits(pattern, node)), None)
        if first is not None:
            found.add(first)
    return tuple(pattern for pattern, _ in overrides if pattern not in found)


@dataclass(frozen=True, slots=True)
class _Fact:
    """What a value depends on. Data times parameters has a type of its own; all else yields to what it meets."""

    data: bool = False
    learned: bool = False

    @property
    def strong(self) -> bool:
        return self.data and self.learned


@dataclass
class _Typing:
    """Rebuilds the graph node by node; `given` are the types and facts of a body's inputs."""

    graph: Graph
    options: AssignPrecision
    compute: DType | None = None  # of everything in a body
    given: Mapping[str, tuple[DType, _Fact]] = field(default_factory=dict[str, tuple[DType, _Fact]])
    facts: dict[_Value, _Fact] = field(default_factory=dict[_Value, _Fact])
    casts: dict[tuple[_Value, DType, Phase], Use] = field(default_factory=dict[tuple[_Value, DType, Phase], Use])
    typed: dict[str, Graph] = field(default_factory=dict[str, Graph])  # the bodies of scans

    def rewrite(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        asked: dict[str, list[str]] = {}
        for name, use in self.graph.outputs.items():
            asked.setdefault(use.node, []).append(name)
        outputs: dict[str, Use] = {}
        for node in self.graph:
            self._visit(node)
            for name in asked.get(node.id, ()):
                use = self._now(self.graph.outputs[name])
                outputs[name] = self._as(use, self._wide(use.dtype), self.builder[node.id])
        for name in self.graph.outputs:
            self.builder.output(name, outputs[name])
        run = {node.body for node in self.graph.nodes("scan")}
        kept = {key: body for key, body in self.graph.bodies.items() if key not in run}
        for key, body in {**kept, **self.typed}.items():
            self.builder.body(key, body)
        return self.builder.finish()

    # ---- one node

    def _visit(self, node: Node) -> None:
        node = replace(node, uses=tuple(map(self._now, node.uses)))
        reads = [self.facts[use.value] for use in node.uses]
        fact = _fact(node, reads)
        if node.id in self.given:
            dtype, fact = self.given[node.id]
            node = replace(node, outs=(TensorType(node.outs[0].dims, dtype),), attrs={**node.attrs, "dtype": dtype})
        elif node.op == "scan":
            node = self._scan(node, reads)
        else:
            wanted = self._wanted(node, reads, fact)
            uses = tuple(self._as(use, dtype, node) for use, dtype in zip(node.uses, wanted, strict=True))
            outs = REGISTRY[node.op].infer(tuple(use.type for use in uses), node.attrs)
            node = replace(node, uses=uses, outs=outs)
        self.builder.add(node)
        for index in range(len(node.outs)):
            self.facts[node.id, index] = fact

    def _wanted(self, node: Node, reads: Sequence[_Fact], fact: _Fact) -> list[DType]:
        """The type in which each operand is to come."""
        definition = REGISTRY[node.op]
        now = [use.dtype for use in node.uses]
        match definition.precision:
            case Precision.EXACT:
                return self._stored(node, now)
            case Precision.HIGH:
                return [self._wide(dtype) for dtype in now]
            case Precision.CONTRACTION if fact.strong:
                low = self._compute(node)
            case _:
                low = self._followed(node, reads, fact)
        kept = definition.wide
        return [
            dtype if not dtype.is_float else self._wide(low) if place in kept else low
            for place, dtype in enumerate(now)
        ]

    def _compute(self, node: Node) -> DType:
        return self.options.of(node) if self.compute is None else self.compute

    def _wide(self, dtype: DType) -> DType:
        """The wide type, or what is wider already."""
        if not dtype.is_float:
            return dtype
        return dtype if dtype.itemsize_bytes > self.options.wide.itemsize_bytes else self.options.wide

    def _stored(self, node: Node, now: list[DType]) -> list[DType]:
        """What is compared has one type; what is written has its target's."""
        if node.op == "assign":
            return [self.builder[str(node.attrs["target"])].outs[0].dtype]
        floats = [dtype for dtype in now if dtype.is_float]
        widest = max(floats, key=_width) if floats and node.op != "cast" else None
        return [widest if dtype.is_float and widest is not None else dtype for dtype in now]

    def _followed(self, node: Node, reads: Sequence[_Fact], fact: _Fact) -> DType:
        """The widest of what depends on data and parameters; alone, a parameter comes low and the rest stays wide."""
        pairs = list(zip(node.uses, reads, strict=True))
        kept = REGISTRY[node.op].wide
        main = [(use, read) for place, (use, read) in enumerate(pairs) if use.dtype.is_float and place not in kept]
        strong = [use.dtype for use, read in main if read.strong]
        if strong:
            return max(strong, key=_width)
        if fact.strong and any(read.learned for _, read in main):
            return self._compute(node)
        return max((use.dtype for use, _ in main), key=_width, default=self.options.wide)

    # ---- casts

    def _now(self, use: Use) -> Use:
        """The edge with the type that its value has by now."""
        return replace(use, dtype=self.builder[use.node].outs[use.output].dtype)

    def _as(self, use: Use, dtype: DType, reader: Node) -> Use:
        """The value in a type, for a reader: from its own phase, or where the reader is."""
        if use.dtype is dtype:
            return use
        producer = self.builder[use.node]
        for phase in (producer.phase, reader.phase):
            found = self.casts.get((use.value, dtype, phase))
            if found is not None:
                return Use(found.node, 0, use.dims, dtype)
        once = producer.phase is Phase.PREPARE
        at = producer if once else reader
        out = TensorType(producer.outs[use.output].dims, dtype)
        suffix = f":{use.output}" if use.output else ""
        node = Node(
            self.builder.fresh(f"{producer.id}{suffix}.{dtype.value}"), "cast", (producer.out(use.output),), (out,),
            {"to": dtype}, producer.phase if once else reader.phase, None, producer.path, at.layer, producer.origin,
        )  # fmt: skip
        self.builder.add(node)
        self.facts[node.id, 0] = self.facts[use.value]
        self.casts[use.value, dtype, node.phase] = node.out()
        return Use(node.id, 0, use.dims, dtype)

    # ---- scans

    def _scan(self, node: Node, reads: Sequence[_Fact]) -> Node:
        """Carries and results stay wide; what a step reads comes low where the body only contracts it."""
        assert node.body is not None, "a scan has a body"
        body, low = self.graph.bodies[node.body], self._compute(node)
        inputs, carries = body.nodes("input"), len(scan.operands(node)[0])
        uses: list[Use] = []
        for place, (use, inner) in enumerate(zip(node.uses, inputs, strict=True)):
            readers = [REGISTRY[body[edge.consumer].op].precision for edge in body.users(inner.id)]
            contracted = bool(readers) and all(rule is Precision.CONTRACTION for rule in readers)
            wanted = self._wide(use.dtype) if place < carries else low if contracted else use.dtype
            uses.append(self._as(use, wanted, node) if use.dtype.is_float else use)
        known = [_Fact(True, True) if place < carries else read for place, read in enumerate(reads)]
        given = {i.id: (use.dtype, fact) for i, use, fact in zip(inputs, uses, known, strict=True)}
        typed = _Typing(body, self.options, low, given).rewrite()
        outs = REGISTRY["scan"].infer(tuple(use.type for use in uses), node.attrs)
        return replace(node, uses=tuple(uses), outs=outs, body=self._kept(node.body, typed))

    def _kept(self, key: str, body: Graph) -> str:
        """The key of a body as it is now; scans with operands of other types share their old one."""
        number, wanted = 0, key
        while self.typed.get(wanted, body) != body:
            number += 1
            wanted = f"{key}.{number}"
        self.typed[wanted] = body
        return wanted


def fits(pattern: str, node: Node) -> bool:
    """Whether a pattern of paths names a node: by the instance that it belongs to, else by its own name."""
    if node.path:
        return matches(pattern, node.path) or matches(pattern, f"{node.path}.{node.op}")
    return matches(pattern, node.id)


def _fact(node: Node, reads: Sequence[_Fact]) -> _Fact:
    """What a node's results depend on."""
    if node.op == "input":
        return _Fact(data=True, learned=node.outs[0].dtype.is_float)
    learned = node.op == "parameter" or any(read.learned for read in reads)
    return _Fact(any(read.data for read in reads), learned)


def _width(dtype: DType) -> tuple[int, bool]:
    """Wider types are greater; float16 stands above bfloat16, which is arbitrary but deterministic."""
    return dtype.itemsize_bytes, dtype is DType.F16
