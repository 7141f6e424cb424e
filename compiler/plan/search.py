"""The search: best first by bounds, so that nothing that could be best is left unpriced.

In: a space, the layouts of a recipe, a limit of memory. Out: what is found, better and better. A family of plans that
share a layout is opened when its bound comes up, then groups of it when theirs do; a plan is placed when its own bound
comes up, and priced when the bound with its stages does. A layout that is one unit's alone is solved when a group's
bound comes up that needs none: the step cut evenly, no messages. The best is proven when no bound is below its price.
Bounds leave that to the end; for somebody who waits no longer, a plan of each family is priced as soon as it is opened.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from .budgeted import Budgeted
from .layouts import Layouts
from .price import Pricing
from .priced import Priced
from .slices import LEAST_SHARE
from .space import ACTIVATIONS, BUDGET, Axes, Choice, Group, Policy, Space, Unit
from .stages import Flights
from .zero import Known, Shared

BEST = 10  # plans that are told of
SOUNDED = 512  # groups and plans of a family that are looked at for one that fits, when it is opened
Pricer = Pricing | Budgeted


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the search is: the best plans so far, the fastest first, and what was looked at.

    bound_s: no plan takes less. opened: layouts that are solved; priced: plans; over: whether the best is proven.
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
    recompute: Policy


@dataclass(order=True, slots=True)
class _Entry:
    """A family, a group of one, or a plan. known: a group's layout is solved, a plan's stages are placed."""

    bound: float
    number: int
    item: Family | Group | Choice = field(compare=False)
    known: bool = field(compare=False, default=False)


@dataclass
class Search:
    """One search. `run` gives a `Progress` whenever there is something new."""

    space: Space
    layouts: Layouts
    limit: int
    least_s: float = 0.0  # what a step takes at the least, whatever the plan
    balance: tuple[int, ...] = ()
    pricings: dict[Unit, Pricer] = field(default_factory=dict[Unit, "Pricer"])
    flown: dict[tuple[str, int, int], Flights] = field(default_factory=dict[tuple[str, int, int], Flights])

    known: dict[Known, Shared] = field(default_factory=dict[Known, Shared])
    updates: dict[Unit, tuple[float, float]] = field(default_factory=dict[Unit, tuple[float, float]])
    ends: dict[tuple[Unit, int, bool], tuple[float, float]] = field(
        default_factory=dict[tuple[Unit, int, bool], tuple[float, float]]
    )

    def pricing(self, unit: Unit) -> Pricer:
        """What prices the plans of a unit."""
        if unit not in self.pricings:
            self.pricings[unit] = self._budget(unit) if unit.recompute == BUDGET else self._plain(unit)
        return self.pricings[unit]

    def _plain(self, unit: Unit) -> Pricing:
        parts, cluster, layouts = self.layouts.parts(unit), self.layouts.cluster, self.layouts
        moved, slicing = partial(layouts.moved, unit), partial(layouts.sliced, unit)
        return Pricing(parts, cluster, self.limit, self.flown, self.known, moved=moved, slicing=slicing)

    def _budget(self, unit: Unit) -> Budgeted:
        plain = self.pricing(unit.laid)
        assert isinstance(plain, Pricing), "what keeps everything has no budget"
        return Budgeted(plain, partial(self.layouts.ladder, unit.laid))

    def run(self) -> Iterator[Progress]:
        """Until the best is proven, and so many are priced as are told of. Raises SpecError: the spec is at fault."""
        first = self.space.policies()[0]
        numbers = count()
        heap = [_Entry(self.least_s, next(numbers), Family(inner, first)) for inner in self.space.inners()]
        best: list[Priced] = []
        sounded: set[Choice] = set()
        priced = told = 0
        while heap and (told < BEST or heap[0].bound < best[0].seconds):
            entry = heapq.heappop(heap)
            item, plan = entry.item, None
            if isinstance(item, Choice) and entry.known:
                if item in sounded or self._fits(item):
                    plan = None if item in sounded else item
                    told += 1
            else:
                proven = bool(best) and entry.bound >= best[0].seconds
                below = list(self._below(entry, proven))
                for bound, one, known in below:
                    heapq.heappush(heap, _Entry(max(bound, entry.bound), next(numbers), one, known))
                if isinstance(item, Family) and (item.recompute == first or not best):
                    plan = self._sounding(below, best[0].seconds if best else math.inf)
                    sounded |= {plan} if plan is not None else set()
            if plan is not None:
                priced += 1
                found = self.pricing(plan.unit).price(plan, self.balance)
                if found is not None:
                    best = sorted([*best, found], key=_rank)[:BEST]
            if not isinstance(item, Choice) or plan is not None:
                yield Progress(tuple(best), entry.bound, len(self.pricings), priced)
        yield Progress(tuple(best), best[0].seconds if best else 0.0, len(self.pricings), priced, True)

    def _sounding(self, below: Sequence[tuple[float, Family | Group | Choice, bool]], best_s: float) -> Choice | None:
        """Of a family's plans that fit one that promises much, if it promises more than the best so far."""
        numbers = count()
        heap = [
            _Entry(bound, next(numbers), one) for bound, one, _ in below if isinstance(one, Group) and not one.sliced
        ]
        heapq.heapify(heap)
        for _ in range(SOUNDED):
            if not heap or heap[0].bound >= best_s:
                return None
            entry = heapq.heappop(heap)
            one = entry.item
            if isinstance(one, Choice):
                if entry.known and self._fits(one):
                    return one
                bound = None if entry.known else self._placed_bound_s(one)
                if bound is not None:
                    heapq.heappush(heap, _Entry(bound, next(numbers), one, True))
            elif isinstance(one, Group) and (one.unit in self.pricings or not self.layouts.each or best_s == math.inf):
                pricing = self.pricing(one.unit)
                for choice in filter(pricing.may_fit, self._plainer(self.space.choices(one))):
                    heapq.heappush(heap, _Entry(max(entry.bound, pricing.bound_s(choice)), next(numbers), choice))
        return None

    def _plainer(self, choices: Iterable[Choice]) -> Iterator[Choice]:
        """Without those whose activations lie on the host, where that is not asked for."""
        return (choice for choice in choices if ACTIVATIONS not in choice.offload or not self._follows(choice))

    def _below(self, entry: _Entry, proven: bool) -> Iterator[tuple[float, Family | Group | Choice, bool]]:
        """What takes an entry's place, each with its bound, and whether it is known. Once the best is proven no layout
        is solved any more: the other plans that are told of have one that is known."""
        item = entry.item
        if isinstance(item, Family):
            yield from ((bound, found, False) for bound, found in self._opened(item) if not proven)
        elif isinstance(item, Group) and not entry.known:
            if item.unit in self.pricings or not proven:
                yield self.group_bound_s(item, self.pricing(item.unit).microbatch_s), item, True
        elif isinstance(item, Group):
            pricing = self.pricing(item.unit)
            for choice in self.space.choices(item):
                if pricing.may_fit(choice) and not self._follows(choice):
                    yield pricing.bound_s(choice), choice, False
                elif not self._follows(choice):
                    yield from self._smaller(choice, False)
        else:
            bound = self._placed_bound_s(item)
            if bound is not None:
                yield bound, item, True
            if bound is None or item.pipe > 1:  # where it fits, a single stage is no faster with less memory
                yield from self._smaller(item, bound is not None)

    def _placed_bound_s(self, choice: Choice) -> float | None:
        """The bound with its stages; None where it does not fit, unless `_fits` is asked when it comes up."""
        pricing = self.pricing(choice.unit)
        if self._is_last(choice) and isinstance(pricing, Pricing):
            return pricing.timed_bound_s(choice)
        return pricing.placed_bound_s(choice)

    def _fits(self, choice: Choice) -> bool:
        """Whether a plan whose bound has come up fits: of most that has been looked at."""
        pricing = self.pricing(choice.unit)
        return not self._is_last(choice) or not isinstance(pricing, Pricing) or pricing.fits(choice)

    def _is_last(self, choice: Choice) -> bool:
        """Whether no other plan takes a pipeline's place if it does not fit: then its bytes need not be known first."""
        several = choice.unit.recompute == BUDGET or BUDGET in self.space.policies()
        return choice.pipe > 1 and not several and not choice.sliced and len([*self.space.offloads(choice)]) == 1

    def _follows(self, choice: Choice) -> bool:
        """Whether a plan comes up with the one that differs from it in having more on the device: that one takes no
        longer, and its bound stands for both. Within a budget what lies elsewhere saves computing again."""
        return bool(choice.offload) and self.space.pins.offload is None and choice.unit.recompute != BUDGET

    def _smaller(self, choice: Choice, fits: bool) -> Iterator[tuple[float, Choice, bool]]:
        """The plans that follow one: more on the host, and where it keeps everything and does not fit, the one within
        a budget. If it fits, that is the same."""
        if choice.sliced:
            return
        for kinds in self.space.offloads(choice):
            twin = replace(choice, offload=kinds)
            if kinds and kinds[:-1] == choice.offload and self._follows(twin):
                pricing = self.pricing(twin.unit)
                if pricing.may_fit(twin):
                    yield pricing.bound_s(twin), twin, False
                else:
                    yield from self._smaller(twin, False)
        alike = ACTIVATIONS not in choice.offload and self._keeps(choice.unit)
        if not fits and alike and BUDGET in self.space.policies()[1:]:
            twin = replace(choice, unit=replace(choice.unit, recompute=BUDGET))
            yield self.pricing(twin.unit).bound_s(twin), twin, False

    def _keeps(self, unit: Unit) -> bool:
        """Whether plans of a unit stand for those that compute nothing again."""
        first = self.space.policies()[0]
        return unit.recompute == "none" or (unit.recompute == first and self._same(Family(unit.inner, "none")))

    def _same(self, family: Family) -> bool:
        """Whether a family's plans are those of the first policy."""
        first = self.space.policies()[0]
        twin = self.space.unit(() if self.layouts.each else family.inner, first, self.layouts.rows[0])
        mine = replace(twin, recompute=family.recompute)
        return family.recompute != first and self.layouts.parts(mine) == self.layouts.parts(twin)

    def _opened(self, family: Family) -> Iterator[tuple[float, Family | Group]]:
        """The groups of a family, each with its bound; of a mesh's first family, the others with theirs."""
        first, *others = self.space.policies()
        if self._same(family):
            return
        for group in self.space.groups(family.inner, family.recompute):
            yield self.unsolved_bound_s(group), group
        if family.recompute == first:
            least = self.least_s if self.layouts.each else self.family_bound_s(family)
            yield from ((least, replace(family, recompute=policy)) for policy in others if policy != BUDGET)

    def unsolved_bound_s(self, group: Group) -> float:
        """No plan of a group takes less, however its unit is laid out."""
        if not self.layouts.each:
            return self.group_bound_s(group, self.pricing(group.unit).microbatch_s)
        if self.layouts.kernels is not None:
            return self.least_s  # of timed kernels a part may take any share of the whole
        unit = group.unit
        if unit not in self.updates:
            whole = self.layouts.parts(self.space.unit((), unit.recompute, unit.rows)).parts
            self.updates[unit] = sum(p.own.launch_s for p in whole), sum(p.own.update_s for p in whole) / unit.devices
        launches, rest = self.updates[unit]
        once = launches + rest / group.data
        return (group.microbatches * self.layouts.least_s(unit) * _share(group) + once) / group.pipe

    def group_bound_s(self, group: Group, microbatch_s: float) -> float:
        """No plan of a group takes less, if a microbatch takes so long."""
        once, common = self._ends(group.unit, group.data, group.pipe == 1)
        return (group.microbatches * microbatch_s * _share(group) + once) / group.pipe + common

    def _ends(self, unit: Unit, data: int, single: bool) -> tuple[float, float]:
        """What a step takes beside its microbatches at the least: on all stages, and on each."""
        if not self.layouts.each:  # parameters lie alike in all units of a mesh
            unit = self.space.unit(unit.inner, self.space.policies()[0], self.layouts.rows[0])
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
        core = {n: self.pricing(self.space.unit(family.inner, first, n)).parts.core_s for n in self.space.rows()}
        groups = self.space.groups(family.inner, first)
        return min((self.group_bound_s(group, core[group.unit.rows]) for group in groups), default=float("inf"))


def _rank(plan: Priced) -> tuple[float, int]:
    """The fastest first, of plans that take as long the one that holds least."""
    return plan.seconds, plan.peak_bytes


def _share(group: Group) -> float:
    """What a microbatch of a group takes at the least, of what it takes whole."""
    return LEAST_SHARE if group.sliced else 1.0
