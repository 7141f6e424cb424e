"""What a block keeps that is too large for an integer program: one memory after another is given up, or taken back.

In: a block and a bound on its bytes. Out: the values that it keeps. A descent over single memories, those first that
take least time for a byte to make again: until nothing is over the bound, then until no time is saved. Nothing is said
of how far from the best that is; it is never larger than keeping all, and as slow only where it must be.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .block import Block

_SWEEPS = 20  # over all memories; a few are enough
Cost = tuple[float, ...]


def runs_again(block: Block, kept: AbstractSet[int]) -> list[int]:
    """The position at which each node runs again, at the first use of what is not kept; `block.positions`: at none."""
    first = [block.positions] * len(block.nodes)
    for v, made in enumerate(block.values):
        if made.reads and v not in kept:
            first[made.node] = min(first[made.node], made.reads[0])
    for node in reversed(range(len(block.nodes))):
        for v in block.operands[node]:
            if v not in kept:
                first[block.values[v].node] = min(first[block.values[v].node], first[node])
    return first


def latest(block: Block) -> list[int]:
    """The last position at which each node can be computed again: where its results are first read, or made use of."""
    found = [-1] * len(block.nodes)
    first: dict[int, int] = {}
    for made in block.values:
        if made.reads:
            first[made.node] = min(first.get(made.node, made.reads[0]), made.reads[0])
    for node in reversed(range(len(block.nodes))):
        found[node] = max(found[node], first.get(node, -1))
        for v in block.operands[node]:
            maker = block.values[v].node
            if maker not in first:
                found[maker] = max(found[maker], found[node])
    return found


def must_keep(block: Block) -> set[int]:
    """What other blocks read, in their backward or to run again."""
    return {v for v, made in enumerate(block.values) if made.outside} | {v for read in block.before for v in read}


def smallest(block: Block) -> frozenset[int]:
    """What is kept of the least memory that was found."""
    descent = _Descent(block, None)
    return min(map(descent.down, (descent.everything, must_keep(block))), key=descent.cost)


def fastest_within(block: Block, bound_bytes: float) -> frozenset[int] | None:
    """What is kept of the fastest choice that was found within a bound; None where none was found."""
    descent = _Descent(block, bound_bytes)
    kept = descent.down(descent.everything)
    if descent.cost(kept)[0] > 0:
        kept = descent.down(smallest(block))
    return kept if descent.cost(kept)[0] == 0 else None


@dataclass(frozen=True)
class _Descent:
    """From any choice to one that no single memory makes better. bound: None, if bytes alone count."""

    block: Block
    bound: float | None

    @property
    def everything(self) -> frozenset[int]:
        """All values."""
        return frozenset(range(len(self.block.values)))

    def down(self, begin: AbstractSet[int]) -> frozenset[int]:
        """Where it ends that begins there."""
        kept, best = frozenset(begin), self.cost(begin)
        for _ in range(_SWEEPS):
            before = best
            for values in self._moves:
                other = kept - values if values <= kept else kept | values
                cost = self.cost(other)
                if cost < best:
                    kept, best = other, cost
            if best == before:
                break
        return kept

    def cost(self, kept: AbstractSet[int]) -> Cost:
        """What is over the bound, seconds, bytes; without a bound bytes, and the sum of bytes over all positions."""
        import numpy as np  # late: loading it takes a fifth of checking a spec

        block, first = self.block, runs_again(self.block, kept)
        again = [node for node, at in enumerate(first) if at < block.positions]
        if any(v not in kept for node in again for v in block.before[node]):
            return (float("inf"),)  # to run them again, more must be kept
        alive = np.zeros((len(block.bytes), block.positions), bool)
        held = np.zeros(len(block.bytes), bool)
        for v, made in enumerate(block.values):
            begin = 0 if v in kept else first[made.node]
            if made.memory is not None and begin < block.positions:
                ends = (self._latest[w] for w in self._readers[v] if first[w] < block.positions)
                alive[made.memory, begin : max(self._last[v], *ends, -1) + 1] = True
                held[made.memory] |= v in kept
        course = np.asarray(block.gradients) + self._sizes @ alive
        size = (block.copies - 1) * float(self._sizes @ held) + float(course.max(initial=0.0))
        if self.bound is None:
            return size, float(course.sum())
        return max(0.0, size - self.bound), sum(block.seconds[node] for node in again), size

    @cached_property
    def _sizes(self) -> Any:
        import numpy as np

        return np.asarray(self.block.bytes, float)

    @cached_property
    def _latest(self) -> list[int]:
        return latest(self.block)

    @cached_property
    def _last(self) -> list[int]:
        """Where the backward reads each value for the last time."""
        end = self.block.positions - 1
        return [end if made.outside else max(made.reads, default=-1) for made in self.block.values]

    @cached_property
    def _readers(self) -> list[list[int]]:
        """The nodes that read each value."""
        found: list[list[int]] = [[] for _ in self.block.values]
        for node, read in enumerate(self.block.operands):
            for v in read:
                found[v].append(node)
        return found

    @cached_property
    def _moves(self) -> list[frozenset[int]]:
        """The values of each memory that no other block reads, what is cheapest for a byte to make again first."""
        block = self.block
        members: dict[int, list[int]] = {}
        for v, made in enumerate(block.values):
            if made.memory is not None:
                members.setdefault(made.memory, []).append(v)

        def rate(memory: int) -> float:
            nodes = {block.values[v].node for v in members[memory]}
            return sum(block.seconds[node] for node in nodes) / max(1, block.bytes[memory])

        free = [m for m in members if not any(block.values[v].outside for v in members[m])]
        return [frozenset(members[m]) for m in sorted(free, key=rate)]
