"""What makes a step fit on a device: every set of measures priced, the cheapest that fits, the largest batch.

In: the planner's layouts of a recipe on so many devices along `data`, and what each may hold. Out: `Fitting`s:
microbatches, recompute, precision, ZeRO and offload with the seconds and the bytes of a step. Layers that are alike
are priced once (`thin.py`), so a large model takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from ..cost.cluster import Cluster
from .host import host_bytes
from .layouts import Layouts
from .price import Pricing
from .space import NAMED, OPTIMIZER, Choice, Policy, Unit, divisors

NO_LIMIT = 1 << 62
MOST_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class Measures:
    """What may make a step fit. rows: of a microbatch on one device."""

    rows: int
    microbatches: int
    recompute: Policy = "cheap"
    precision: str = ""
    zero: int = 0
    offload: bool = False


@dataclass(frozen=True, slots=True)
class Fitting:
    """Measures with what a step takes: seconds, bytes of a device, bytes of its host."""

    measures: Measures
    seconds: float
    peak_bytes: int
    host_bytes: int = 0


@dataclass
class Fitter:
    """One recipe on `data` devices. layouts: by precision, the recipe's own as "" first. limit: bytes of a device."""

    layouts: Mapping[str, Layouts]
    cluster: Cluster
    batch: int
    data: int
    limit: int
    _pricings: dict[tuple[str, Unit], Pricing] = field(default_factory=dict[tuple[str, Unit], Pricing])

    def price(self, measures: Measures) -> Fitting:
        """What a step takes with these measures. Raises SpecError."""
        unit = Unit((), measures.recompute, measures.rows)
        parts = self.layouts[measures.precision].parts(unit)
        choice = Choice(
            unit, self.data, 1, measures.microbatches, measures.zero, offload=(OPTIMIZER,) if measures.offload else ()
        )
        key = (measures.precision, unit)
        if key not in self._pricings:
            self._pricings[key] = Pricing(parts, self.cluster, NO_LIMIT)
        found = self._pricings[key].price(choice)
        assert found is not None, "one stage without a limit fits"
        there = host_bytes(parts.parts, self.data if measures.zero else 1) if measures.offload else 0
        return Fitting(measures, found.seconds, found.peak_bytes, there)

    def plain(self) -> Fitting:
        """The step in one microbatch, with no measure."""
        return self.price(Measures(self.batch // self.data, 1))

    def fits(self, one: Fitting) -> bool:
        """Whether a device has room."""
        return one.peak_bytes <= self.limit

    def cheapest(self) -> Iterator[Fitting]:
        """Of each kind of measures the largest microbatch that fits; the cheapest of all is the answer."""
        for recompute, precision, zero, offload in self._kinds():
            found = self._largest(recompute, precision, zero, offload)
            if found is not None:
                yield found

    def singles(self) -> Iterator[Fitting]:
        """Each measure alone."""
        whole = self.plain().measures
        for count in divisors(whole.rows)[1:5]:
            yield self.price(replace(whole, rows=whole.rows // count, microbatches=count))
        for policy in ("selective", "full"):
            yield self.price(replace(whole, recompute=policy))
        for precision in list(self.layouts)[1:]:
            yield self.price(replace(whole, precision=precision))
        for zero in (1, 2, 3) if self.data > 1 else ():
            yield self.price(replace(whole, zero=zero))
        yield self.price(replace(whole, offload=True))

    def least(self) -> Fitting:
        """What needs least memory of all: one row at a time, everything else as far as it goes."""
        zeros = range(4) if self.data > 1 else (0,)
        count = self.batch // self.data
        kinds = product(NAMED, self.layouts, zeros, (False, True))
        found = (self.price(Measures(1, count, *kind)) for kind in kinds)
        return min(found, key=lambda one: one.peak_bytes)

    def most_rows(self, measures: Measures) -> int:
        """The most rows of one microbatch on a device with such measures; 0 where not one fits."""

        def fits(rows: int) -> bool:
            return self.fits(self.price(replace(measures, rows=rows, microbatches=1)))

        low, high = 0, 1
        while fits(high) and high < MOST_ROWS:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _kinds(self) -> Iterator[tuple[Policy, str, int, bool]]:
        zeros = range(4) if self.data > 1 else (0,)
        yield from product(("cheap", "selective", "full"), self.layouts, zeros, (False, True))

    def _largest(self, recompute: Policy, precision: str, zero: int, offload: bool) -> Fitting | None:
        """With the fewest microbatches that fit: memory grows with their rows."""
        whole = self.batch // self.data
        sizes, best = divisors(whole), None
        low, high = 0, len(sizes) - 1
        while low <= high:
            at = high if best is None and high == len(sizes) - 1 else (low + high) // 2
            found = self.price(Measures(sizes[at], whole // sizes[at], recompute, precision, zero, offload))
            if self.fits(found):
                best, low = found, at + 1
            else:
                high = at - 1
        return best
