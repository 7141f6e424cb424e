"""From the least memory to the least time: choices for a whole step, one a little larger and faster than the last.

In: a step's blocks. Out: a `Chain`. A step of the chain moves one layer along its block's frontier to the next point,
those that save most seconds a byte first: on a convex hull that is the optimum for every sum of bytes that the chain
reaches. Of layers that are alike the last keep more, because their backward is over first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from .block import Block, Value
from .frontier import frontier
from .program import Choice


@dataclass(frozen=True, slots=True)
class Move:
    """One layer of one block goes from a point of its frontier to the next."""

    block: int
    layer: int
    point: int
    seconds_a_byte: float


@dataclass(frozen=True)
class Chain:
    """frontiers: of each block its points, the smallest first. moves: in order; after all, every layer is fastest."""

    blocks: tuple[Block, ...]
    frontiers: tuple[tuple[Choice, ...], ...]
    moves: tuple[Move, ...]

    def __len__(self) -> int:
        return len(self.moves) + 1

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """What all blocks keep after each number of moves, in bytes, but for what nothing can make smaller."""

        def more(move: Move) -> int:
            points, block = self.frontiers[move.block], self.blocks[move.block]
            return (points[move.point].bytes - points[move.point - 1].bytes) // len(block.alike)

        return tuple(accumulate(map(more, self.moves), initial=0))

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


def _values(block: Block, layer: int, choice: Choice) -> Iterable[Value]:
    names = block.alike[layer]
    return ((names[block.values[v].value[0]], block.values[v].value[1]) for v in choice.again)
