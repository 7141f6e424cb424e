"""The seconds of a pipeline's step: its schedule, simulated.

In: what chunks take, a schedule's form, stages, microbatches, the cluster's share. Out: seconds. A long schedule is
simulated until it is steady: each further microbatch takes what the slowest stage takes for it. Where devices share
cores everything takes as much longer as more of them work at once (`schedule/shared.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..schedule.forms import Form, build, computing
from ..schedule.shared import shared_seconds
from ..schedule.simulate import Price, by_chunk, makespan
from .bounds import compute_s

STEADY = 2  # times the stages: after so many microbatches a schedule repeats itself


def until_steady(microbatches: int, stages: int) -> int:
    """How many of them say all."""
    return min(microbatches, STEADY * stages)


def step_s(prices: Sequence[Price], form: Form, stages: int, microbatches: int, share: float) -> float:
    """Without what is common to all devices. share: how many times as long they take when all of them work (from 1
    on). Raises FormFault where there is no such schedule."""
    few, by = until_steady(microbatches, stages), by_chunk(prices)
    if share > 1:
        seconds = shared_seconds(build(form, stages, few, by), by, stages / share)
    else:
        seconds = float(makespan(computing(form, stages, few, by), by))
    if microbatches == few:
        return seconds
    busy = [0.0] * stages
    for price, device in zip(prices, form.placement(stages), strict=True):
        busy[device] += compute_s(price)
    return seconds + (microbatches - few) * max(*busy, share * sum(busy) / stages)
