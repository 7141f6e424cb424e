"""Which chunk of a pipeline each node of a step belongs to, in which half of it, and what crosses between chunks.

In: one device's step graph, the blocks of each chunk, the chunks' devices. Out: a `Chunked`: a chunk and a half for
every node that runs once a microbatch, and for each border the values that go over it, activations down and gradients
up. What later chunks need is passed on from chunk to chunk, and a device that has a value once keeps it. What is made
of positions, keys of randomness or ids alone crosses nothing: each device makes it itself. Where rows are cut into
token slices, a half of a chunk is that of one slice: what it reads of others it reads on its own device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..cost.memory import STORED
from ..ir.graph import Graph, GraphBuilder
from ..ir.slices import slice_of
from ..ir.types import Dims, Node, Phase, Use
from ..ops.collectives import COLLECTIVES
from .actions import Kind
from .blocks import Chain, original

Value = tuple[str, int]
Half = Kind  # FORWARD, INPUT or WEIGHT
Place = tuple[Half, int, int]  # a half of a chunk, for a token slice
Homes = frozenset[int]  # the devices that have a value
LINEAR = frozenset({"add", "cast", "transpose"})  # what may stand between a gradient's terms and their sum
MICROBATCH = frozenset({Phase.FORWARD, Phase.BACKWARD})


@dataclass(frozen=True)
class Sum:
    """What microbatches add up: the terms of one `accumulate`, by the device that makes them.

    Where several devices do (a tied table), each adds up its own, and they are joined once a step.
    """

    root: Node
    terms: Mapping[int, tuple[Use, ...]]
    inner: frozenset[str]  # the nodes between the terms and the root

    @property
    def spread(self) -> bool:
        """Whether several devices make terms."""
        return len(self.terms) > 1


@dataclass(frozen=True)
class Chunked:
    """The cut.

    place        half, chunk and slice of each node that a microbatch runs, except those in `free`
    free         nodes that every device may make for itself, and leaves
    sums         by the id of their `accumulate`
    activations  border c: the values that chunk c sends to chunk c + 1
    gradients    border c: the values that chunk c + 1 sends to chunk c
    """

    step: Graph
    placement: tuple[int, ...]
    place: Mapping[str, Place]
    free: frozenset[str]
    sums: Mapping[str, Sum]
    activations: tuple[tuple[Value, ...], ...]
    gradients: tuple[tuple[Value, ...], ...]

    @property
    def devices(self) -> int:
        """How many stages there are."""
        return max(self.placement) + 1

    def device(self, node: str) -> int:
        """Where a node of a microbatch runs."""
        return self.placement[self.place[node][1]]


def is_before(node: Node) -> bool:
    """Whether a value is there before the microbatches, or comes with them."""
    return node.phase is Phase.PREPARE or node.op == "input"


def names_of(step: Graph, cuts: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The chunk of each block by its name: so other graphs of the same model are cut alike."""
    names = Chain(step).names
    return {names[at]: chunk for chunk, (begin, end) in enumerate(cuts) for at in range(begin, end)}


def chunked(step: Graph, chunk_of: Mapping[str, int], placement: Sequence[int], slices: int = 1) -> Chunked:
    """Cuts a graph whose rows are so many slices. A block without a chunk goes with the one before it."""
    chain = Chain(step)
    chunks: list[int] = []
    for name in chain.names:
        chunks.append(max(chunk_of.get(name, 0), chunks[-1] if chunks else 0))
    step = _keeping(step, {name: chunks[block] for name, block in chain.block.items()})
    free, slice_ = _free(step), _slices(step, slices)
    place = {
        node.id: (_half(node, chain), chunks[chain.block[node.id]], slice_[node.id])
        for node in step
        if node.phase in MICROBATCH and node.id not in free
    }
    sums = _sums(step, place, placement)
    routes = _Routes(step, tuple(placement), place, sums)
    return Chunked(step, tuple(placement), place, free, sums, *routes.found())


def _keeping(step: Graph, chunk: Mapping[str, int]) -> Graph:
    """What one chunk computes again, others keep: they read the value of the forward, which they were sent."""

    def turn(use: Use, reader: Node) -> Use:
        first = original(step[use.node], step)
        return use if first is None or chunk[use.node] == chunk[reader.id] else replace(use, node=first.id)

    builder = GraphBuilder.rewriting(step)
    for node in step:
        backward = node.phase is Phase.BACKWARD
        builder.add(replace(node, uses=tuple(turn(use, node) for use in node.uses)) if backward else node)
    for name, use in step.outputs.items():
        builder.output(name, use)
    for key, body in step.bodies.items():
        builder.body(key, body)
    return builder.finish()


