"""From the `lr` of a record to a `Schedule`: `warmup(3e-4, 2000 steps) |> cosine(to = 3e-5)` as pieces with their
steps.
"""

from __future__ import annotations

from typing import Literal, cast

from ..base.diagnostic import Diagnostics
from ..base.span import Span
from .kinds import Applied, Setting
from .recipe import Schedule, Segment
from .records import Section


def read_schedule(section: Section, steps: int, sink: Diagnostics) -> Schedule | None:
    """The schedule of a record; None if it was reported."""
    if "lr" not in section.values:
        return None
    return schedule_of(section.values["lr"], section.place("lr"), steps, sink)


def schedule_of(value: Setting, span: Span, steps: int, sink: Diagnostics) -> Schedule | None:
    """A number is a constant rate; a form and what is piped into it are pieces that follow each other."""
    if isinstance(value, int | float):
        return Schedule((Segment("constant", 0, float(value), float(value), 0),))
    assert isinstance(value, Applied), f"a rate that is no form at {span}"
    forms: list[Applied] = []
    here: Applied | None = value
    while here is not None:
        forms.insert(0, here)
        here = here.before
    found: list[Segment] = []
    for position, form in enumerate(forms):
        segment = _segment(form, found, position == len(forms) - 1, steps, sink)
        if segment is None:
            return None
        found.append(segment)
    return Schedule(tuple(found))


def _segment(form: Applied, before: list[Segment], last: bool, steps: int, sink: Diagnostics) -> Segment | None:
    begin = before[-1].begin + before[-1].over if before else 0
    peak = form.arguments.get("peak", before[-1].stop if before else None)
    over = form.arguments.get("over")
    missing = "peak" if peak is None else "over" if over is None and not last else None
    if missing is not None:
        why = "it begins the schedule" if missing == "peak" else "another piece follows it"
        sink.error("E0404", f"`{form.name}` lacks `{missing}`", form.span, "", expected=f"`{missing}`, since {why}")
        return None
    top, count = float(cast(float, peak)), cast("int | None", over)
    if form.name == "warmup":
        return Segment("warmup", begin, 0.0, top, cast(int, count))
    if form.name == "constant":
        return Segment("constant", begin, top, top, count or 0)
    curve = cast(Literal["linear", "cosine"], form.name)
    stop = float(cast(float, form.arguments.get("to", 0.0)))
    return Segment(curve, begin, top, stop, count if count is not None else max(1, steps - begin))
