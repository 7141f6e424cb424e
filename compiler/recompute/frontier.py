"""A block's time against its memory: what the integer program gives at several bounds, and the convex hull of that.

In: a step's graph, or a device's own of a laid-out step, and what a node takes to run. Out: for each distinct block its
points, from the least memory to the least time. Nothing is lowered and no torch is loaded: a transformer's block takes
some tenths of a second.

    for block in frontiers(local, seconds):        # whoever plans
        for point in block.points:
            device_bytes = layers * flights * point.kept_bytes + (point.working_bytes - point.kept_bytes)
            device_s = layers * point.seconds      # a microbatch more
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..ir.graph import Graph
from ..ir.types import Node
from .block import Block, blocks_of
from .program import Choice, cheapest, least_bytes

BOUNDS = 10  # points of a frontier at most, evenly between the least and the most that a block can make use of


@dataclass(frozen=True, slots=True)
class Frontier:
    """What one distinct block can keep and make again.

    block   what was asked of the integer program; `block.values[v]` for v in a point's `again` are values of the layer
            that stands for all, `block.alike[i]` the names of its nodes in the i-th
    points  on the convex hull, the smallest first; the last makes nothing again. Of one block and microbatch: seconds
            more in its backward, bytes that it keeps from its forward to its backward, bytes in its backward at most
    """

    block: Block
    points: tuple[Choice, ...]


def frontiers(graph: Graph, seconds: Callable[[Node], float], flights: int = 1) -> tuple[Frontier, ...]:
    """The frontiers of a step's distinct blocks, those of layers first, the rest of the model last.

    graph    forward and backward with phases; as a device has it, if bytes are to be a device's
    seconds  of a node, computed again; of a collective too, which is then sent again
    flights  microbatches that a block keeps at a time. It weighs what is kept against what the block in its backward
             has besides: a planner that does not know it asks once with 1
    """
    found = (replace(block, flights=flights) for block in blocks_of(graph, seconds))
    return tuple(Frontier(block, frontier(block)) for block in found)


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
