"""What makes a step fit on a device: every set of measures priced, the cheapest that fits, the largest batch.

In: the planner's layouts of a recipe on so many devices along `data`, and what each may hold. Out: `Fitting`s:
microbatches, recompute, precision, ZeRO and offload with the seconds and the bytes of a step, as `plan` prices them.
Layers that are alike are priced once (`thin.py`), so a large model takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import NamedTuple

from ..cost.cluster import Cluster
from .budgeted import Budgeted
from .host import host_bytes
from .layouts import Layouts
from .price import Pricing
from .search import Pricer
from .space import ACTIVATIONS, BUDGET, NAMED, OFFLOADS, OPTIMIZER, POLICIES, Choice, Policy, Unit, divisors

NO_LIMIT = 1 << 62
MOST_ROWS = 1 << 20
FAR = tuple(range(1 << 12, 6 << 12, 1 << 12))  # rows on whose line those of larger microbatches lie
ALIKE = 0.01  # of a device's bytes: sets that differ less are as good
STAGES = (0, 1, 2, 3)  # of ZeRO
SHOWN_COUNTS = 5  # numbers of microbatches that are told of alone


class Kind(NamedTuple):
    """Measures without the microbatch. precision: "" for the recipe's own."""

    recompute: Policy = "cheap"
    precision: str = ""
    zero: int = 0
    offload: tuple[str, ...] = ()


UNMEASURED = Kind()


@dataclass(frozen=True, slots=True)
class Measures:
    """What may make a step fit. rows: of a microbatch on one device."""

    rows: int
    microbatches: int
    kind: Kind = UNMEASURED

    @property
    def count(self) -> int:
        """How many are taken."""
        return (self.microbatches > 1) + sum(mine != none for mine, none in zip(self.kind, UNMEASURED, strict=True))


@dataclass(frozen=True, slots=True)
class Fitting:
    """Measures with what a step takes: seconds, bytes of a device, bytes of its host."""

    measures: Measures
    seconds: float
    peak_bytes: int
    host_bytes: int = 0


