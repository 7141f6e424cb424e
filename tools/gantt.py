"""Timelines of schedules as people look at them: text for a terminal, SVG, a page, and a Chrome trace for Perfetto.

In: `Timeline`s by title, priced or measured. Out: text. A row per device; forward, backward (input's half), weights'
half and idle by colour and letter; a message is a bar under the row of the device that sends it. Several timelines
stand one above the other, to one scale.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType

from ..compiler.schedule.actions import COMPUTE, Kind
from ..compiler.schedule.simulate import Span, Timeline
from .numbers import seconds_text

LETTERS: Mapping[Kind, str] = MappingProxyType(
    {Kind.FORWARD: "F", Kind.BACKWARD: "B", Kind.INPUT: "B", Kind.WEIGHT: "W", Kind.REDUCE: "R", Kind.UPDATE: "U"}
)
# Fills and borders: hues of Okabe and Ito's palette, as the pictures of models have them.
COLOURS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        Kind.FORWARD: ("#a9d4f0", "#1f78b4"),
        Kind.BACKWARD: ("#f6b896", "#b34700"),
        Kind.INPUT: ("#fbd9c8", "#b34700"),
        Kind.WEIGHT: ("#b5e3d2", "#00795a"),
        Kind.REDUCE: ("#e6c3da", "#a04f7f"),
        Kind.UPDATE: ("#e6c3da", "#a04f7f"),
    }
)
MESSAGE, IDLE, INK, GREY = "#8a94a0", "#f1f3f5", "#1b1f24", "#5f6b7a"
LEFT, TOP, ROW, BAR, WIDTH = 74, 48, 34, 22, 1200  # pixels: margins, a row, a bar in it, the time axis
LEAST_LABEL_PX = 14


def text(timeline: Timeline, columns: int, seconds: float | None = None) -> str:
    """A letter for what each device does in the middle of a time, a capital where that begins; `.` for idle.

    seconds  what the columns stand for (the timeline's own where not given)
    """
    step = (seconds or float(timeline.makespan) or 1.0) / columns
    width = len(str(len(timeline.spans) - 1))
    lines: list[str] = []
    for device, spans in enumerate(timeline.spans):
        cells, at, before = "", 0, -1
        for column in range(columns):
            now = (column + 0.5) * step
            while at < len(spans) and float(spans[at].end) <= now:
                at += 1
            if at == len(spans) or float(spans[at].begin) > now:
                cells += "."
                continue
            letter = LETTERS[spans[at].action.kind]
            cells += letter.lower() if at == before else letter
            before = at
        lines.append(f"{device:>{width}} {cells}")
    return "\n".join(lines)


def svg(timelines: Mapping[str, Timeline]) -> str:
    """A picture: deterministic, of so many pixels as its rows need; a tooltip says what a bar is."""
    seconds = max((float(one.makespan) for one in timelines.values()), default=0.0) or 1.0
    scale = WIDTH / seconds
    height = 64 + sum(TOP + ROW * len(one.spans) for one in timelines.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
        f'width="{LEFT + WIDTH + 20}" height="{height}" font-family="Arial, Helvetica, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    top = 0
    for title, timeline in timelines.items():
        parts += _rows(title, timeline, top, scale)
        top += TOP + ROW * len(timeline.spans)
    parts += [*_axis(seconds, top + 8), *_legend(timelines.values(), top + 40)]
    return "\n".join([*parts, "</svg>", ""])


def _rows(title: str, timeline: Timeline, top: int, scale: float) -> Iterator[str]:
    """A title and a row a device."""
    yield f'<text x="{LEFT}" y="{top + 26}" font-size="15" fill="{INK}">{escape(title)}</text>'
    for device, spans in enumerate(timeline.spans):
        y = top + TOP + ROW * device
        yield f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end" fill="{GREY}">device {device}</text>'
        yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{BAR}" fill="{IDLE}"/>'
        yield from (_bar(span, y, scale, timeline) for span in spans if span.end > span.begin)
    for message in timeline.messages:
        y = top + TOP + ROW * message.device + BAR + (2 if message.action.kind is Kind.SEND_ACTIVATION else 6)
        x, width = LEFT + float(message.begin) * scale, float(message.end - message.begin) * scale
        yield (
            f'<rect x="{x:.2f}" y="{y}" width="{max(width, 0.5):.2f}" height="3" fill="{MESSAGE}">'
            f"<title>{_said(message)}</title></rect>"
        )


def html(timelines: Mapping[str, Timeline], title: str, lines: Sequence[str]) -> str:
    """A page that needs nothing else: the picture, which says what a bar is where the pointer rests, and some lines."""
    said = "\n".join(f"<p>{escape(line)}</p>" for line in lines)
    return _PAGE.format(title=escape(title), ink=INK, picture=svg(timelines), lines=said)


_PAGE = """<!doctype html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8" />
<title>{title}</title>
<style>
body {{ font-family: Arial, Helvetica, sans-serif; font-size: 13px; color: {ink}; margin: 16px; }}
.picture {{ overflow-x: auto; }}
rect:hover {{ stroke: {ink}; stroke-width: 2; }}
p {{ margin: 4px 0; }}
</style>
</head>
<body>
<div class="picture">
{picture}</div>
{lines}
</body>
</html>
"""


def _bar(span: Span, y: int, scale: float, timeline: Timeline) -> str:
    fill, border = COLOURS[span.action.kind]
    x, width = LEFT + float(span.begin) * scale, float(span.end - span.begin) * scale
    bar = (
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{BAR}" fill="{fill}" stroke="{border}" '
        f'stroke-width="{0.6 if width > 3 else 0}"><title>{_said(span)}</title></rect>'
    )
    sliced = max(timeline.schedule.shape.slices) > 1
    label = f"{span.action.microbatch}.{span.action.slice}" if sliced else str(span.action.microbatch)
    if span.action.kind not in COMPUTE or width < max(LEAST_LABEL_PX, 7 * len(label)):
        return bar
    return bar + f'<text x="{x + width / 2:.2f}" y="{y + 15}" text-anchor="middle" fill="{INK}">{label}</text>'


def _said(span: Span) -> str:
    begin, long = float(span.begin), float(span.end - span.begin)
    return escape(f"{span.action}: {seconds_text(long)} from {seconds_text(begin)}")


def _axis(seconds: float, y: int) -> Iterator[str]:
    """Five times along the bottom."""
    for part in range(5):
        x, time = LEFT + WIDTH * part / 4, seconds * part / 4
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        said = seconds_text(time) if part else "0"
        yield f'<text x="{x:.0f}" y="{y + 10}" text-anchor="{anchor}" fill="{GREY}">{said}</text>'


def _legend(timelines: Collection[Timeline], y: int) -> Iterator[str]:
    """What the colours mean, of those that occur."""
    everything = [span for timeline in timelines for spans in timeline.spans for span in spans]
    seen = {span.action.kind for span in everything if span.end > span.begin}
    entries = [(COLOURS[kind][0], kind.value) for kind in COLOURS if kind in seen]
    entries += [(MESSAGE, "communication")] if any(timeline.messages for timeline in timelines) else []
    x = LEFT
    for colour, name in [*entries, (IDLE, "idle")]:
        yield f'<rect x="{x}" y="{y - 9}" width="16" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 22}" y="{y}" fill="{INK}">{name}</text>'
        x += 40 + 7 * len(name)


def chrome_trace(timelines: Mapping[str, Timeline]) -> str:
    """Trace events (microseconds): a process a timeline, a thread a device, one beside it for what it sends."""
    events: list[dict[str, object]] = []
    for process, (title, timeline) in enumerate(timelines.items()):
        at: dict[str, object] = {"pid": process}
        events.append({"ph": "M", "name": "process_name", **at, "args": {"name": title}})
        for device, spans in enumerate(timeline.spans):
            for thread, name in ((2 * device, f"device {device}"), (2 * device + 1, f"device {device} sends")):
                events.append({"ph": "M", "name": "thread_name", **at, "tid": thread, "args": {"name": name}})
                order = {"sort_index": thread}
                events.append({"ph": "M", "name": "thread_sort_index", **at, "tid": thread, "args": order})
            events += [_event(span, process, 2 * device) for span in spans if span.end > span.begin]
        events += [_event(message, process, 2 * message.device + 1) for message in timeline.messages]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})


def _event(span: Span, process: int, thread: int) -> dict[str, object]:
    action = span.action
    return {
        "ph": "X", "name": f"{action.kind.value} {action.microbatch}", "cat": action.kind.value,
        "pid": process, "tid": thread,
        "ts": float(span.begin) * 1e6, "dur": float(span.end - span.begin) * 1e6,
        "args": {"microbatch": action.microbatch, "chunk": action.chunk, "slice": action.slice},
    }  # fmt: skip
