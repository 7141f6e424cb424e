"""As little computed again as fits a budget: the first choice of a chain, from its fast end, whose step is small enough.

In: a chain and what a step under a choice occupies, which whoever lowers it can tell. Out: that choice. The chain's own
bytes order it; whether it fits is never estimated.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base.diagnostic import Diagnostic, SpecError
from .block import Value
from .chain import Chain

GIB = 1 << 30


def fit(chain: Chain, peak_bytes: Callable[[frozenset[Value]], int], budget_bytes: int) -> frozenset[Value]:
    """What is to be made again. Raises SpecError E0947, which names the least budget, where nothing fits."""
    fastest = len(chain) - 1
    if peak_bytes(chain.values(fastest)) <= budget_bytes:
        return chain.values(fastest)
    least = peak_bytes(chain.values(0))
    if least > budget_bytes:
        title = f"a step takes {least / GIB:.3f} GiB at the least, but the budget is {budget_bytes / GIB:.3f} GiB"
        hint = f"budget({-(-least // (1 << 20))} MiB), fewer rows in a microbatch, or more devices"
        raise SpecError(Diagnostic("E0947", title, hint=hint))
    fits, too_large = 0, fastest
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if peak_bytes(chain.values(middle)) <= budget_bytes:
            fits = middle
        else:
            too_large = middle
    return chain.values(fits)
