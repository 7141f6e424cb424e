"""What a chain's blocks take for any token slice of any microbatch: t(rows, length, context), from one graph.

In: the step graph of rows that are cut into two slices (`passes/token_slices.py`), and what a node takes. Out: for each
block the price of a slice of `length` tokens behind `context` earlier ones, in a microbatch of so many rows: the second
slice's nodes, in these sizes. So attention grows with what went before, small slices pay for every kernel's launch and
for reading all weights, and each slice adds its share to the gradients of the parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..cost.cluster import Link
from ..ir.graph import Graph
from ..ir.slices import dims_of, marked, slice_of
from ..ir.types import Dim, Node, Phase, TensorType, with_dims
from ..ops.shapes import elements
from .blocks import Chain, Value
from .simulate import Price

NodeSeconds = Callable[[Node], float]
Sizes = tuple[int, int, int]  # rows, length, context
HALVES = ("forward", "input", "weight")  # of a block


@dataclass
class SlicedBlocks:
    """The blocks of a step whose rows are two slices.

    step    the graph; every dim has a size
    node_s  seconds of a node in its own sizes
    link    to the next stage
    batch   the name of the dim that counts rows
    """

    step: Graph
    node_s: NodeSeconds
    link: Link
    batch: str = "batch"
    names: Sequence[str] = field(init=False)
    priced: dict[tuple[int, Sizes], Price] = field(init=False, default_factory=dict[tuple[int, Sizes], Price])
    timed: dict[tuple[object, Sizes], float] = field(init=False, default_factory=dict[tuple[object, Sizes], float])

    def __post_init__(self) -> None:
        chain = Chain(self.step)
        self.names = chain.names
        self.work = [{half: Counter[_Kind]() for half in HALVES} for _ in chain.names]
        for node in self.step:
            if node.id in chain.block and self._is_of_each(node):
                half = "forward" if node.phase is Phase.FORWARD else "weight" if node.id in chain.weights else "input"
                self.work[chain.block[node.id]][half][_Kind.of(node)] += 1
        self.kept, self.held, self.crossing = map(
            self._types, (chain.kept_values(), chain.held_values(), chain.crossing_values())
        )

    def _is_of_each(self, node: Node) -> bool:
        """Whether a later slice has such a node: its own, or its share of what is added up."""
        return slice_of(node) == 1 or node.op == "accumulate"

    def _types(self, values: Iterable[Iterable[Value]]) -> list[list[TensorType]]:
        """The second slice's own, of some values."""
        found = [[self.step[name].outs[index] for name, index in some] for some in values]
        return [[one for one in some if any((marked(dim.name) or (0,))[0] == 1 for dim in one.dims)] for some in found]

    def price(self, block: int, rows: int, length: int, context: int) -> Price:
        """A slice of `length` tokens behind `context` earlier ones, of a microbatch of so many rows."""
        sizes = (rows, length, context)
        if (block, sizes) not in self.priced:
            forward, input_, weight = (self._seconds(self.work[block][half], sizes) for half in HALVES)
            crossing = self._bytes(self.crossing[block], sizes)
            self.priced[block, sizes] = Price(
                forward, input_, weight,
                crossing / self.link.bandwidth_bytes_per_s, self.link.latency_s if crossing else 0.0,
                self._bytes(self.kept[block], sizes), self._bytes(self.held[block], sizes),
            )  # fmt: skip
        return self.priced[block, sizes]

    def nodes(self, block: int, half: str, sizes: Sizes) -> Iterator[tuple[Node, int]]:
        """The kernels of a block's half in these sizes, each once, and how often it runs."""
        for kind, count in self.work[block][half].items():
            yield self._sized(kind.node, sizes), count

    def chunk(self, begin: int, end: int, rows: int, length: int, context: int) -> Price:
        """Several blocks one after the other, and the message of the last."""
        parts = [self.price(block, rows, length, context) for block in range(begin, end)]
        return Price(
            sum(p.forward for p in parts), sum(p.input for p in parts), sum(p.weight for p in parts),
            parts[-1].transfer, parts[-1].latency, sum(p.kept_bytes for p in parts), sum(p.held_bytes for p in parts),
        )  # fmt: skip

    def _seconds(self, work: Mapping[_Kind, int], sizes: Sizes) -> float:
        total = 0.0
        for kind, count in work.items():
            if (kind, sizes) not in self.timed:
                self.timed[kind, sizes] = self.node_s(self._sized(kind.node, sizes))
            total += count * self.timed[kind, sizes]
        return total

    def _sized(self, node: Node, sizes: Sizes) -> Node:
        names = {dim: self._dim(dim, sizes) for dim in dims_of(node)}
        outs = tuple(TensorType(tuple(names[d] for d in out.dims), out.dtype) for out in node.outs)
        attrs = {key: with_dims(value, names) for key, value in node.attrs.items()}
        return replace(node, uses=tuple(use.relabel(names) for use in node.uses), outs=outs, attrs=attrs)

    def _dim(self, dim: Dim, sizes: Sizes) -> Dim:
        rows, length, context = sizes
        mark = marked(dim.name)
        if mark is None:
            return Dim(dim.name, rows) if dim.name == self.batch else dim
        number, whole = mark
        return Dim(dim.name, context if number == 0 else context + length if whole else length)

    def _bytes(self, types: Iterable[TensorType], sizes: Sizes) -> int:
        shapes = ((tuple(self._dim(dim, sizes) for dim in one.dims), one.dtype) for one in types)
        return sum(elements(dims) * dtype.itemsize_bytes for dims, dtype in shapes)


@dataclass(frozen=True, eq=False)
class _Kind:
    """Nodes that take the same: of one operator, types and attributes."""

    node: Node
    key: tuple[object, ...]

    @staticmethod
    def of(node: Node) -> _Kind:
        """The kind of a node."""
        attrs = tuple(sorted(((k, v) for k, v in node.attrs.items() if k != "key"), key=lambda item: item[0]))
        shared = tuple((use.value == other.value) for use in node.uses for other in node.uses)
        return _Kind(node, (node.op, tuple(use.type for use in node.uses), node.outs, attrs, shared))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