def _slices(step: Graph, count: int) -> dict[str, int]:
    """The slice that each node of a microbatch runs with: never before what it reads. Backward, slices go in reverse,
    and what is computed again is there for the first that reads it."""
    asked: dict[str, int] = {}  # of what is computed again: the first slice to go backward that reads it
    for node in reversed(list(step)):
        again = original(node, step) is not None
        mine = max(asked.get(node.id, 0) if again else 0, slice_of(node) or 0)
        for use in node.uses if node.phase is Phase.BACKWARD else ():
            asked[use.node] = max(asked.get(use.node, 0), mine)
    found: dict[str, int] = {}
    for node in step:
        if node.phase in MICROBATCH:
            mine, before = slice_of(node), [found[u.node] for u in node.uses if step[u.node].phase is node.phase]
            if node.phase is Phase.FORWARD:
                found[node.id] = max((mine or 0, *before))
            elif original(node, step) is not None:
                found[node.id] = max(mine or 0, asked.get(node.id, 0))
            else:
                found[node.id] = min((count - 1 if mine is None else mine, *before))
    return found


def _half(node: Node, chain: Chain) -> Half:
    if node.phase is Phase.FORWARD:
        return Kind.FORWARD
    return Kind.WEIGHT if node.id in chain.weights else Kind.INPUT


def _free(step: Graph) -> frozenset[str]:
    """Nodes of a microbatch that are made of no parameter, no state and no number of the data but ids and masks."""
    found: set[str] = set()
    plain: set[str] = set()  # that no data is in
    for node in step:
        if node.op in STORED or node.op in COLLECTIVES or not node.outs:
            continue
        if not all(use.node in found for use in node.uses):
            continue
        bare = node.op != "input" and all(use.node in plain for use in node.uses)
        if bare:
            plain.add(node.id)
        if bare or node.op == "input" or not any(out.dtype.is_float for out in node.outs):
            found.add(node.id)
    return frozenset(found)


def _sums(step: Graph, place: Mapping[str, Place], placement: Sequence[int]) -> dict[str, Sum]:
    """Every sum over microbatches with its terms, looked for through sums, casts and orders of axes."""
    readers = Counter(use.node for node in step for use in node.uses)

    def terms(use: Use, kind: Dims, inner: set[str]) -> Iterator[Use]:
        node = step[use.node]
        alike = all(set(one.dims) == set(kind) for one in (*node.uses, *node.outs))
        if node.id in place and node.op in LINEAR and alike and readers[node.id] == 1:
            inner.add(node.id)
            for one in node.uses:
                yield from terms(one, kind, inner)
        else:
            yield use

    found: dict[str, Sum] = {}
    for node in step:
        if node.op == "accumulate" and node.id in place:
            inner: set[str] = set()
            by_device: dict[int, tuple[Use, ...]] = {}
            for use in terms(node.uses[0], node.uses[0].dims, inner):
                device = placement[place.get(use.node, place[node.id])[1]]
                by_device[device] = (*by_device.get(device, ()), use)
            found[node.id] = Sum(node, by_device, frozenset(inner))
    return found


@dataclass
class _Routes:
    """Who reads what where."""

    step: Graph
    placement: tuple[int, ...]
    place: Mapping[str, Place]
    sums: Mapping[str, Sum]
    down: list[dict[Value, None]] = field(init=False)
    up: list[dict[Value, None]] = field(init=False)

    def __post_init__(self) -> None:
        borders = max(len(self.placement) - 1, 0)
        self.down, self.up = [{} for _ in range(borders)], [{} for _ in range(borders)]
        readers: dict[Value, set[int]] = {}
        spread = {name for one in self.sums.values() if one.spread for name in (*one.inner, one.root.id)}
        for node in self.step:
            if node.id in self.place and node.id not in spread:
                for use in node.uses:
                    readers.setdefault(use.value, set()).add(self.place[node.id][1])
        for value, chunks in readers.items():
            if value[0] in self.place:
                self._route(value, chunks)

    def _route(self, value: Value, readers: set[int]) -> None:
        half, start, _ = self.place[value[0]]
        have = {self.placement[start]}
        self._walk(value, start, 1, [c for c in readers if c > start], have, self.down)
        early = [c for c in readers if c < start and self.placement[c] not in have]
        assert not early or half is not Kind.WEIGHT, f"{value[0]} is made after its gradient is sent"
        self._walk(value, start, -1, early, have, self.up)

    def _walk(
        self, value: Value, start: int, step: int, readers: Sequence[int], have: set[int],
        borders: list[dict[Value, None]],
    ) -> None:  # fmt: skip
        """On from chunk to chunk as far as a device needs it that has it not."""
        nearest: dict[int, int] = {}
        for chunk in readers:
            device = self.placement[chunk]
            known = nearest.get(device, chunk)
            nearest[device] = min(known, chunk) if step > 0 else max(known, chunk)
        ends = [chunk for device, chunk in nearest.items() if device not in have]
        end = (max(ends) if step > 0 else min(ends)) if ends else start
        for chunk in range(start, end, step):
            following = self.placement[chunk + step]
            if following not in have:
                have.add(following)
                borders[min(chunk, chunk + step)][value] = None

    def found(self) -> tuple[tuple[tuple[Value, ...], ...], tuple[tuple[Value, ...], ...]]:
        """Downward and upward."""
        return tuple(map(tuple, self.down)), tuple(map(tuple, self.up))
