"""As little computed again as fits a budget: of a chain's choices the fastest whose step is small enough.

In: a chain and what a step under a choice occupies, which whoever lowers it can tell. Out: that choice. Whether it fits
is never estimated. But lowering a step takes seconds: where to look the chain's own bytes say, from the nearest
choice that was lowered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ..base.diagnostic import Diagnostic, SpecError
from .block import Value
from .chain import Chain

MIB = 1 << 20
GUESSES = 4  # by the chain's bytes; from then on by halves
PLACES = 6  # where else it is looked before a budget is refused, evenly along the chain


def fit(chain: Chain, peak_bytes: Callable[[frozenset[Value]], int], budget_bytes: int) -> frozenset[Value]:
    """What is to be made again. Raises SpecError E0951, which names the least budget, where nothing fits."""
    search = _Search(chain, peak_bytes, budget_bytes)
    fits, too_large = -1, len(chain) - 1
    if search.fits(too_large):
        return chain.values(too_large)
    while too_large - fits > 1:
        at = search.guess(fits, too_large) if len(search.measured) <= GUESSES else (fits + too_large + 1) // 2
        if search.fits(at):
            fits = at
        else:
            too_large = at
    if fits < 0:
        fits = search.anywhere()
    if fits < 0:
        raise too_small(min(search.measured.values()), budget_bytes)
    return chain.values(fits)


def too_small(least_bytes: int, budget_bytes: int) -> SpecError:
    """The fault of a budget below the least."""
    needed = in_mib(least_bytes, up=True)
    title = f"a step takes {needed} MiB at the least, but the budget is {in_mib(budget_bytes)} MiB"
    hint = f"budget({needed.replace(',', '')} MiB), fewer rows in a microbatch, or more devices"
    return SpecError(Diagnostic("E0951", title, hint=hint))


def in_mib(size_bytes: float, up: bool = False) -> str:
    """MiB to two places, the nearest or the next above; zeros at the end are left out."""
    size = math.ceil(size_bytes / MIB * 100) / 100 if up else size_bytes / MIB
    return f"{size:,.2f}".rstrip("0").rstrip(".")


@dataclass
class _Search:
    """What was lowered so far."""

    chain: Chain
    peak_bytes: Callable[[frozenset[Value]], int]
    budget_bytes: int
    measured: dict[int, int] = field(default_factory=dict[int, int])

    def fits(self, at: int) -> bool:
        """Whether the step after so many moves is small enough."""
        self.measured[at] = self.peak_bytes(self.chain.values(at))
        return self.measured[at] <= self.budget_bytes

    def anywhere(self) -> int:
        """A choice that fits although one that keeps less does not, for what its backward has at a time; -1 where
        there is none. So the least that a refusal names is what can be done with."""
        last = len(self.chain) - 1
        places = sorted({round(last * place / PLACES) for place in range(1, PLACES)} - self.measured.keys())
        return next((at for at in reversed(places) if self.fits(at)), -1)

    def guess(self, fits: int, too_large: int) -> int:
        """Between the two, the last that will fit if all peaks differ from the chain's bytes as the nearest does; next
        to one of them, the one behind or before it, which ends the search."""
        known = sorted(self.measured)
        sizes = self.chain.sizes

        def expected(at: int) -> int:
            near = min(known, key=lambda one: abs(one - at))
            return self.measured[near] + sizes[at] - sizes[near]

        inside = [at for at in range(fits + 1, too_large) if expected(at) <= self.budget_bytes]
        return max(inside, default=fits + 1)
