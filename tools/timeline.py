"""The memory of a step over time, as SVG: a band an owner, stacked, one column an instruction; the peak is marked.

In: a footprint's course. Out: the text of a picture without scripts or outside references. Hand-written, because a
stacked area of a few hundred columns needs no plotting library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from ..compiler.cost.memory import Owner
from .lettering import width_pt
from .numbers import bytes_text

if TYPE_CHECKING:
    from ..compiler.lower.footprint import Footprint, Level

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 64, 56
SMALL, LARGE = 11, 15
COLUMNS = 800  # of the picture: of a longer course each column shows the highest of several instructions
# From what always lives, at the bottom, to what comes and goes. Colours that differ in lightness too (Okabe, Ito 2008).
COLOURS: Mapping[Owner, str] = MappingProxyType(
    {
        Owner.PARAMETER: "#0072b2",
        Owner.STATE: "#56b4e9",
        Owner.DATA: "#999999",
        Owner.GRADIENT: "#d55e00",
        Owner.ACTIVATION: "#e69f00",
        Owner.WORKSPACE: "#cc79a7",
    }
)


def timeline(name: str, found: Footprint) -> str:
    """The picture."""
    levels = _thinned(found.levels)
    scale = _Scale(len(levels), max(level.peak_bytes for level in levels))
    present = [owner for owner in COLOURS if any(level.owners.get(owner, 0) for level in levels)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Arial, DejaVu Sans, sans-serif">',
        f"<title>{escape(name)}: memory over a step</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, f"{name}: memory over a step", LARGE, weight="bold"),
        *_legend(present),
        *_grid(scale),
        *_bands(levels, present, scale),
        *_phases(levels, scale),
        *_peak(levels, found.memory.at, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """From instructions and bytes to points."""

    def __init__(self, columns: int, peak: int) -> None:
        self.columns, self.top = columns, max(1, peak) * 1.08

    def x(self, column: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * column / self.columns

    def y(self, size: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * size / self.top


def _thinned(levels: Sequence[Level]) -> Sequence[Level]:
    """Of several instructions that share a column, the highest."""
    each = -(-len(levels) // COLUMNS)
    return [max(levels[i : i + each], key=lambda level: level.peak_bytes) for i in range(0, len(levels), each)]


def _text(x: float, y: float, text: str, size: int = SMALL, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="#222">{escape(text)}</text>'
    )


def _legend(owners: Sequence[Owner]) -> list[str]:
    parts: list[str] = []
    x = float(LEFT)
    for owner in owners:
        parts.append(f'<rect x="{x:.1f}" y="38" width="11" height="11" fill="{COLOURS[owner]}"/>')
        parts.append(_text(x + 16, 48, owner.value))
        x += 16 + width_pt(owner.value, SMALL) + 18
    return parts


def _grid(scale: _Scale) -> list[str]:
    """Horizontal lines at round sizes, four to eight of them."""
    step = 1 << max(0, int(scale.top / 4).bit_length() - 1)
    parts: list[str] = []
    for size in range(0, int(scale.top) + 1, step):
        y = scale.y(size)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, bytes_text(size), anchor="end"))
    return parts


def _bands(levels: Sequence[Level], owners: Sequence[Owner], scale: _Scale) -> list[str]:
    """Each owner between the sum of those below it and its own, in steps."""
    heights = [list(accumulate((level.owners.get(owner, 0) for owner in owners), initial=0)) for level in levels]
    parts: list[str] = []
    for index, owner in enumerate(owners):
        above = [p for i, h in enumerate(heights) for p in ((i, h[index + 1]), (i + 1, h[index + 1]))]
        below = [p for i, h in enumerate(heights) for p in ((i, h[index]), (i + 1, h[index]))]
        outline = [*above, *reversed(below)]
        points = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in outline)
        parts.append(f'<polygon points="{points}" fill="{COLOURS[owner]}"/>')
    return parts


def _phases(levels: Sequence[Level], scale: _Scale) -> list[str]:
    """The phases below the axis, with a line where one ends; microbatches are one phase."""
    parts: list[str] = []
    start = 0
    for phase, group in groupby(levels, key=lambda level: level.phase):
        end = start + len(list(group))
        middle, bottom = scale.x((start + end) / 2), HEIGHT - BOTTOM
        x = scale.x(end)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 6}" stroke="#888" opacity="0.5"/>')
        if width_pt(phase, SMALL) < scale.x(end) - scale.x(start):
            parts.append(_text(middle, bottom + 18, phase, anchor="middle"))
        start = end
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 14, "instructions, in order", anchor="middle"))
    return parts


def _peak(levels: Sequence[Level], place: str, scale: _Scale) -> list[str]:
    column = max(range(len(levels)), key=lambda i: levels[i].peak_bytes)
    x, y = scale.x(column + 0.5), scale.y(levels[column].peak_bytes)
    anchor = "start" if column < len(levels) / 2 else "end"
    words = f"{bytes_text(levels[column].peak_bytes)} at {place}" if place else bytes_text(levels[column].peak_bytes)
    return [
        f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#222" stroke-dasharray="4 3"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#222"/>',
        _text(x, y - 7, words, anchor=anchor),
    ]
