"""Whether a chain has too many blocks for its stages, wherever it is cut: asked before a cut is looked for.

In: the sorts of blocks that there are most of, what each stage has in flight, what a device may hold. Out: a No that
holds for every cut. Most plans of a large cluster do not fit, and show it so without a look at the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from .flights import Flights, Moment

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


def crowded(sorts: Sequence[Sort], flights: Flights, stages: int, limit: int) -> bool:
    """Whether there is no room for all of them.

    A stage with x_k blocks of sort k holds Σ x_k w_k bytes at a moment, and what the last of them needs beyond that:
    for any sizes y_k then Σ x_k y_k ≤ (limit - beyond) max_k y_k / w_k, and all stages together hold Σ often_k y_k.
    These y are what the blocks are in the middle stage.
    """
    middle = flights(stages // 2).moments
    sizes = [max(weights) for weights in zip(*(_weights(sorts, moment) for moment in middle), strict=True)]
    left = float(sum(one.often * size for one, size in zip(sorts, sizes, strict=True)))
    beyond = [min(one.momentary for one in sorts), min(one.late for one in sorts)]  # by whether a moment is late
    for stage in range(stages):
        left -= min(_room(sorts, sizes, moment, limit - beyond[moment.late]) for moment in flights(stage).moments)
        if left <= limit * NEAR:
            return False
    return True


def _room(sorts: Sequence[Sort], sizes: Sequence[int], moment: Moment, bytes_: int) -> float:
    """The most of these sizes that have room at a moment."""
    if bytes_ <= 0:
        return 0.0
    weights = _weights(sorts, moment)
    return bytes_ * max([size / weight if weight else inf for size, weight in zip(sizes, weights, strict=True)])


def _weights(sorts: Sequence[Sort], moment: Moment) -> list[int]:
    """What one block of each sort adds to its stage at a moment of a schedule with one chunk a device."""
    _, (kept,), (held,), late = moment
    there, between = kept + (not late), held + late
    return [one.static + there * one.kept + between * one.held for one in sorts]
