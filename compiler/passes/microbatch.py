"""microbatch: the batch is run in n parts, one after the other; sums over the batch are added up.

In: a graph for a whole batch. Out: the graph of one part (the batch's dim, and every dim made of it, divided by n),
with `accumulate` behind each output that is a sum over the batch. Constants such as 1/(batch·T) stay those of the whole
batch, so that the losses and gradients of the parts add up to the batch's.

That holds only for what is linear in every sum over the batch. So each value is one of
    SAME     does not depend on the data of the batch
    PART     carries the batch's dim (or a part's own offset): each microbatch has its own rows
    PARTIAL  a sum over the batch's dim, of which each microbatch has its term
and a nonlinear function of a PARTIAL (a batch's mean squared), or one that mixes rows, is the user's error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, NoReturn

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, LOSS, MODEL, STEP, Level
from ..ir.types import Attr, Dim, Dims, DType, Node, Phase, TensorType, Use, with_dims
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from ..ops.shapes import named
from ..ops.structure import axis_pair

_PER_MICROBATCH = frozenset({Phase.FORWARD, Phase.BACKWARD})


@dataclass(frozen=True)
class Microbatch:
    """count: the number of parts. dim: the name of the dim that is cut; its size must be known."""

    count: int = 1
    dim: str = "batch"

    name: ClassVar[str] = "microbatch"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, GRADIENT, STEP)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        batch = graph.dims().get(self.dim)
        assert graph.microbatches == 1, "a graph is cut into microbatches once"
        if self.count == 1 or batch is None:
            return graph
        sizes = _divided(graph, {batch: self._part(batch)}, self.count)
        facts = _Facts(graph, frozenset(sizes), self.count)
        return facts.rewrite(sizes)

    def _part(self, batch: Dim) -> Dim:
        assert batch.size is not None, f"the dim {batch} has a size before it is cut"
        if batch.size % self.count:
            below = batch.size // self.count * self.count
            hint = "valid batches are " + " and ".join(str(size) for size in (below, below + self.count) if size)
            raise SpecError(
                Diagnostic("E0911", f"{batch} = {batch.size} does not divide into {self.count} microbatches", hint=hint)
            )
        return Dim(batch.name, batch.size // self.count)


# ---- which dims are made of the batch


def _divided(graph: Graph, sizes: dict[Dim, Dim], count: int) -> dict[Dim, Dim]:
    """The dims to divide: the batch, what it is called elsewhere, and what it is merged into or split into."""
    before = 0
    while before != len(sizes):
        before = len(sizes)
        for node in graph:
            for dim in [*_aliases(graph, node, sizes), *_made_of(node, sizes)]:
                if dim not in sizes:
                    assert dim.size is not None, f"the dim {dim} has a size before it is cut"
                    if dim.size % count:
                        _refuse(node, f"{dim} = {dim.size}, made of the batch, does not divide into {count}")
                    sizes[dim] = replace(dim, size=dim.size // count)
    return sizes


def _aliases(graph: Graph, node: Node, known: Mapping[Dim, Dim]) -> Iterable[Dim]:
    """Across each edge, the reader's label of a divided dim, and the producer's."""
    for use in node.uses:
        for mine, theirs in zip(use.dims, graph[use.node].outs[use.output].dims, strict=True):
            if mine in known or theirs in known:
                yield from (mine, theirs)


def _made_of(node: Node, known: Mapping[Dim, Dim]) -> Iterable[Dim]:
    """Within a split or a merge: the long dim and the outermost of its parts."""
    pair = axis_pair(node)
    if pair is not None and (pair[0] in known or pair[1] in known):
        yield from pair


def _dims(value: Attr) -> Dims:
    return (
        (value,)
        if isinstance(value, Dim)
        else tuple(d for d in value if isinstance(d, Dim))
        if isinstance(value, tuple)
        else ()
    )


def _refuse(node: Node, why: str) -> NoReturn:
    place = f" ({node.origin[0].file}:{node.origin[0].line})" if node.origin else ""
    raise SpecError(Diagnostic("E0912", f"`{node.id}`{place} cannot be microbatched: {why}"))


# ---- what each value is to a microbatch


class _Is(Enum):
    SAME = "same"
    PART = "part"
    PARTIAL = "partial"


@dataclass
class _Facts:
    """What every value is, and the terms that must be scaled because each microbatch would add them again."""

    graph: Graph
    divided: frozenset[Dim]
    count: int = 1
    values: dict[tuple[str, int], _Is] = field(default_factory=dict[tuple[str, int], _Is])
    scaled: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])

    def __post_init__(self) -> None:
        for node in self.graph:
            self._node(node)

    def _node(self, node: Node) -> None:
        reads = [self.values[use.value] for use in node.uses]
        if node.op == "accumulate":
            if reads[0] is _Is.PART:
                _refuse(node, "it keeps the batch's dim")
            if reads[0] is _Is.SAME:
                self.scaled[node.id] = frozenset({0})
            self.values[node.id, 0] = _Is.SAME
            return
        if node.op == "assign" and node.phase in _PER_MICROBATCH and _Is.SAME not in reads:
            _refuse(node, "a state would follow one part of the batch")
        cut = [dim for dim in named(node) if dim in self.divided]
        self._refuse_mixing(node, cut)
        for index, out in enumerate(node.outs):
            self.values[node.id, index] = self._result(node, reads, cut, out)

    def _refuse_mixing(self, node: Node, cut: list[Dim]) -> None:
        """Rows of different microbatches never meet, but in a sum."""
        roles = REGISTRY[node.op].roles(node) if cut else {}
        for dim in cut:
            if roles.get(dim) not in (Role.SUM, Role.MAP):
                _refuse(node, f"it mixes the rows of {dim}")

    def _result(self, node: Node, reads: list[_Is], cut: list[Dim], out: TensorType) -> _Is:
        partial = frozenset(place for place, read in enumerate(reads) if read is _Is.PARTIAL)
        if node.op == "start" and self._of_cut(node):
            return _Is.PART
        if cut and partial:
            _refuse(node, "it brings a sum over the batch back to single rows")
        if any(dim in self.divided for dim in out.dims):
            return _Is.PART
        if cut:
            return _Is.PARTIAL
        if partial:
            return self._linear(node, reads, partial)
        return _Is.PART if _Is.PART in reads else _Is.SAME

    def _of_cut(self, node: Node) -> bool:
        return any(dim in self.divided for dim in _dims(node.attrs["dim"]))

    def _linear(self, node: Node, reads: list[_Is], partial: frozenset[int]) -> _Is:
        """A function of sums must be linear in them; what it adds to them counts once, not once a microbatch."""
        sets = [group for group in REGISTRY[node.op].linear(node) if partial <= group]
        if not sets:
            _refuse(node, f"{node.op} of a sum over the batch is not the sum of {node.op} over its parts")
        group = min(sets, key=len)
        if any(reads[place] is _Is.PART for place in range(len(reads)) if place not in partial):
            _refuse(node, "it joins a sum over the batch with what differs between its parts")
        terms = frozenset(place for place in group - partial if not self._is_zero(node.uses[place]))
        if terms:
            self.scaled[node.id] = self.scaled.get(node.id, frozenset()) | terms
        return _Is.PARTIAL

    def _is_zero(self, use: Use) -> bool:
        source = self.graph[use.node]
        return source.op == "constant" and source.attrs["value"] == 0

    # ---- the new graph

    def rewrite(self, sizes: Mapping[Dim, Dim]) -> Graph:
        builder = GraphBuilder(self.graph.name, self.count, self.graph)
        for node in self.graph:
            whole = _whole_extent(node, self.divided)
            builder.add(self._scale(builder, _resized(whole, sizes)))
        asked = {name: _relabelled(use, sizes) for name, use in self.graph.outputs.items()}
        outputs = {name: self._total(builder, name, use) for name, use in asked.items()}
        return builder.finish(outputs, {key: self._body(key, body, sizes) for key, body in self.graph.bodies.items()})

    def _scale(self, builder: GraphBuilder, node: Node) -> Node:
        """Terms that every microbatch would add again, times 1/count."""
        if node.id not in self.scaled:
            return node
        uses = [
            _times(builder, node, use, 1.0 / self.count) if place in self.scaled[node.id] else use
            for place, use in enumerate(node.uses)
        ]
        return replace(node, uses=tuple(uses))

    def _total(self, builder: GraphBuilder, name: str, use: Use) -> Use:
        """An output that is a sum over the batch is asked for over all microbatches."""
        if self.values[use.value] is not _Is.PARTIAL:
            return use
        source = builder[use.node]
        node = Node(
            builder.fresh(f"total/{name}"), "accumulate", (use,), (use.type,), {}, source.phase, path=source.path
        )
        return builder.add(replace(node, layer=source.layer, origin=source.origin)).out()

    def _body(self, key: str, body: Graph, sizes: Mapping[Dim, Dim]) -> Graph:
        """The meaning of a kernel function that now sees fewer rows."""
        callers = self.graph.nodes(where=lambda node: node.body == key)
        inputs = body.nodes("input")
        known: dict[Dim, Dim] = {}
        for use, inner in zip(callers[0].uses if callers else (), inputs, strict=False):
            along = callers[0].attrs.get("dim") if callers[0].op == "scan" else None  # a step reads its slice
            dims = tuple(dim for dim in use.dims if dim != along)
            for outside, inside in zip(dims, inner.outs[0].dims, strict=True):
                if outside in sizes:
                    known[inside] = replace(inside, size=sizes[outside].size)
        if not known:
            return body
        known = _divided(body, known, self.count)
        builder = GraphBuilder.rewriting(body)
        builder.extend(_resized(_whole_extent(node, frozenset(known)), known) for node in body)
        for name, use in body.outputs.items():
            builder.output(name, _relabelled(use, known))
        for inner_key, inner_body in body.bodies.items():
            builder.body(inner_key, inner_body)
        return builder.finish()


def _times(builder: GraphBuilder, node: Node, use: Use, factor: float) -> Use:
    attrs: Mapping[str, Attr] = MappingProxyType({"value": factor, "dims": (), "dtype": use.dtype})
    like = replace(node, uses=(), outs=(TensorType((), use.dtype),), body=None)
    constant = builder.add(replace(like, id=builder.fresh(f"{node.id}.share"), op="constant", attrs=attrs)).out()
    product = replace(node, op="mul", uses=(use, constant), outs=(use.type,), attrs={}, body=None)
    return builder.add(replace(product, id=builder.fresh(f"{node.id}.term"))).out()


def _whole_extent(node: Node, divided: frozenset[Dim]) -> Node:
    """The global size of a dim is that of the whole batch: now is the time to write it down."""
    over = _dims(node.attrs["over"]) if node.op == "extent" else ()
    if not any(dim in divided for dim in over) or any(dim.size is None for dim in over):
        return node
    value = math.prod(dim.size for dim in over if dim.size is not None)
    return replace(node, op="constant", attrs={"value": value, "dims": (), "dtype": DType.I64})


def _resized(node: Node, sizes: Mapping[Dim, Dim]) -> Node:
    outs = tuple(TensorType(tuple(sizes.get(dim, dim) for dim in out.dims), out.dtype) for out in node.outs)
    attrs = {key: with_dims(value, sizes) for key, value in node.attrs.items()}
    return replace(node, uses=tuple(_relabelled(use, sizes) for use in node.uses), outs=outs, attrs=attrs)


def _relabelled(use: Use, sizes: Mapping[Dim, Dim]) -> Use:
    return use.relabel(sizes)
