"""A lower bound on a pipeline's step, from its stages and before its schedule is simulated.

In: what chunks take, a schedule's form, stages, microbatches. Out: seconds that no such step is done in less than.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add

from ..schedule.forms import Form
from ..schedule.simulate import Price
from .memory import WHOLE

ONE_CHUNK = frozenset({"1f1b", "gpipe", "zero_bubble"})


def compute_s(price: Price) -> float:
    """Of a microbatch in a chunk."""
    return float(price.forward) + float(price.input) + float(price.weight)


def pipeline_s(prices: Sequence[Price], form: Form, stages: int, microbatches: int) -> float:
    """The device that is done last at the earliest.

    A device waits for its first forward; 1F1B runs at most as many forwards as stages follow before the first
    gradient comes back; and after a device's last gradient stand the devices before it.
    """
    placement, best = form.placement(stages), 0.0
    own: list[list[int]] = [[] for _ in range(stages)]
    for chunk, home in enumerate(placement):
        own[home].append(chunk)
    work = [microbatches * compute_s(price) + float(price.reduce) for price in prices]
    forward = [float(p.forward) for p in prices]
    sent = [float(p.transfer) + float(p.latency) for p in prices]
    down = list(accumulate(map(add, forward, sent), initial=0.0))  # until a chunk's first forward begins
    there = [0.0] * stages
    if form.name in ONE_CHUNK:  # from a stage's first forward's end to its first gradient
        back = [float(p.input) + (float(p.weight) if form.name in WHOLE else 0.0) for p in prices]
        behind = map(sum, zip(forward[:0:-1], back[:0:-1], sent[-2::-1], sent[-2::-1], strict=True))
        there = list(accumulate(behind, initial=0.0))[::-1]
    for device in range(stages):
        first = own[device][0]
        ahead = microbatches if form.name == "gpipe" else min(microbatches, stages - device)
        wait = max(0.0, there[device] - (ahead - 1) * forward[first])
        best = max(best, down[first] + wait + sum(work[chunk] for chunk in own[device]))
    return best
