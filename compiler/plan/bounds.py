"""A lower bound on a pipeline's step, from its stages and before its schedule is simulated.

In: what chunks take, a schedule's form, stages, microbatches. Out: seconds that no such step is done in less than.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    forward = [float(p.forward) for p in prices]
    back = [float(p.input) + (float(p.weight) if form.name in WHOLE else 0.0) for p in prices]
    sent = [float(p.transfer) + float(p.latency) for p in prices]
    for device in range(stages):
        own = [chunk for chunk, home in enumerate(placement) if home == device]
        first = own[0]
        work = microbatches * sum(compute_s(prices[c]) for c in own) + sum(float(prices[c].reduce) for c in own)
        before = sum(forward[:first]) + sum(sent[:first])
        wait = 0.0
        if form.name in ONE_CHUNK:
            ahead = microbatches if form.name == "gpipe" else min(microbatches, stages - device)
            there = sum(forward[first:]) + sum(back[first + 1 :]) + 2 * sum(sent[first:-1])
            wait = max(0.0, there - ahead * forward[first])
        best = max(best, before + wait + work)
    return best
