"""Whether a loss is far above the recent ones.

In: the losses of the steps, one after another. Out: the highest loss that the next step may have, and what to say of
one above it. The rule is that of OLMo-core's skipped steps (6 standard deviations above the mean of 128 steps), with
the median and the median deviation in their places, which the spikes themselves do not move:

    bound = m + d · max(1.4826 · median |l - m|, m / 100)      m: the median of the last losses l

A loss counts for those after it, however high it was: a new level is no spike for longer than half a window.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .recipe import Spikes

NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
FLOOR = 0.01  # of the median: what a deviation is at least, so that a flat curve has no spikes


@dataclass(frozen=True, slots=True)
class Spike:
    """A loss above the bound: at which step (from 1), and what it was held against."""

    step: int
    loss: float
    median: float
    deviation: float
    steps: int

    def __str__(self) -> str:
        far = (self.loss - self.median) / self.deviation
        return (
            f"the loss {self.loss:.4g} of step {self.step} lies {far:.1f} deviations above the median "
            f"{self.median:.4g} of the {self.steps} steps before (a deviation is {self.deviation:.2g})"
        )


@dataclass(slots=True)
class Watcher:
    """The losses of the last steps."""

    rule: Spikes
    losses: deque[float] = field(init=False)
    high: bool = False  # whether the last loss was above its bound

    def __post_init__(self) -> None:
        self.losses = deque(maxlen=self.rule.window)

    def begin(self, losses: Iterable[float]) -> None:
        """Those of the steps that another process made."""
        self.losses.extend(losses)

    def bound(self) -> float:
        """The highest loss that is no spike; infinity while too few are known."""
        if len(self.losses) < self.rule.window // 2:
            return math.inf
        median, deviation = self._spread()
        return median + self.rule.deviations * deviation

    def see(self, step: int, loss: float) -> Spike | None:
        """The loss of a step; the first one above the bound in a row is a spike."""
        before, bound = self.high, self.bound()
        self.high = loss > bound
        found = self.spike(step, loss) if self.high and not before else None
        if math.isfinite(loss):
            self.losses.append(loss)
        return found

    def spike(self, step: int, loss: float) -> Spike:
        """What is to be said of a loss above the bound."""
        return Spike(step, loss, *self._spread(), len(self.losses))

    def _spread(self) -> tuple[float, float]:
        median = statistics.median(self.losses)
        spread = statistics.median(abs(loss - median) for loss in self.losses)
        return median, max(NORMAL * spread, FLOOR * abs(median), math.ulp(1.0))
