"""Whether a chain has too many blocks for its stages, wherever it is cut: asked before a cut is looked for.

In: the sorts of blocks that there are most of, what each stage has in flight, what a device may hold. Out: a No that
holds for every cut. Most plans of a large cluster do not fit, and show it so without a look at the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from .flights import Flights
from .parts import Part
from .zero import Shared

NEAR = 1e-9  # of the limit: what rounding may take away


@dataclass(frozen=True, slots=True)
class Sort:
    """Blocks that are alike. often: how many; bytes as `stages.Load` has them."""

    often: int
    static: int
    kept: int
    held: int
    momentary: int
    late: int


def sort_of(part: Part, often: int, own: Shared, several: bool, apart: bool) -> Sort:
    """Of blocks of a stage with one chunk. own: of parameters that no block before has. several: microbatches; apart:
    whether the backward is in halves."""
    lasts = own.static + (own.gradients if several else 0)
    beyond = (part.held, part.first, part.late) if apart else (0, part.momentary, 0)
    return Sort(often, lasts, part.kept, *beyond)


def crowded(sorts: Sequence[Sort], flights: Flights, stages: int, limit: int) -> bool:
    """Whether there is no room for all of them.

    A stage with x_k blocks of sort k holds Σ x_k w_k bytes at a moment, and what the last of them needs beyond that:
    for any sizes y_k then Σ x_k y_k ≤ (limit - beyond) max_k y_k / w_k, and all stages together hold Σ often_k y_k.
    These y are what the blocks are in the middle stage.
    """
    sorts = [one for one in sorts if one.static]  # without the others there is no less room
    if not sorts:
        return False
    middle = [_weights(sorts, kept[0], held[0], late) for _, kept, held, late in flights(stages // 2).moments]
    sizes = [max(weights) for weights in zip(*middle, strict=True)]
    terms = [(size, one.static, one.kept, one.held) for one, size in zip(sorts, sizes, strict=True)]
    left = float(sum(one.often * size for one, size in zip(sorts, sizes, strict=True)))
    bytes_ = [limit - min(one.momentary for one in sorts), limit - min(one.late for one in sorts)]  # of a late moment
    for stage in range(stages):
        room = inf
        for _, (kept,), (held,), late in flights(stage).moments:
            there, between = kept + (not late), held + late
            shares = [size / (static + there * own + between * half) for size, static, own, half in terms]
            room = min(room, bytes_[late] * max(shares))
        left -= max(0.0, room)
        if left <= limit * NEAR:
            return False
    return True


def _weights(sorts: Sequence[Sort], kept: int, held: int, late: bool) -> list[int]:
    """What one block of each sort adds to its stage at a moment, beside the microbatches that are in flight then."""
    there, between = kept + (not late), held + late
    return [one.static + there * one.kept + between * one.held for one in sorts]
