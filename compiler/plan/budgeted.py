"""Prices of plans that compute again as little as fits a device: `recompute = budget(…)`.

In: the prices of a unit that keeps everything, the ladder of what it may compute again. Out: the same questions
answered, each plan on the first rung on which it fits. More rungs take longer and keep less, so no smaller budget is
faster; where nothing need be computed again the plan is that of `none`. The ladder is made when a plan needs it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from .ladder import Ladder
from .parts import Parts
from .price import Pricing
from .priced import Priced
from .space import Choice

PLACES = 4  # where else it is looked, evenly along the ladder, where the last rung does not fit


@dataclass
class Budgeted:
    """plain: of the unit that keeps everything: no plan takes less. make: its ladder."""

    plain: Pricing
    make: Callable[[], Ladder]
    _rungs: dict[int, Pricing] = field(default_factory=dict[int, Pricing])
    _found: dict[tuple[Choice, tuple[int, ...]], Pricing | None] = field(
        default_factory=dict[tuple[Choice, tuple[int, ...]], "Pricing | None"]
    )

    @property
    def parts(self) -> Parts:
        """Of the unit, nothing computed again."""
        return self.plain.parts

    @property
    def microbatch_s(self) -> float:
        """Seconds of a microbatch at the least."""
        return self.plain.microbatch_s

    def once_s(self, choice: Choice) -> float:
        """What a step takes beside its microbatches."""
        return self.plain.once_s(choice)

    def may_fit(self, choice: Choice) -> bool:
        """False only where no rung fits, however stages are cut."""
        return self.plain.may_fit(choice) or self.least_bytes(choice) <= self.plain.limit

    def least_bytes(self, choice: Choice) -> float:
        """Some device of a plan holds no less, whatever is computed again."""
        return self.plain.least_bytes(choice) - self._ladder.saved[-1] / choice.pipe

    def bound_s(self, choice: Choice) -> float:
        """No more than the plan takes; more than nothing computed again once the ladder is there."""
        if "_ladder" not in self.__dict__ or self.plain.may_fit(choice):
            return self.plain.bound_s(choice)
        first = self._first(choice)
        return float("inf") if first is None else self._rung(first).bound_s(choice)

    def placed_bound_s(self, choice: Choice) -> float | None:
        """No more than the plan takes with the stages that it has; None where it does not fit."""
        found = self._fitting(choice, ())
        return None if found is None else found.placed_bound_s(choice)

    def price(self, choice: Choice, balance: tuple[int, ...] = ()) -> Priced | None:
        """The plan on the first rung that fits; None where none does."""
        found = self._fitting(choice, balance)
        priced = None if found is None else found.price(choice, balance)
        return None if priced is None else replace(priced, budget_bytes=self.plain.limit)

    @cached_property
    def _ladder(self) -> Ladder:
        return self.make()

    def _rung(self, number: int) -> Pricing:
        if number not in self._rungs:
            plain = self.plain
            self._rungs[number] = Pricing(
                self._ladder.at(number), plain.cluster, plain.limit, plain.flown, plain.known
            ) if number else plain  # fmt: skip
        return self._rungs[number]

    def _first(self, choice: Choice) -> int | None:
        """The first rung that may fit: what all devices have together."""
        saved = self._ladder.saved
        needed = (self.plain.least_bytes(choice) - self.plain.limit) * choice.pipe
        return None if needed > saved[-1] else bisect_left(saved, needed)

    def _fitting(self, choice: Choice, balance: tuple[int, ...]) -> Pricing | None:
        """The prices of the first rung that fits."""
        key = (choice, balance)
        if key not in self._found:
            number = self._number(choice, balance)
            self._found[key] = None if number is None else self._rung(number)
        return self._found[key]

    def _number(self, choice: Choice, balance: tuple[int, ...]) -> int | None:
        """The first rung that fits, by halves."""

        def fits(rung: int) -> bool:
            return self._rung(rung).fits(choice, balance)

        if self.plain.fits(choice, balance):
            return 0
        low = self._first(choice)
        if low is None:
            return None
        if fits(low):
            return low
        last = len(self._ladder) - 1
        places = [last - (last - low) * place // PLACES for place in range(PLACES)]
        high = next((place for place in places if place > low and fits(place)), None)
        while high is not None and high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high
