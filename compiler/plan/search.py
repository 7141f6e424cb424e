"""The search: best first by bounds, so that nothing that could be best is left unpriced.

In: a space, the layouts of a recipe, a limit of memory. Out: what is found, better and better. A unit (plans that share
a layout) is opened when its bound comes up, a plan is placed when its own does, and priced when the bound with its
stages does; the best is proven when no bound is below its price. Where nothing of a unit fits into memory,
nothing fits with more rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from .layouts import Layouts
from .price import Flights, Priced, Pricing
from .space import Choice, Space, Unit

BEST = 10  # plans that are told of


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the search is: the best plans so far, the fastest first, and what was looked at.

    bound_s: no plan takes less. opened: layouts; priced: plans; over: whether the best is proven.
    """

    best: tuple[Priced, ...]
    bound_s: float
    opened: int
    priced: int
    over: bool = False


@dataclass(order=True, slots=True)
class _Entry:
    """A unit, or a plan, perhaps with its stages placed."""

    bound: float
    number: int
    item: Unit | Choice = field(compare=False)
    placed: bool = field(compare=False, default=False)


@dataclass
class _Known:
    """Of units with one mesh and one policy: seconds of a microbatch by its rows, and the rows that do not fit."""

    seconds: dict[int, float] = field(default_factory=dict[int, float])
    core: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    too_many: float = float("inf")
    same: bool = False  # as the first policy's


@dataclass
class Search:
    """One search. `run` gives a `Progress` whenever there is something new."""

    space: Space
    layouts: Layouts
    limit: int
    least_s: float = 0.0  # what a step takes at the least, whatever the plan
    balance: tuple[int, ...] = ()
    pricings: dict[Unit, Pricing] = field(default_factory=dict[Unit, Pricing])
    flown: dict[tuple[str, int, int], Flights] = field(default_factory=dict[tuple[str, int, int], Flights])
    _known: dict[tuple[object, str], _Known] = field(default_factory=dict[tuple[object, str], _Known])

    def pricing(self, unit: Unit) -> Pricing:
        """What prices the plans of a unit."""
        if unit not in self.pricings:
            self.pricings[unit] = Pricing(self.layouts.parts(unit), self.layouts.cluster, self.limit, self.flown)
        return self.pricings[unit]

    def run(self) -> Iterator[Progress]:
        """Until the best is proven. Raises SpecError where the spec itself is at fault."""
        heap: list[_Entry] = []
        numbers = count()

        def push(bound: float, item: Unit | Choice, placed: bool = False) -> None:
            heapq.heappush(heap, _Entry(bound, next(numbers), item, placed))

        for unit in self._first_units():
            push(self.least_s, unit)
        best: list[Priced] = []
        opened = priced = 0
        while heap and (len(best) < BEST or heap[0].bound < best[0].seconds):
            entry = heapq.heappop(heap)
            item, proven = entry.item, bool(best) and entry.bound >= best[0].seconds
            if isinstance(item, Unit) and proven:
                continue  # the other plans that are told of are of layouts that are open
            if isinstance(item, Unit):
                bound = self.unit_bound_s(item)
                if bound > entry.bound:  # more is known than when it was put there
                    push(bound, item)
                elif bound < float("inf"):
                    opened += 1
                    for found in self._opened(item):
                        here = self.pricing(found.unit).bound_s(found) if isinstance(found, Choice) else entry.bound
                        push(max(here, entry.bound), found)
                    yield Progress(tuple(best), entry.bound, opened, priced)
            elif not entry.placed:
                bound = self.pricing(item.unit).placed_bound_s(item)
                if bound is not None:
                    push(max(bound, entry.bound), item, True)
            else:
                found = self.pricing(item.unit).price(item, self.balance)
                priced += 1
                if found is not None:
                    best = sorted([*best, found], key=lambda one: (one.seconds, one.peak_bytes))[:BEST]
                    yield Progress(tuple(best), entry.bound, opened, priced)
        yield Progress(tuple(best), best[0].seconds if best else 0.0, opened, priced, True)

    def _first_units(self) -> Iterator[Unit]:
        """For each mesh the unit that is opened first: the others are bounded by it."""
        for inner in self.space.inners():
            units = self.space.units(inner, self.space.policies()[0])
            yield from units[:1]

    def _opened(self, unit: Unit) -> Iterator[Unit | Choice]:
        """The plans of a unit that may fit; of a mesh's first unit, all the other units too.

        Where nothing differs from the first policy's, its plans are the same: the unit is left out.
        """
        pricing, known = self.pricing(unit), self._of(unit)
        first = self._first_of(unit)
        twin = self.pricings.get(Unit(unit.inner, self.space.policies()[0], unit.rows, unit.several))
        if first is not known and twin is not None:
            known.same = pricing.parts == twin.parts
            if known.same:
                return
        is_first = not first.seconds
        known.seconds[unit.rows] = pricing.microbatch_s
        known.core[unit.rows] = (pricing.parts.core_s, pricing.parts.floor_s)
        fitting = [choice for choice in self.space.choices(unit) if pricing.may_fit(choice)]
        if not fitting and unit.several:
            known.too_many = min(known.too_many, unit.rows)
        yield from fitting
        if is_first:
            for policy in self.space.policies():
                yield from (one for one in self.space.units(unit.inner, policy) if one != unit)

    def _of(self, unit: Unit) -> _Known:
        return self._known.setdefault((unit.inner, unit.recompute), _Known())

    def _first_of(self, unit: Unit) -> _Known:
        return self._known.setdefault((unit.inner, self.space.policies()[0]), _Known())

    def unit_bound_s(self, unit: Unit) -> float:
        """No plan of a unit takes less.

        Seconds of a microbatch are a sum of maxima of what is linear in the rows, so convex: on from two that are known
        they grow at least as fast as between them, and fewer rows take at least their share of more. Whatever is
        computed again, the rest is computed too; and part of it grows with the rows just as they do.
        """
        known, first, rows = self._of(unit), self._first_of(unit), unit.rows
        if known.same or (unit.several and rows >= known.too_many):
            return float("inf")
        if not first.seconds:
            return self.least_s
        least = known.seconds.get(rows, 0.0)
        fewer = sorted(one for one in known.seconds if one < rows)[-2:]
        if len(fewer) == 2:
            few, more = (known.seconds[one] for one in fewer)
            least = max(least, more + (more - few) / (fewer[1] - fewer[0]) * (rows - fewer[1]))
        least = max(least, *(s * rows / more for more, s in known.seconds.items() if more > rows), 0)
        for others, (core, floor) in [*known.core.items(), *first.core.items()]:
            least = max(least, core if others == rows else floor * rows / others if rows > others else 0.0)
        return max(self.least_s, self._least_of(unit, least))

    def _least_of(self, unit: Unit, microbatch_s: float) -> float:
        """The least bound of a unit's plans, if a microbatch takes so long; what parameters hold and send is known from
        a unit that is open."""
        if not microbatch_s:
            return 0.0
        rows = next(iter(self._first_of(unit).seconds))
        policy = self.space.policies()[0]
        opened = (Unit(unit.inner, policy, rows, several) for several in (unit.several, not unit.several))
        pricing = next(self.pricings[one] for one in opened if one in self.pricings)
        bounds = (pricing.bound_s(c, microbatch_s) for c in self.space.choices(unit) if pricing.may_fit(c, kept=False))
        return min(bounds, default=float("inf"))
