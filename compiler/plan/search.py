"""The search: best first by bounds, so that nothing that could be best is left unpriced.

In: a space, the layouts of a recipe, a limit of memory. Out: what is found, better and better. A family of plans that
share a layout is opened when its bound comes up, then groups of it when theirs do; a plan is placed when its own bound
comes up, and priced when the bound with its stages does. The best is proven when no bound is below its price.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from .layouts import Layouts
from .price import Flights, Known, Priced, Pricing, Shared
from .space import Axes, Choice, Group, Space, Unit

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


@dataclass(frozen=True, slots=True)
class Family:
    """All plans with one mesh of the axes that cut tensors, and one policy of recomputation."""

    inner: Axes
    recompute: str


@dataclass(order=True, slots=True)
class _Entry:
    """A family, a group of one, or a plan, perhaps with its stages placed."""

    bound: float
    number: int
    item: Family | Group | Choice = field(compare=False)
    placed: bool = field(compare=False, default=False)


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

    known: dict[Known, Shared] = field(default_factory=dict[Known, Shared])
    ends: dict[tuple[Unit, int, bool], tuple[float, float]] = field(
        default_factory=dict[tuple[Unit, int, bool], tuple[float, float]]
    )

    def pricing(self, unit: Unit) -> Pricing:
        """What prices the plans of a unit."""
        if unit not in self.pricings:
            parts, cluster = self.layouts.parts(unit), self.layouts.cluster
            self.pricings[unit] = Pricing(parts, cluster, self.limit, self.flown, self.known)
        return self.pricings[unit]

    def run(self) -> Iterator[Progress]:
        """Until the best is proven, and so many are priced as are told of. Raises SpecError: the spec is at fault."""
        heap: list[_Entry] = []
        numbers = count()

        def push(bound: float, item: Family | Group | Choice, placed: bool = False) -> None:
            heapq.heappush(heap, _Entry(bound, next(numbers), item, placed))

        for inner in self.space.inners():
            push(self.least_s, Family(inner, self.space.policies()[0]))
        best: list[Priced] = []
        opened = priced = 0
        while heap and (len(best) < BEST or heap[0].bound < best[0].seconds):
            entry = heapq.heappop(heap)
            item, proven = entry.item, bool(best) and entry.bound >= best[0].seconds
            if isinstance(item, Family):
                if not proven:  # the other plans that are told of have layouts that are known
                    opened += 1
                    for bound, found in self._opened(item):
                        push(max(bound, entry.bound), found)
                    yield Progress(tuple(best), entry.bound, opened, priced)
            elif isinstance(item, Group):
                pricing = self.pricing(item.unit)
                for choice in self.space.choices(item):
                    if pricing.may_fit(choice):
                        push(max(pricing.bound_s(choice), entry.bound), choice)
            elif not entry.placed:
                bound = self.pricing(item.unit).placed_bound_s(item)
                if bound is not None:
                    push(max(bound, entry.bound), item, True)
            else:
                priced += 1
                found = self.pricing(item.unit).price(item, self.balance)
                if found is not None:
                    best = sorted([*best, found], key=lambda one: (one.seconds, one.peak_bytes))[:BEST]
                    yield Progress(tuple(best), entry.bound, opened, priced)
        yield Progress(tuple(best), best[0].seconds if best else 0.0, opened, priced, True)

    def _opened(self, family: Family) -> Iterator[tuple[float, Family | Group]]:
        """The groups of a family, each with its bound; of a mesh's first family, the others with theirs."""
        first, *others = self.space.policies()
        twin = Unit(family.inner, first, self.layouts.rows[0])
        mine = replace(twin, recompute=family.recompute)
        if family.recompute != first and self.layouts.parts(mine) == self.layouts.parts(twin):
            return  # nothing differs from the first policy's: its plans are the same
        for group in self.space.groups(family.inner, family.recompute):
            yield self.group_bound_s(group, self.pricing(group.unit).microbatch_s), group
        if family.recompute == first:
            least = self.least_s if self.layouts.each else self.family_bound_s(family)
            yield from ((least, replace(family, recompute=policy)) for policy in others)

    def group_bound_s(self, group: Group, microbatch_s: float) -> float:
        """No plan of a group takes less, if a microbatch takes so long."""
        once, common = self._ends(group.unit, group.data, group.pipe == 1)
        return (group.microbatches * microbatch_s + once) / group.pipe + common

    def _ends(self, unit: Unit, data: int, single: bool) -> tuple[float, float]:
        """What a step takes beside its microbatches at the least: on all stages, and on each."""
        if not self.layouts.each:  # parameters lie alike in all units of a mesh
            unit = Unit(unit.inner, self.space.policies()[0], self.layouts.rows[0])
        key = (unit, data, single)
        if key not in self.ends:
            pricing = self.pricing(unit)
            stages = 1 if single else 2
            plans = (Choice(unit, data, stages, 1, zero) for zero in self.space.zeros(data))
            self.ends[key] = min(map(pricing.once_s, plans)), pricing.parts.common_s
        return self.ends[key]

    def family_bound_s(self, family: Family) -> float:
        """No plan of a family takes less: whatever is computed again, the rest is computed too."""
        first = self.space.policies()[0]
        core = {n: self.pricing(Unit(family.inner, first, n)).parts.core_s for n in self.space.rows()}
        groups = self.space.groups(family.inner, first)
        return min((self.group_bound_s(group, core[group.unit.rows]) for group in groups), default=float("inf"))
