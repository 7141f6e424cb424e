"""How much room a text needs in a picture, whatever font the viewer has.

In: a text, its size. Out: points, at least as many as DejaVu Sans takes: it is the widest of the fonts that stand in
for Arial, and Graphviz reckons with Arial. Characters are in classes by width, in ems.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_CLASSES = (
    (0.42, " !'()[]|\\,-./:;Iijlftr·J"),
    (0.57, '"*_`?cszL'),
    (0.70, "ABCEFKPRSTVXYZ"),
    (0.87, "#+<=>^~×−÷≤≥≠&DGHNOQUMw"),
    (1.00, "m%@W…"),
)
_WIDTHS_EM: Mapping[str, float] = MappingProxyType({mark: width for width, marks in _CLASSES for mark in marks})
_PLAIN_EM, _OTHER_EM = 0.65, 1.0  # of the remaining ASCII and Greek letters; of everything else
_BOLD = 1.17


def width_pt(text: str, size_pt: float, bold: bool = False) -> int:
    """Points that a line of text takes at most."""
    ems = sum(_WIDTHS_EM.get(mark, _PLAIN_EM if mark < "\u0400" else _OTHER_EM) for mark in text)
    return round(ems * size_pt * (_BOLD if bold else 1.0) + 0.5)
