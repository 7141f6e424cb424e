"""Pictures as Graphviz source, and their drawing to SVG or PNG.

In: a `Picture`. Out: DOT text (deterministic), drawn by the system's `dot` where there is one and else by the
`graphviz-pure` wheel. A box is a table of two cells: the framed cell holds what is computed, the bare cell beside it
the variable's name, so that the name stands outside the box. Edges are directed and carry no label. Cells are as wide
as the widest font needs (lettering.py), and in an SVG what a box holds is centred by the viewer, in the font it has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from html import escape
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

import graphviz

from ..compiler.ir.types import Phase
from .fault import CommandFault
from .lettering import width_pt
from .picture import Box, Frame, Kind, Picture

FONT = "Arial"  # graphviz-pure carries metrics of Arimo, which are Arial's
FONTS = "Arial, Helvetica, sans-serif"  # what an SVG asks its viewer for
TEXT, NOTE, PADDING = 11, 9, 6  # points
INK, GREY, FRAME = "#1b1f24", "#5f6b7a", "#b9c2cd"

# Fills light enough for dark text (contrast above 10:1), hues of Okabe and Ito's palette, which the colour-blind can
# tell apart; borders carry the same hue darker.
KIND_COLOURS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        Kind.PARAMETER: ("#fde7c2", "#b97800"),
        Kind.STATE: ("#f5dcec", "#a04f7f"),
        Kind.INPUT: ("#d5ebf9", "#1f78b4"),
        Kind.CONSTANT: ("#e9ecef", "#6b7683"),
        Kind.COMPUTED: ("#ffffff", "#3a4450"),
        Kind.OUTPUT: ("#cfeee2", "#00795a"),
    }
)
PHASE_COLOURS: Mapping[Phase, tuple[str, str]] = MappingProxyType(
    {
        Phase.PREPARE: ("#e9ecef", "#6b7683"),
        Phase.FORWARD: ("#d5ebf9", "#1f78b4"),
        Phase.BACKWARD: ("#fbd9c8", "#b34700"),
        Phase.UPDATE: ("#cfeee2", "#00795a"),
    }
)
AXIS_COLOURS = (("#f0e442", "#8a8000"), ("#e3c6ee", "#7b3294"), ("#c9d6a3", "#5a7a10"), ("#f7c3c8", "#a01c2b"))
PHASE_TINTS: Mapping[str, str] = MappingProxyType(
    {"phase prepare": "#f7f8f9", "phase forward": "#f3f9fd", "phase backward": "#fef6f2", "phase update": "#f2fbf8"}
)
GRAPH = {
    "rankdir": "TB",
    "nodesep": "0.3",
    "ranksep": "0.42",
    "newrank": "true",
    "fontname": FONT,
    "fontsize": "15",
    "fontcolor": INK,
    "labelloc": "t",
    "labeljust": "l",
    "bgcolor": "white",
    "pad": "0.25",
    "tooltip": " ",
}
NODE = {"shape": "plain", "fontname": FONT, "fontsize": str(TEXT), "fontcolor": INK}
ACROSS = {"color": "#aab4bf", "style": "dashed", "penwidth": "0.7"}  # from one phase to another: what is kept
ABREAST = ACROSS | {"constraint": "false"}  # the same where it does not put its end below its beginning
EDGE = {"color": "#7a8694", "arrowsize": "0.55", "penwidth": "0.9", "tooltip": " "}


def to_dot(picture: Picture) -> str:
    """DOT source. The same picture gives the same text."""
    staged = any(frame.key[0].startswith("phase ") for frame in picture.frames)
    source = graphviz.Digraph(_id(picture.title), graph_attr=GRAPH, node_attr=NODE, edge_attr=EDGE)
    source.attr(label=_heading(picture, staged))
    _fill(source, picture, (), staged)
    across = ABREAST if picture.below else ACROSS
    phases = {box.key: box.frame[0] if staged else "" for box in picture.boxes}
    for tail, head in picture.arrows:
        style = {} if phases[tail] == phases[head] else across
        source.edge(f"{_id(tail)}:box", f"{_id(head)}:box", **style)
    for above, under in picture.below:
        source.edge(_id(above), _id(under), style="invis", weight="0")
    return source.source


def _fill(source: graphviz.Digraph, picture: Picture, key: tuple[str, ...], staged: bool) -> None:
    """The boxes of a frame, then the frames inside it."""
    axes = _axis_colours(picture)
    for box in picture.boxes:
        if box.frame == key:
            source.node(_id(box.key), _label(box, staged, axes), tooltip=graphviz.escape(box.tooltip))
    for frame in picture.frames:
        if frame.key[:-1] == key:
            inner = graphviz.Digraph(_id("cluster " + " / ".join(frame.key)))
            inner.attr(**_frame_style(frame))
            _fill(inner, picture, frame.key, staged)
            source.subgraph(inner)


def _frame_style(frame: Frame) -> dict[str, str]:
    label = f"<{_font(frame.label, GREY, TEXT, bold=True)}>"
    style = {"label": label, "labeljust": "l", "style": "rounded", "color": FRAME, "margin": "10"}
    tint = PHASE_TINTS.get(frame.key[-1])
    filled = {"style": "rounded,filled", "fillcolor": tint} if tint else {}
    return style | filled | {"tooltip": graphviz.escape(frame.label)}


def _axis_colours(picture: Picture) -> dict[str, tuple[str, str]]:
    """A colour for each axis of the mesh, in the order in which they occur."""
    axes = dict.fromkeys(box.axis for box in picture.boxes if box.axis)
    return dict(zip(axes, cycle(AXIS_COLOURS), strict=False))


def _label(box: Box, staged: bool, axes: Mapping[str, tuple[str, str]]) -> str:
    fill, border = PHASE_COLOURS[box.phase] if staged else KIND_COLOURS[box.kind]
    fill, border = axes.get(box.axis, (fill, border))
    thickness = 2 if box.kind in (Kind.PARAMETER, Kind.STATE, Kind.OUTPUT) else 1
    rounded = ' STYLE="ROUNDED"' if box.kind in (Kind.COMPUTED, Kind.OUTPUT) else ""
    width = width_pt(box.inside, TEXT) + 2 * (PADDING + thickness)
    frame = f'PORT="box" BORDER="{thickness}" COLOR="{border}" BGCOLOR="{fill}"{rounded} CELLPADDING="{PADDING}"'
    table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3">'
    return f'<{table}<TR><TD {frame} WIDTH="{width}">{_text(box.inside)}</TD>{_outside(box)}</TR></TABLE>>'


def _outside(box: Box) -> str:
    """The cell beside the box: the variable's name, under it the note; none where there is neither."""
    name = [_font(box.name, INK, TEXT, bold=True)] if box.name else []
    note = [_font(box.note, GREY, NOTE)] if box.note else []
    lines = "".join(f'{line}<BR ALIGN="LEFT"/>' for line in name + note)
    width = max(width_pt(box.name, TEXT, bold=True), width_pt(box.note, NOTE)) + 6
    return f'<TD ALIGN="LEFT" BALIGN="LEFT" WIDTH="{width}">{lines}</TD>' if lines else ""


