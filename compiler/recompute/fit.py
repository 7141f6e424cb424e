"""As little computed again as fits a budget: of a chain's choices the fastest whose step is small enough.

In: a chain and what a step under a choice occupies, which whoever lowers it can tell. Out: that choice. The chain's own
bytes order it; whether it fits is never estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..base.diagnostic import Diagnostic, SpecError
from .block import Value
from .chain import Chain

MIB = 1 << 20


def fit(chain: Chain, peak_bytes: Callable[[frozenset[Value]], int], budget_bytes: int) -> frozenset[Value]:
    """What is to be made again. Raises SpecError E0951, which names the least budget, where nothing fits."""
    fastest = len(chain) - 1
    if peak_bytes(chain.values(fastest)) <= budget_bytes:
        return chain.values(fastest)
    least = peak_bytes(chain.values(0))
    if least > budget_bytes:
        needed = f"{math.ceil(least / MIB * 100) / 100:,.2f}".rstrip("0").rstrip(".")
        title = f"a step takes {needed} MiB at the least, but the budget is {budget_bytes / MIB:,.6g} MiB"
        hint = f"budget({needed.replace(',', '')} MiB), fewer rows in a microbatch, or more devices"
        raise SpecError(Diagnostic("E0951", title, hint=hint))
    fits, too_large = 0, fastest
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if peak_bytes(chain.values(middle)) <= budget_bytes:
            fits = middle
        else:
            too_large = middle
    return chain.values(fits)