@dataclass
class Fitter:
    """One recipe on `data` devices. layouts: by precision, the recipe's own as "" first, of so many rows. limit: bytes
    of a device."""

    layouts: Mapping[str, Callable[[Sequence[int]], Layouts]]
    cluster: Cluster
    batch: int
    data: int
    limit: int
    _made: dict[tuple[str, tuple[int, ...]], Layouts] = field(
        default_factory=dict[tuple[str, tuple[int, ...]], Layouts]
    )
    _pricers: dict[tuple[str, Unit, tuple[int, ...]], Pricer] = field(
        default_factory=dict[tuple[str, Unit, tuple[int, ...]], Pricer]
    )

    def price(self, measures: Measures, known: tuple[int, ...] = ()) -> Fitting | None:
        """What a step takes with these measures, whether or not it fits; None where it is to compute again what does
        not fit, and nothing is enough. known: rows whose steps are made, as the planner has them where nothing is said;
        between many it is a line. Raises SpecError."""
        kind = measures.kind
        unit, known = Unit((), kind.recompute, measures.rows), known or tuple(divisors(self.batch))
        layouts, key = self._layouts(kind.precision, known), (kind.precision, unit, known)
        if key not in self._pricers:
            self._pricers[key] = self._pricer(layouts, unit)
        found = self._pricers[key].price(
            Choice(unit, self.data, 1, measures.microbatches, kind.zero, offload=kind.offload)
        )
        there = self._host_bytes(layouts, unit, kind)
        return None if found is None else Fitting(measures, found.seconds, found.peak_bytes, there)

    def plain(self) -> Fitting:
        """The step in one microbatch, with no measure."""
        return self._known(Measures(self.batch // self.data, 1))

    def fits(self, one: Fitting) -> bool:
        """Whether a device has room."""
        return one.peak_bytes <= self.limit

    def cheapest(self) -> Iterator[Fitting]:
        """Of each kind of measures the microbatch that takes least time of those that fit; the cheapest of all is the
        answer."""
        for kind in self._kinds(POLICIES):
            found = [one for one in self._sizes(kind) if one is not None and self.fits(one)]
            if found:
                yield min(found, key=rank)

    def singles(self) -> Iterator[Fitting]:
        """Each measure alone; to compute again as little as fits is one only where something must be."""
        whole = self.plain()
        rows = whole.measures.rows
        for count in _spread(divisors(rows)[1:], SHOWN_COUNTS):
            yield self._known(Measures(rows // count, count))
        kinds = [Kind(policy) for policy in ("selective", "full")]
        kinds += [Kind(BUDGET)] if not self.fits(whole) else []
        kinds += [Kind(precision=name) for name in list(self.layouts)[1:]]
        kinds += [Kind(zero=stage) for stage in STAGES[1:] if self.data > 1]
        kinds += [Kind(offload=(name,)) for name in (OPTIMIZER, ACTIVATIONS)]
        yield from filter(None, (self.price(replace(whole.measures, kind=kind)) for kind in kinds))

    def least(self) -> Fitting:
        """What needs least memory of all: one row at a time, everything else as far as it goes."""
        priced = (self._known(Measures(1, self.batch // self.data, kind)) for kind in self._kinds(NAMED))
        return min(priced, key=lambda one: one.peak_bytes)

    def most_rows(self, kind: Kind) -> int:
        """The most rows of one microbatch on a device with such measures; 0 where not one fits."""

        def fits(rows: int) -> bool:
            return self._has_room(rows, kind, (rows,))

        return _last(fits, self._foreseen(kind))

    def largest(self) -> tuple[int, Kind]:
        """The most rows of one microbatch that any measures leave room for, and the fewest measures that do."""
        kinds = [kind for kind in self._kinds(("full", BUDGET)) if self.data == 1 or kind.zero == STAGES[-1]]
        kind = max(kinds, key=lambda kind: (self._foreseen(kind), -Measures(1, 1, kind).count))
        return self.most_rows(kind), kind

    def _foreseen(self, kind: Kind) -> int:
        """The most rows by a line through steps of very many, as other kernels may be used in few."""
        return _last(lambda rows: self._has_room(rows, kind, FAR), 1)

    def _has_room(self, rows: int, kind: Kind, known: tuple[int, ...]) -> bool:
        found = self.price(Measures(rows, 1, kind), known)
        return found is not None and self.fits(found)

    def _known(self, measures: Measures) -> Fitting:
        found = self.price(measures)
        assert found is not None, "one stage without a limit fits"
        return found

    def _layouts(self, precision: str, known: tuple[int, ...]) -> Layouts:
        key = (precision, known)
        if key not in self._made:
            self._made[key] = self.layouts[precision](known)
        return self._made[key]

    def _pricer(self, layouts: Layouts, unit: Unit) -> Pricer:
        """What prices a unit: up to any size, or within the limit."""
        within = unit.recompute == BUDGET
        limit = self.limit if within else NO_LIMIT
        plain = Pricing(layouts.parts(unit), self.cluster, limit, moved=partial(layouts.moved, unit))
        return Budgeted(plain, partial(layouts.ladder, unit.laid)) if within else plain

    def _host_bytes(self, layouts: Layouts, unit: Unit, kind: Kind) -> int:
        """What lies on the host of one device."""
        moved = sum(layouts.moved(unit)) if ACTIVATIONS in kind.offload else 0
        if OPTIMIZER not in kind.offload:
            return moved
        return host_bytes(layouts.parts(unit).parts, self.data if kind.zero else 1, moved)

    def _kinds(self, policies: Iterable[Policy]) -> Iterator[Kind]:
        """All kinds with one of these policies. What is priced with activations on the host has no budget."""
        zeros = STAGES if self.data > 1 else (0,)
        for kind in product(policies, self.layouts, zeros, OFFLOADS):
            if kind[0] != BUDGET or ACTIVATIONS not in kind[3]:
                yield Kind(*kind)

    def _sizes(self, kind: Kind) -> Iterator[Fitting | None]:
        """A kind with every microbatch that divides the batch."""
        whole = self.batch // self.data
        for rows in divisors(whole):
            yield self.price(Measures(rows, whole // rows, kind))


def frontier(found: Iterable[Fitting]) -> list[Fitting]:
    """The fastest first; each takes less of the device than all before it, by more than `ALIKE`."""
    kept: list[Fitting] = []
    for one in sorted(found, key=rank):
        if not kept or one.peak_bytes < (1 - ALIKE) * kept[-1].peak_bytes:
            kept.append(one)
    return kept


def rank(one: Fitting) -> tuple[float, int, int]:
    """The fastest first, of such the plainest, then the smallest."""
    return one.seconds, one.measures.count, one.peak_bytes


def _last(fits: Callable[[int], bool], near: int) -> int:
    """The last number that fits, 0 if none does, looked for from a number on."""
    low, step = min(near, MOST_ROWS), 1
    high = low + 1
    while low > 0 and not fits(low):
        low, high, step = max(0, low - step), low, 2 * step
    while high == low + step and high <= MOST_ROWS and fits(high):
        low, step = high, 2 * step
        high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _spread(items: Sequence[int], most: int) -> list[int]:
    """So many of them, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(at * (len(items) - 1) / (most - 1))] for at in range(most)]
