"""Learning-rate schedules: how forms become pieces, and pieces become graph nodes on the step.

The step s counts from 0. With a piece that begins at b, goes from `start` to `stop` in n steps, t = min((s - b) /
n, 1): Computed in float64 whatever the parameters' type, so that every plan and precision trains at the same
rates.
    warmup     stop · (s - b + 1) / n          the first step already moves; step n - 1 has the peak
    constant   stop
    linear     start + (stop - start) · t
    cosine     stop + (start - stop) · (1 + cos(π t)) / 2          (Loshchilov and Hutter 2017)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.types import DType, Use
from ..ops.definition import Build
from .recipe import Schedule, Segment


def rate_at(schedule: Schedule, step: int) -> float:
    """The rate at a step counted from 0, in plain Python."""
    current = [item for item in schedule.segments if item.begin <= step][-1]
    return _value(current, step)


def _value(item: Segment, step: int) -> float:
    if item.curve == "constant" or item.over == 0:
        return item.stop
    if item.curve == "warmup":
        return item.stop * min(step - item.begin + 1, item.over) / item.over
    t = min((step - item.begin) / item.over, 1.0)
    if item.curve == "linear":
        return item.start + (item.stop - item.start) * t
    return item.stop + (item.start - item.stop) * (0.5 * (1.0 + math.cos(math.pi * t)))


def rate(build: Build, schedule: Schedule, step: Use) -> Use:
    """The rate as a float64 scalar, from the step as a float64 scalar counted from 0."""
    pieces = [_piece(build, item, step) for item in schedule.segments]
    return _choose(build, schedule.segments, pieces, step)


def _choose(build: Build, segments: Sequence[Segment], pieces: Sequence[Use], step: Use) -> Use:
    """where(s < begin of the next, this, the next …)."""
    result = pieces[-1]
    for piece, following in zip(reversed(pieces[:-1]), reversed(segments[1:]), strict=True):
        (early,) = build("lt", step, constant(build, float(following.begin)))
        (result,) = build("where", early, piece, result)
    return result


def _piece(build: Build, item: Segment, step: Use) -> Use:
    if item.curve == "constant" or item.over == 0:
        return constant(build, item.stop)
    if item.curve == "warmup":
        (count,) = build("minimum", _add(build, step, 1.0 - item.begin), constant(build, float(item.over)))
        (reached,) = build("mul", count, constant(build, item.stop))
        return build("div", reached, constant(build, float(item.over)))[0]
    (part,) = build("div", _add(build, step, float(-item.begin)), constant(build, float(item.over)))
    (t,) = build("minimum", part, constant(build, 1.0))
    if item.curve == "linear":
        (moved,) = build("mul", t, constant(build, item.stop - item.start))
        return _add(build, moved, item.start)
    (angle,) = build("mul", t, constant(build, math.pi))
    (wave,) = build("cos", angle)
    (share,) = build("mul", _add(build, wave, 1.0), constant(build, 0.5))
    (above,) = build("mul", share, constant(build, item.start - item.stop))
    return _add(build, above, item.stop)


def _add(build: Build, use: Use, number: float) -> Use:
    return use if number == 0.0 else build("add", use, constant(build, number))[0]


def constant(build: Build, value: float, dtype: DType = DType.F64) -> Use:
    """A scalar constant."""
    return build("constant", value=value, dims=(), dtype=dtype)[0]
