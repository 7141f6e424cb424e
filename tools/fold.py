"""The folded picture: one box for every instance, a chain of layers drawn once with its number.

In: a `Graph`. Out: a `Picture`. Every node is first given the place that it would have in the chain's first layer; then
the instances below the outermost (and below a layer) become boxes, and what stands directly in the model or in a layer
stays as it is. Arrows between one layer and the next are left out: the frame's `×12` says them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod

from ..compiler.ir.graph import Graph
from ..compiler.ir.types import Node, Phase
from .describe import computes, summary_words
from .layers import chains_of, first_layer
from .numbers import compact
from .picture import (
    Box,
    Kind,
    Picture,
    frame_of,
    frames_of,
    home_phase,
    inside_text,
    instances,
    is_step,
    kind_of,
    known_starts,
    label_ids,
    name_of,
    note_of,
    outputs_by_node,
)

# Leaves are never told of an instance, shapes and sums only where there is nothing else; if there is much, the telling.
LEAVES = frozenset({"parameter", "state", "input", "constant", "start", "index", "seed", "step", "extent"})
SHAPES = frozenset({"split_dim", "merge_dims", "expand", "transpose", "cast", "split", "concat", "stack", "unstack"})
SUMS = frozenset({"add", "sub", "mul", "div", "neg", "sum", "accumulate", "assign", "where", "logical_not"})
CHOICES = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or"})
MINOR = SHAPES | SUMS | CHOICES
TELLING = ("attention", "softmax", "cross-entropy", "layer norm", "RMS norm", "rotary", "look-up", "dot", "gelu")
MOST_TOLD = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is drawn: `key` of its box; `whole` if the box is an instance and not this node alone."""

    key: str
    path: str
    whole: bool


def fold(graph: Graph) -> Picture:
    """The picture by blocks."""
    chains = chains_of(graph)
    places = dict(_places(graph, chains))
    staged = is_step(graph)
    asked = outputs_by_node(graph)
    labels = label_ids(graph)
    hidden = known_starts(graph)
    members: dict[str, list[Node]] = {}
    for node in graph.nodes(where=lambda node: node.id not in hidden):
        members.setdefault(places[node.id].key, []).append(node)
    boxes = tuple(
        _instance_box(places[nodes[0].id], nodes, staged, asked)
        if places[nodes[0].id].whole
        else _node_box(places[nodes[0].id], nodes[0], staged, asked.get(nodes[0].id, ()), nodes[0].id in labels)
        for nodes in members.values()
    )
    arrows = tuple(dict.fromkeys(_arrows(graph, places, hidden)))
    return Picture(graph.name, boxes, arrows, frames_of(boxes, _chain_labels(boxes, chains)))


def _places(graph: Graph, chains: Mapping[str, int]) -> Iterator[tuple[str, Place]]:
    """Every node's place. In a layer it is that of the node which has the same name in the first layer."""
    seen: Counter[tuple[str, ...]] = Counter()
    after = _after_backward(graph)
    for node in graph:
        path = first_layer(node.path, chains)
        parts = instances(path)
        in_layer = bool(parts) and any(parts[0] == f"{chain}.0" for chain in chains)
        inner = parts[1:] if in_layer else parts
        phase = home_phase(node).value
        if inner:
            path = ".".join(parts[: 2 if in_layer else 1])
            yield node.id, Place(f"{phase} {path}", path, True)
        elif in_layer:
            alike = first_layer(node.id, chains)
            if alike == node.id and path != node.path:  # its name does not tell the layer: count
                seen[node.path, phase, node.op] += 1
                alike = f"{node.op} {seen[node.path, phase, node.op]}"
            yield node.id, Place(f"{phase} {path} {alike}", path, False)
        elif node.phase is Phase.UPDATE:
            yield node.id, Place(f"{phase} {'clipping' if node.id in after else 'schedule'}", path, True)
        else:
            yield node.id, Place(f"{phase} {node.id}", path, False)


