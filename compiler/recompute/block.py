"""A block as a problem: what its backward needs of its forward, when, and what each value takes to keep or make again.

In: a graph with its backward. Out: a `Block` for each distinct layer of a chain, and one for what stands in no layer.
Positions count the moments of the block's backward at which it first reads something of its forward; what lies between
two of them is the later one's. A value that is a view has the memory of what it is a view of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..cost.roofline import VIEWS
from ..ir.graph import Graph
from ..ir.types import Layer, Node, Phase
from ..ops.shapes import elements
from ..partition.fold import fold

Value = tuple[str, int]
# What the backward has anyway, and what a program writes as a number.
GIVEN = frozenset({"parameter", "state", "input", "constant", "start", "extent", "step", "seed"})


@dataclass(frozen=True, slots=True)
class Made:
    """A value that the forward makes.

    node     which of the block's forward nodes makes it
    memory   which of the block's memories it lies in; None: in one that the block does not own
    reads    positions of the backward at which it is read
    outside  whether the backward of another block reads it: it is kept
    """

    value: Value
    node: int
    memory: int | None
    reads: tuple[int, ...] = ()
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """One block that stands for `alike` many.

    nodes     ids of its forward nodes, in order, with the seconds that each takes to run again
    operands  of each node, the block's values that it reads
    before    of each node, the block's own values of which it reads the previous layer's: to run it again, keep them
    bytes     of each memory; gradients: what the backward itself has alive at each position
    flights   microbatches of which each block keeps its values at a time, as a pipeline's stage does
    """

    nodes: tuple[str, ...]
    seconds: tuple[float, ...]
    values: tuple[Made, ...]
    operands: tuple[tuple[int, ...], ...]
    before: tuple[tuple[int, ...], ...]
    bytes: tuple[int, ...]
    gradients: tuple[int, ...]
    alike: tuple[Mapping[str, str], ...]  # for each block: this one's node ids as that one's
    flights: int = 1

    @property
    def copies(self) -> int:
        """How many times what one block keeps is there."""
        return len(self.alike) * self.flights

    @property
    def positions(self) -> int:
        """How many moments the backward has."""
        return len(self.gradients)


def blocks_of(graph: Graph, seconds: Callable[[Node], float]) -> list[Block]:
    """The distinct blocks, those of layers first. Blocks of which the backward needs nothing are left out."""
    folded = fold(graph)
    members: dict[Layer | None, list[Node]] = defaultdict(list)
    for node in graph:
        if node.phase in (Phase.FORWARD, Phase.BACKWARD):
            members[node.layer].append(node)
    kinds: dict[tuple[object, ...], list[Layer | None]] = defaultdict(list)
    for layer, nodes in members.items():
        forward = (folded.of[node.id] for node in nodes if node.phase is Phase.FORWARD)
        kinds[(None if layer is None else layer.chain, *forward)].append(layer)
    found: list[Block] = []
    for layers in sorted(kinds.values(), key=lambda group: group[0] is None):
        middle = layers[len(layers) // 2]
        by_class = [{folded.of[n.id]: n.id for n in members[layer] if n.phase is Phase.FORWARD} for layer in layers]
        here = by_class[len(layers) // 2]
        alike = tuple({node: other[name] for name, node in here.items()} for other in by_class)
        one = _Reader(graph, members[middle], middle, folded.of, seconds).block(alike)
        if one.positions:
            found.append(one)
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one block off the graph."""

    graph: Graph
    members: Sequence[Node]
    layer: Layer | None
    of: Mapping[str, str]
    seconds: Callable[[Node], float]

    def block(self, alike: tuple[Mapping[str, str], ...]) -> Block:
        forward = [n for n in self.members if n.phase is Phase.FORWARD and n.op not in GIVEN]
        backward = [n for n in self.members if n.phase is Phase.BACKWARD]
        values = [(node.id, i) for node in forward for i in range(len(node.outs))]
        number = {value: at for at, value in enumerate(values)}
        reads, moments = self._reads(backward, number)
        outside = self._outside(number)
        memories, sizes = self._memories(forward)
        index = {node.id: at for at, node in enumerate(forward)}
        made = tuple(
            Made(value, index[value[0]], memories[value], tuple(sorted(reads.get(value, ()))), value in outside)
            for value in values
        )
        return Block(
            tuple(index),
            tuple(map(self.seconds, forward)),
            made,
            tuple(tuple(dict.fromkeys(number[u.value] for u in n.uses if u.value in number)) for n in forward),
            tuple(tuple(self._before(node, number)) for node in forward),
            tuple(sizes),
            _gradients(self.graph, backward, moments),
            alike,
        )

    def _reads(self, backward: Sequence[Node], number: Mapping[Value, int]) -> tuple[dict[Value, set[int]], list[int]]:
        """The positions that read each value, and for each position where in the backward it is."""
        reads: dict[Value, set[int]] = defaultdict(set)
        moments: list[int] = []
        for at, node in enumerate(backward):
            read = {use.value for use in node.uses if use.value in number}
            if read:
                for value in read:
                    reads[value].add(len(moments))
                moments.append(at)
        return reads, moments

    def _outside(self, number: Mapping[Value, int]) -> set[Value]:
        """What the backward of other blocks reads."""
        inside = {node.id for node in self.members}
        readers = (n for n in self.graph if n.phase in (Phase.BACKWARD, Phase.UPDATE) and n.id not in inside)
        asked = {use.value for use in self.graph.outputs.values()}
        return {use.value for node in readers for use in node.uses if use.value in number} | (asked & number.keys())

    def _memories(self, forward: Sequence[Node]) -> tuple[dict[Value, int | None], list[int]]:
        """The memory of each value, and the memories' sizes."""
        memory: dict[Value, int | None] = {}
        sizes: list[int] = []
        for node in forward:
            for i, out in enumerate(node.outs):
                if node.op in VIEWS or node.op == "stop":
                    memory[node.id, i] = memory.get(node.uses[0].value)
                else:
                    memory[node.id, i] = len(sizes)
                    sizes.append(elements(out.dims) * out.dtype.itemsize_bytes)
        return memory, sizes

    def _before(self, node: Node, number: Mapping[Value, int]) -> Iterator[int]:
        """This block's values that stand for what a node reads of the layer before it."""
        mine = {self.of[value[0]]: value[0] for value in number}
        for use in node.uses:
            other = self.graph[use.node].layer
            if other is not None and self.layer is not None and other != self.layer and other.chain == self.layer.chain:
                twin = mine.get(self.of[use.node])
                if twin is not None:
                    yield number[twin, use.output]


def _gradients(graph: Graph, backward: Sequence[Node], moments: Sequence[int]) -> tuple[int, ...]:
    """The most bytes that values of the backward have alive up to each moment, from the moment before on."""
    mine = {node.id: at for at, node in enumerate(backward) if node.op != "accumulate"}
    last: dict[str, int] = dict(mine)
    for at, node in enumerate(backward):
        last.update((use.node, at) for use in node.uses if use.node in mine)
    alive = [0] * (len(backward) + 1)
    for name, at in mine.items():
        node = graph[name]
        if node.op not in VIEWS and node.op not in GIVEN:
            size = sum(elements(out.dims) * out.dtype.itemsize_bytes for out in node.outs)
            alive[at] += size
            alive[last[name] + 1] -= size
    total, course = 0, list[int]()
    for change in alive[:-1]:
        total += change
        course.append(total)
    ends = [*moments[1:], len(backward)]
    return tuple(max(course[begin:end], default=0) for begin, end in zip(moments, ends, strict=True))
