"""Cutting a node list into segments: runs of one phase and one layer, each to become a call of one module.

Two segments with the same signature (operators, attributes, dims, layouts and lifetimes of what they read) are calls of
the same module: parameters come as arguments, the keys of randomness as integer literals. So 96 layers are one forward
and one backward module, written and compiled once. What moves data between devices or cuts it for them stands alone: a
module never communicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.levels import MOVES, RECEIVE, SEND
from ..ir.types import Layer, Node, Phase, Use
from ..ops.hashing import key_words
from .checks import needed
from .kernels import ARGUMENTS
from .listing import NO_PART, Key, Listing
from .own import GATHER

# Written into every module that reads them.
INLINE = frozenset({"constant", "extent"})
# Over an axis of the mesh they are instructions of their own, never part of a module; without one they change nothing.
ALONE = frozenset({"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "shard", "spread", GATHER})
# Attributes that a shared module takes as integer literals.
LITERALS = {"random": "key", "gaussian": "key"}


@dataclass(slots=True)
class Segment:
    """Nodes that one module computes, or one node that stands `alone`: an instruction of its own.

    inputs    the values that it reads from outside, by first use
    outputs   the values that are read outside, in the order in which they are made
    part      of a stage of a pipeline, the part of a microbatch's work that it is in
    host      whether it runs on the host
    """

    phase: Phase
    layer: Layer | None
    nodes: list[Node] = field(default_factory=list[Node])
    inputs: tuple[Key, ...] = ()
    outputs: tuple[Key, ...] = ()
    alone: Node | None = None
    part: int = NO_PART
    host: bool = False


def cut(listing: Listing, axes: Sequence[str] = ()) -> list[Segment]:
    """The segments of a device on a mesh with these axes, in an order in which they can run.

    A node of a layer joins its layer's latest segment if all that it reads is there or earlier; any other node joins
    only the segment that is open, so that nothing without a layer moves. What is checked before the update, and the
    update, are apart.
    """
    asked = listing.asked()
    checked = needed(listing, listing.checks)
    sent = {use.value for node in listing.nodes if stands_alone(node, axes) for use in node.uses}
    inline = {n.id: n for n in listing.nodes if n.op in INLINE and (n.id, 0) not in asked | sent}
    segments: list[Segment] = []
    place: dict[str, int] = {}
    latest: dict[tuple[Phase, Layer | None, int, bool], int] = {}
    for node in listing.nodes:
        if node.op in ARGUMENTS or node.id in inline:
            continue
        layer = node.layer if node.phase in (Phase.FORWARD, Phase.BACKWARD) or node.host else None
        part = listing.part(node)
        kind = (node.phase, layer, part, node.host)
        if stands_alone(node, axes):
            place[node.id] = len(segments)
            segments.append(Segment(node.phase, layer, [node], alone=node, part=part))
            continue
        earliest = max((place.get(use.node, 0) for use in node.uses), default=0)
        at = latest.get(kind, -1)
        stays = layer is None or node.phase is Phase.UPDATE  # what writes stands behind the readers of what was there
        joins = at >= earliest and (not stays or at == len(segments) - 1)
        if joins and listing.checks and node.phase is Phase.UPDATE:
            joins = (node.id in checked) == (segments[at].nodes[-1].id in checked)
        if not joins:
            at = len(segments)
            segments.append(Segment(node.phase, layer, part=part, host=node.host))
            latest[kind] = at
        segments[at].nodes.append(node)
        place[node.id] = at
    for segment in segments:
        segment.nodes = _with_constants(segment.nodes, inline)
    _connect(segments, asked)
    return segments


def stands_alone(node: Node, axes: Sequence[str]) -> bool:
    """Whether a node is an instruction of its own on a mesh with these axes."""
    return (node.op in ALONE and node.attrs["axis"] in axes) or node.op in (SEND, RECEIVE) or node.op in MOVES


def _with_constants(nodes: Sequence[Node], inline: Mapping[str, Node]) -> list[Node]:
    """Each constant in front of its first reader."""
    found: list[Node] = []
    here: set[str] = set()
    for node in nodes:
        for use in node.uses:
            if use.node in inline and use.node not in here:
                here.add(use.node)
                found.append(inline[use.node])
        found.append(node)
    return found


def _connect(segments: Sequence[Segment], asked: frozenset[Key]) -> None:
    """Fill in what each segment reads and gives."""
    readers: dict[Key, int] = {}
    for segment in segments:
        made = {node.id for node in segment.nodes if node.outs}
        found = dict.fromkeys(use.value for node in segment.nodes for use in node.uses if use.node not in made)
        segment.inputs = tuple(found)
        for key in found:
            readers[key] = readers.get(key, 0) + 1
    for segment in segments:
        keys = [(node.id, i) for node in segment.nodes for i in range(len(node.outs)) if node.op not in INLINE]
        constants = [(n.id, 0) for n in segment.nodes if n.op in INLINE and (n.id, 0) in asked | readers.keys()]
        segment.outputs = tuple(key for key in [*keys, *constants] if key in readers or key in asked)


def literals(segment: Segment) -> tuple[int, ...]:
    """The integers that follow a segment's inputs: two words for the key of each random node."""
    keys = [str(node.attrs[LITERALS[node.op]]) for node in segment.nodes if node.op in LITERALS]
    return tuple(word for key in keys for word in key_words(key))


def signature(segment: Segment) -> tuple[object, ...]:
    """What makes two segments the same module, the layouts of their inputs apart."""
    local: dict[str, int] = {node.id: i for i, node in enumerate(segment.nodes) if node.outs}
    outside = {key: i for i, key in enumerate(segment.inputs)}

    def edge(use: Use) -> tuple[object, ...]:
        inner = local.get(use.node)
        source = ("in", outside[use.value]) if inner is None else (inner, use.output)
        return (source, use.dims, use.dtype)

    def facts(node: Node) -> tuple[object, ...]:
        hidden = LITERALS.get(node.op)
        attrs = tuple(sorted(((k, v) for k, v in node.attrs.items() if k != hidden), key=lambda item: item[0]))
        return (node.op, tuple(edge(use) for use in node.uses), node.outs, attrs)

    outputs = tuple((local[name], index) for name, index in segment.outputs)
    return (segment.phase, segment.host, tuple(facts(node) for node in segment.nodes), len(segment.inputs), outputs)
