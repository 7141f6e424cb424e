"""A graph as a picture, before any drawing: boxes, arrows and the frames around them, as plain data.

In: a `Graph`. Out: a `Picture` with one box for every node (what it computes inside, its variable's name outside) and
one arrow for every operand. Starts of dims that the compiler knows to be 0 are not drawn: every mask and index would
hang on them. `fold` (see fold.py) gives the same kind of picture with a box for every instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ..compiler.ir.graph import Graph
from ..compiler.ir.levels import RELAYOUTS
from ..compiler.ir.types import Layer, Node, Phase
from ..compiler.ops.offsets import start_operands
from .describe import computes, dims_text, own_name, short_name


class Kind(Enum):
    """What sort of thing a box is; each has a fill colour of its own in its phase."""

    PARAMETER = "parameter"
    STATE = "optimizer state"
    INPUT = "input"
    CONSTANT = "constant"
    COMPUTED = "computed"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Box:
    """One box. `inside` is what it computes; `name` and `note` stand outside, at its side; `axis` is that of the mesh
    which a collective runs along."""

    key: str
    inside: str
    name: str
    note: str
    kind: Kind
    phase: Phase
    frame: tuple[str, ...]
    tooltip: str
    axis: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """A labelled frame around the boxes of an instance; `key` is a box's `frame` or the beginning of one."""

    key: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is drawn, in the order of the graph. Arrows are (from, to) keys of boxes.

    `below` holds further pairs, of boxes that stand one above the other although nothing flows between them: layers
    stand so. A whole step, node by node, has its phases side by side, each read from the top down, and its updates in
    rows. Instances frame no part of it, because each is scattered over the phases: names are whole instead.
    """

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...]
    below: tuple[tuple[str, str], ...] = ()


ABREAST = 4  # parameters whose updates stand side by side; those of the next stand below

LEAVES = {"parameter": Kind.PARAMETER, "state": Kind.STATE, "input": Kind.INPUT, "constant": Kind.CONSTANT}


def picture(graph: Graph) -> Picture:
    """Every node of the graph as one box."""
    staged = is_step(graph)
    asked = outputs_by_node(graph)
    labels = label_ids(graph)
    hidden = known_starts(graph)
    drawn = [node for node in graph if node.id not in hidden]
    boxes = tuple(_box(node, staged, asked.get(node.id, ()), node.id in labels) for node in drawn)
    arrows = tuple((use.node, node.id) for node in drawn for use in node.uses if use.node not in hidden)
    return Picture(graph.name, boxes, arrows, frames_of(boxes), tuple(_rows(graph) if staged else _layers(drawn)))


def known_starts(graph: Graph) -> frozenset[str]:
    """Constants that say where a dim starts and nothing else."""
    return frozenset(
        node.id
        for node in graph.nodes("constant")
        if all(edge.operand in start_operands(graph[edge.consumer]).values() for edge in graph.users(node.id))
        and graph.users(node.id)
    )


def _layers(nodes: list[Node]) -> Iterator[tuple[str, str]]:
    """A layer's parameters below the end of the layer before it, else each layer's frame stands beside the last one."""
    ends: dict[Layer, str] = {}
    for node in nodes:
        if node.layer is not None and node.uses:
            ends[node.layer] = node.id
    for node in nodes:
        if node.layer is not None and not node.uses:
            above = ends.get(Layer(node.layer.chain, node.layer.index - 1))
            yield from [(above, node.id)] if above else []


def _rows(graph: Graph) -> Iterator[tuple[str, str]]:
    """The updates of parameters, which depend on nothing of each other, in rows instead of one endless line."""
    states: dict[str, list[str]] = {}
    for node in graph.nodes("state"):
        states.setdefault(str(node.attrs.get("of")), []).append(node.id)
    updates = [node for node in graph.nodes("assign") if node.attrs.get("target") in states]
    for above, under in zip(updates, updates[ABREAST:], strict=False):
        yield from ((above.id, state) for state in states[str(under.attrs["target"])])
    squares = graph.nodes("dot", lambda node: node.phase is Phase.UPDATE)
    yield from ((above.id, under.id) for above, under in zip(squares, squares[ABREAST:], strict=False))


def is_step(graph: Graph) -> bool:
    """Whether the graph is a training step: it has backward or update nodes."""
    return any(node.phase in (Phase.BACKWARD, Phase.UPDATE) for node in graph)


def outputs_by_node(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The names under which a node's results are asked for; gradients are not told, their nodes say so."""
    found: dict[str, tuple[str, ...]] = {}
    for name, use in graph.outputs.items():
        if "/" not in name:
            found[use.node] = (*found.get(use.node, ()), name)
    return found