def _after_backward(graph: Graph) -> frozenset[str]:
    """What depends on a gradient: of the update, everything but the schedule."""
    found: set[str] = set()
    for node in graph:
        if node.phase is Phase.BACKWARD or any(use.node in found for use in node.uses):
            found.add(node.id)
    return frozenset(found)


def _arrows(graph: Graph, places: dict[str, Place], hidden: frozenset[str]) -> Iterator[tuple[str, str]]:
    for node in graph:
        for use in node.uses:
            producer = graph[use.node]
            next_layer = (
                node.layer is not None
                and producer.layer is not None
                and node.layer.chain == producer.layer.chain
                and node.layer.index != producer.layer.index
            )
            tail, head = places[producer.id].key, places[node.id].key
            if not next_layer and tail != head and producer.id not in hidden:
                yield tail, head


def _instance_box(place: Place, nodes: list[Node], staged: bool, asked: dict[str, tuple[str, ...]]) -> Box:
    names = [name for node in nodes for name in asked.get(node.id, ())]
    once = [node for node in nodes if node.path.startswith(place.path)] or nodes
    parameters = [node for node in once if node.op == "parameter"]
    kind = Kind.OUTPUT if names else Kind.PARAMETER if parameters and len(parameters) == len(once) else Kind.COMPUTED
    parts = instances(place.path)
    return Box(
        key=place.key,
        inside=_summary(once),
        name=parts[-1] if parts else place.key.rpartition(" ")[2],
        note=", ".join(part for part in (_parameters_text(parameters), *(f"output {n}" for n in names)) if part),
        kind=kind,
        phase=home_phase(nodes[0]),
        frame=frame_of(nodes[0], staged, ".".join(parts[:-1])),
        tooltip=f"{place.path}: {len(once)} nodes",
    )


def _parameters_text(parameters: list[Node]) -> str:
    """How many numbers an instance has to learn; how many tensors where a size is free."""
    sizes = [dim.size for node in parameters for dim in node.outs[0].dims]
    if not parameters or None in sizes:
        return f"{len(parameters)} parameter tensors" if parameters else ""
    return f"{compact(sum(prod(d.size or 1 for d in node.outs[0].dims) for node in parameters))} parameters"


def _summary(nodes: list[Node]) -> str:
    """What an instance computes: in order where that is short (`dot · gelu · dot`), else what and how often."""
    told = [node for node in nodes if node.op not in LEAVES]
    if not told:
        kinds = Counter(node.op for node in nodes)
        return computes(nodes[0]) if len(nodes) == 1 else _times(*kinds.most_common(1)[0])
    if len(told) == 1:
        return computes(told[0])
    words = [summary_words(node) for node in told if node.op not in MINOR] or [summary_words(node) for node in told]
    runs = [(word, len(list(group))) for word, group in groupby(words)]
    if len(runs) > MOST_TOLD:
        runs = sorted(Counter(words).items(), key=lambda run: _rank(run[0]))
    return " · ".join(_times(*run) for run in runs[:MOST_TOLD]) + (" · …" if len(runs) > MOST_TOLD else "")


def _times(word: str, count: int) -> str:
    return f"{count} × {word}" if count > 1 else word


def _rank(word: str) -> int:
    """Where a word stands among the telling ones; the others keep their order behind them."""
    return next((place for place, telling in enumerate(TELLING) if word.startswith(telling)), len(TELLING))


def _node_box(place: Place, node: Node, staged: bool, asked: tuple[str, ...], label: bool) -> Box:
    return Box(
        key=place.key,
        inside=inside_text(node, label),
        name=name_of(node, asked, node.path),
        note=note_of(node, asked),
        kind=kind_of(node, asked),
        phase=node.phase,
        frame=frame_of(node, staged, place.path),
        tooltip=f"{node.id}: {node.op}",
    )


def _chain_labels(boxes: tuple[Box, ...], chains: Mapping[str, int]) -> dict[tuple[str, ...], str]:
    """`blocks ×12` instead of `blocks.0`."""
    keys = {box.frame[:depth] for box in boxes for depth in range(1, len(box.frame) + 1)}
    return {key: f"{chain} ×{count}" for key in keys for chain, count in chains.items() if key[-1] == f"{chain}.0"}
