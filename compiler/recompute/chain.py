"""From the least memory to the least time: choices for a whole step, one a little larger and faster than the last.

In: a step's blocks. Out: a `Chain`. Each block's frontier is what the integer program gives at several bounds, of which
the lower convex hull is taken. A step of the chain moves one layer along its hull to the next point, those that save
most seconds a byte first: on the hull that is the optimum for every sum of bytes that the chain reaches. Of layers that
are alike the last keep more, because their backward is over first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .block import Block, Value
from .program import Choice, cheapest, least_bytes

BOUNDS = 10  # points of a frontier at most, evenly between the least and the most that a block can make use of


@dataclass(frozen=True, slots=True)
class Move:
    """One layer of one block goes from a point of its frontier to the next."""

    block: int
    layer: int
    point: int
    seconds_a_byte: float


@dataclass(frozen=True, slots=True)
class Chain:
    """frontiers: of each block its points, the smallest first. moves: in order; after all, every layer is fastest."""

    blocks: tuple[Block, ...]
    frontiers: tuple[tuple[Choice, ...], ...]
    moves: tuple[Move, ...]

    def __len__(self) -> int:
        return len(self.moves) + 1

    def values(self, at: int) -> frozenset[Value]:
        """What is made again after so many moves."""
        points = {(b, layer): 0 for b, block in enumerate(self.blocks) for layer in range(len(block.alike))}
        for move in self.moves[:at]:
            points[move.block, move.layer] = move.point
        return frozenset(
            value
            for (b, layer), point in points.items()
            for value in _values(self.blocks[b], layer, self.frontiers[b][point])
        )

    def seconds(self, at: int) -> float:
        """What making that again takes."""
        total = sum(len(b.alike) * f[0].seconds for b, f in zip(self.blocks, self.frontiers, strict=True))
        for move in self.moves[:at]:
            frontier = self.frontiers[move.block]
            total += frontier[move.point].seconds - frontier[move.point - 1].seconds
        return total


def chain_of(blocks: Sequence[Block]) -> Chain:
    """The chain of a step's blocks."""
    frontiers = tuple(frontier(block) for block in blocks)
    moves: list[Move] = []
    for b, points in enumerate(frontiers):
        layers = len(blocks[b].alike)
        for at, (small, large) in enumerate(pairwise(points), 1):
            gain = (small.seconds - large.seconds) * layers / max(1, large.bytes - small.bytes)
            moves += [Move(b, layer, at, gain) for layer in reversed(range(layers))]
    # A hull's gains fall along it, and sorting is stable: a layer's moves stay in order.
    return Chain(tuple(blocks), frontiers, tuple(sorted(moves, key=lambda move: -move.seconds_a_byte)))


def frontier(block: Block) -> tuple[Choice, ...]:
    """Choices for a block on the convex hull of time against memory, the smallest first, the fastest last."""
    fastest = cheapest(block, float("inf"))
    assert fastest is not None, "keeping all is a choice"
    least = least_bytes(block)
    found = [fastest]
    for number in reversed(range(BOUNDS)):
        bound = least + (fastest.bytes - least) * number / BOUNDS
        if bound < found[-1].bytes:
            choice = cheapest(block, bound)
            found += [choice] if choice is not None else []
    return _hull(found)


def _hull(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """The lower convex hull, by Andrew's monotone chain; what is slower and no smaller than another falls away."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (one.bytes, one.seconds)):
        if hull and choice.seconds >= hull[-1].seconds:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return tuple(hull)


def _slope(small: Choice, large: Choice) -> float:
    """Seconds saved for each byte more."""
    return (small.seconds - large.seconds) / (large.bytes - small.bytes)


def _values(block: Block, layer: int, choice: Choice) -> Iterable[Value]:
    names = block.alike[layer]
    return ((names[block.values[v].value[0]], block.values[v].value[1]) for v in choice.again)
