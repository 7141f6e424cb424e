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
from .ladder import HALVES, Ladder
from .simulate import Price

NodeSeconds = Callable[[Node], float]
Sizes = tuple[int, int, int]  # rows, length, context


@dataclass
class SlicedBlocks:
    """The blocks of a step whose rows are two slices.

    step    the graph; every dim has a size
    node_s  seconds of a node in its own sizes
    link    to the next stage
    batch   the name of the dim that counts rows
    ladder  where kernels were timed, what blocks take by that
    """

    step: Graph
    node_s: NodeSeconds
    link: Link
    batch: str = "batch"
    ladder: Ladder | None = None
    names: Sequence[str] = field(init=False)
    priced: dict[tuple[int, Sizes], Price] = field(init=False, default_factory=dict[tuple[int, Sizes], Price])
    timed: dict[tuple[int, Sizes], float] = field(init=False, default_factory=dict[tuple[int, Sizes], float])

    def __post_init__(self) -> None:
        chain = Chain(self.step)
        self.names = chain.names
        self.kinds: list[_Kind] = []
        self.work = [{half: Counter[int]() for half in HALVES} for _ in chain.names]  # how many of each kind
        numbers: dict[object, int] = {}
        for node in self.step:
            if node.id in chain.block and self._is_of_each(node):
                half = "forward" if node.phase is Phase.FORWARD else "weight" if node.id in chain.weights else "input"
                number = numbers.setdefault(_takes(node), len(numbers))
                if number == len(self.kinds):
                    self.kinds.append(_Kind(node, self._needs(node)))
                self.work[chain.block[node.id]][half][number] += 1
        self.kept, self.held, self.crossing = map(
            self._types, (chain.kept_values(), chain.held_values(), chain.crossing_values())
        )
        self.alike = self._alike()

    def _alike(self) -> list[int]:
        """For each block the first that takes the same."""
        first: dict[object, int] = {}
        return [
            first.setdefault(
                (
                    *(frozenset(work[half].items()) for half in HALVES),
                    *(tuple(types[block]) for types in (self.kept, self.held, self.crossing)),
                ),
                block,
            )
            for block, work in enumerate(self.work)
        ]

    def _needs(self, node: Node) -> tuple[bool, bool, bool]:
        """Whether rows, length and context stand in a node's sizes."""
        dims = [*dims_of(node)]
        marks = [mark for dim in dims if (mark := marked(dim.name))]
        of_own, of_earlier = any(number for number, _ in marks), any(not number or whole for number, whole in marks)
        return any(dim.name == self.batch for dim in dims), of_own, of_earlier

    def _is_of_each(self, node: Node) -> bool:
        """Whether a later slice has such a node: its own, or its share of what is added up."""
        return slice_of(node) == 1 or node.op == "accumulate"

    def _types(self, values: Iterable[Iterable[Value]]) -> list[list[TensorType]]:
        """The second slice's own, of some values."""
        found = [[self.step[name].outs[index] for name, index in some] for some in values]
        return [[one for one in some if any((marked(dim.name) or (0,))[0] == 1 for dim in one.dims)] for some in found]

    def price(self, block: int, rows: int, length: int, context: int) -> Price:
        """A slice of `length` tokens behind `context` earlier ones, of a microbatch of so many rows."""
        block, sizes = self.alike[block], (rows, length, context)
        if (block, sizes) not in self.priced:
            forward, input_, weight = (self._half_s(block, half, sizes) for half in HALVES)
            crossing = self.crossing_bytes(block, sizes)
            self.priced[block, sizes] = Price(
                forward, input_, weight,
                crossing / self.link.bandwidth_bytes_per_s, self.link.latency_s * len(self.crossing[block]),
                self._bytes(self.kept[block], sizes), self._bytes(self.held[block], sizes),
            )  # fmt: skip
        return self.priced[block, sizes]

    def crossing_bytes(self, block: int, sizes: Sizes) -> int:
        """What a slice of a block's output has."""
        return self._bytes(self.crossing[block], sizes)

    def nodes(self, block: int, half: str, sizes: Sizes) -> Iterator[tuple[Node, int]]:
        """The kernels of a block's half in these sizes, each once, and how often it runs."""
        for number, count in self.work[block][half].items():
            yield self._sized(self.kinds[number].node, sizes), count

    def chunk(self, begin: int, end: int, rows: int, length: int, context: int) -> Price:
        """Several blocks one after the other, and the message of the last."""
        parts = [self.price(block, rows, length, context) for block in range(begin, end)]
        return Price(
            sum(p.forward for p in parts), sum(p.input for p in parts), sum(p.weight for p in parts),
            parts[-1].transfer, parts[-1].latency, sum(p.kept_bytes for p in parts), sum(p.held_bytes for p in parts),
        )  # fmt: skip

    def least_s(self, block: int, rows: int, tokens: int, share: float) -> float:
        """No slices of a whole row take less in sum: what reads earlier ones so large a share, all else what it takes
        whole, as nothing that it takes grows faster than the tokens. Of timed kernels nothing is known: 0."""
        if self.ladder is not None:
            return 0.0
        counts = sum((self.work[block][half] for half in HALVES), Counter[int]())
        earlier = Counter({kind: n for kind, n in counts.items() if self.kinds[kind].needs[2]})
        sizes = (rows, tokens, 0)
        return self._seconds(counts - earlier, sizes) + share * self._seconds(earlier, sizes)

    def _half_s(self, block: int, half: str, sizes: Sizes) -> float:
        if self.ladder is not None:
            return self.ladder.seconds(block, half, sizes[1], sizes[2])
        return self._seconds(self.work[block][half], sizes)

    def _seconds(self, work: Mapping[int, int], sizes: Sizes) -> float:
        total = 0.0
        for number, count in work.items():
            kind = self.kinds[number]
            key = number, kind.part_of(sizes)
            if key not in self.timed:
                self.timed[key] = self.node_s(self._sized(kind.node, sizes))
            total += count * self.timed[key]
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


@dataclass(frozen=True)
class _Kind:
    """Nodes that take the same; `needs`: whether rows, length and context stand in their sizes."""

    node: Node
    needs: tuple[bool, bool, bool]

    def part_of(self, sizes: Sizes) -> Sizes:
        """What they need of the sizes, 0 for the rest."""
        (rows, length, context), (by_rows, by_length, by_context) = sizes, self.needs
        return rows if by_rows else 0, length if by_length else 0, context if by_context else 0


def _takes(node: Node) -> object:
    """What says how long a node takes: its operator, types and attributes, and which operands are one."""
    attrs = tuple(sorted(((k, v) for k, v in node.attrs.items() if k != "key"), key=lambda item: item[0]))
    shared = tuple((use.value == other.value) for use in node.uses for other in node.uses)
    return node.op, tuple(use.type for use in node.uses), node.outs, attrs, shared