def _heading(picture: Picture, staged: bool) -> str:
    """The title, and under it what the colours mean."""
    if staged:
        used = [(p.value, PHASE_COLOURS[p]) for p in Phase if any(b.phase is p for b in picture.boxes)]
        used += [(f"over {axis}", colours) for axis, colours in _axis_colours(picture).items()]
    else:
        used = [(k.value, KIND_COLOURS[k]) for k in Kind if any(b.kind is k for b in picture.boxes)]
    swatch = '<TD BORDER="1" WIDTH="18" HEIGHT="12" COLOR="{}" BGCOLOR="{}"></TD><TD ALIGN="LEFT" WIDTH="{}">{}</TD>'
    cells = "".join(
        swatch.format(border, fill, width_pt(text, TEXT) + 12, _font(text, GREY, TEXT)) for text, (fill, border) in used
    )
    legend = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="4"><TR>{cells}</TR></TABLE>'
    title = f'<TR><TD ALIGN="LEFT">{_font(picture.title, INK, 16, bold=True)}</TD></TR>'
    return f'<<TABLE BORDER="0" CELLSPACING="2">{title}<TR><TD ALIGN="LEFT">{legend}</TD></TR></TABLE>>'


def _font(text: str, colour: str, size: int, bold: bool = False) -> str:
    inner = f"<B>{_text(text)}</B>" if bold else _text(text)
    return f'<FONT COLOR="{colour}" POINT-SIZE="{size}">{inner}</FONT>'


def _text(text: str) -> str:
    return escape(text) or " "


def _id(key: str) -> str:
    """A colon would be read as a port, a backslash as an escape; neither stands in names that a spec can write."""
    return key.replace(":", "∶").replace("\\", "∖")


# ---- drawing

FORMATS = ("svg", "png", "pdf", "dot", "gv")


def draw(dot: str, path: Path, limit_s: float = 300.0) -> None:
    """Write the picture to `path`, whose suffix is one of FORMATS; an old file stays until the end."""
    kind = path.suffix.removeprefix(".").lower()
    assert kind in FORMATS, f"no format {kind}"
    data = dot.encode() if kind in ("dot", "gv") else _run(dot, kind, limit_s)
    if kind == "svg":
        data = centred(data.decode()).encode()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as fault:
        raise CommandFault(f"cannot write `{path}`: {fault.strerror}", exit_code=1) from fault
    finally:
        part.unlink(missing_ok=True)


_NODE = re.compile(r'<g id="node\d+" class="node">.*?</g>\n</g>|<g id="node\d+" class="node">.*?</g>', re.DOTALL)
_SHAPE = re.compile(r' (?:d|points)="([^"]+)"')
_START = re.compile(r'text-anchor="start" x="[^"]*"')


def centred(svg: str) -> str:
    """The SVG with what stands in a box anchored at the box's middle: Graphviz has put it where Arial would begin."""
    return _NODE.sub(lambda node: _centre_first(node[0]), svg).replace(
        f'font-family="{FONT}"', f'font-family="{FONTS}"'
    )


def _centre_first(node: str) -> str:
    """The first text of a node is what its first shape, the box, holds."""
    shape = _SHAPE.search(node)
    if shape is None:
        return node
    across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", shape[1])]
    middle = (min(across) + max(across)) / 2
    return _START.sub(f'text-anchor="middle" x="{middle:.2f}"', node, count=1)


def _run(dot: str, kind: str, limit: float) -> bytes:
    program = shutil.which("dot") or _wheel_program()
    if program is None:
        raise CommandFault("neither `dot` nor `graphviz-pure` is here", "pip install graphviz-pure, or -o FILE.dot", 1)
    try:
        result = subprocess.run(
            [program, f"-T{kind}"], input=dot.encode(), capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as fault:
        raise CommandFault(f"drawing took more than {limit:.0f} s", "--fold draws one box for a block", 1) from fault
    if result.returncode != 0 or not result.stdout:
        words = result.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise CommandFault(f"{Path(program).name} could not draw a {kind}: {words[0][:200]}", exit_code=1)
    return result.stdout


def _wheel_program() -> str | None:
    """The wheel puts its program beside the interpreter, which need not be on the PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("graphviz-pure", path=beside) or shutil.which("graphviz-pure")