def label_ids(graph: Graph) -> frozenset[str]:
    """Inputs that are labels: what a cross-entropy compares with."""
    losses = [node for node in graph if node.op == "cross_entropy"]
    return frozenset(node.uses[1].node for node in losses if graph[node.uses[1].node].op == "input")


def kind_of(node: Node, asked: tuple[str, ...]) -> Kind:
    """Which sort of box a node is."""
    return LEAVES.get(node.op, Kind.OUTPUT if asked else Kind.COMPUTED)


def home_phase(node: Node) -> Phase:
    """The phase that a node is drawn in: parameters where they are used first, optimizer state where it changes."""
    return {"parameter": Phase.FORWARD, "state": Phase.UPDATE}.get(node.op, node.phase)


def frame_of(node: Node, staged: bool, path: str | None = None) -> tuple[str, ...]:
    """The nested frames that a node stands in: its phase in a whole step, then its instances from the outside in."""
    parts = instances(node.path if path is None else path)
    return (f"phase {home_phase(node).value}", *parts) if staged else parts


def instances(path: str) -> tuple[str, ...]:
    """The instances on a path, a layer's number kept with its chain: `blocks.0.attn` is (`blocks.0`, `attn`)."""
    found: list[str] = []
    for part in path.split(".") if path else []:
        if found and part.isdecimal():
            found[-1] += f".{part}"
        else:
            found.append(part)
    return tuple(found)


def name_of(node: Node, asked: tuple[str, ...], path: str) -> str:
    """The variable's name, read inside instance `path`; where the spec gave none, that of the output which it is."""
    return (short_name(node.id, path) if own_name(node) else "") or (asked[0] if asked else "")


def note_of(node: Node, asked: tuple[str, ...]) -> str:
    """What stands under the name: other names under which it is asked for, and its dims."""
    named = name_of(node, asked, node.path)
    aliases = [name for name in asked if name != named]
    layout = node.layouts[0].text(node.outs[0].dims) if node.layouts else ""
    shape = layout or (dims_text(node.outs[0].dims) if node.outs else "")
    notes = [f"output {' '.join(aliases)}" if aliases else "", shape]
    return " ".join(note for note in notes if note)


def inside_text(node: Node, label: bool) -> str:
    """What stands in a node's box; an input that the loss compares with is a label."""
    return computes(node).replace("input", "label", 1) if label else computes(node)


def _box(node: Node, staged: bool, asked: tuple[str, ...], label: bool) -> Box:
    where = "".join(f" · {o.file}:{o.line}" for o in node.origin[:1])
    return Box(
        key=node.id,
        inside=inside_text(node, label),
        name=name_of(node, asked, "" if staged else node.path),
        note=note_of(node, asked),
        kind=kind_of(node, asked),
        phase=node.phase,
        frame=frame_of(node, staged)[:1] if staged else frame_of(node, staged),
        tooltip=f"{node.id}: {node.op}{where}",
        axis=str(node.attrs["axis"]) if node.op in RELAYOUTS else "",
    )


def frames_of(boxes: tuple[Box, ...], labels: dict[tuple[str, ...], str] | None = None) -> tuple[Frame, ...]:
    """Every frame that a box stands in, outer before inner, in order of first appearance."""
    found: dict[tuple[str, ...], Frame] = {}
    for box in boxes:
        for depth in range(1, len(box.frame) + 1):
            key = box.frame[:depth]
            label = (labels or {}).get(key, key[-1].removeprefix("phase "))
            found.setdefault(key, Frame(key, label))
    return tuple(found.values())
