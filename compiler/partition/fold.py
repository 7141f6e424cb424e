"""Distinct nodes: those of layers that are alike are one class, so that a choice is made once for all of them.

In: a step's graph. Out: its classes, each with one node that stands for all, how many there are, and which classes
read which. Two nodes of a chain's layers are alike if their ids without the layer's number, operators, types and
attributes are; where no number stands, if they read like nodes (a norm's square of every layer's gradient). Layouts at
the border of two layers are then equal, because the border is one edge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.types import Layer, Node

ClassId = str
Reader = tuple[ClassId, int]  # a class and the operand that it reads with
OUTPUT = "output "  # begins the reader of what the graph is asked for


@dataclass(frozen=True, slots=True)
class Read:
    """Values of one class that the same readers read: so many of them."""

    source: ClassId
    output: int
    readers: tuple[Reader, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Folded:
    """nodes: a node for each class. counts: how many it stands for. of: the class of every node. reads: the edges."""

    nodes: dict[ClassId, Node]
    counts: dict[ClassId, int]
    of: dict[str, ClassId]
    reads: tuple[Read, ...]


def fold(graph: Graph) -> Folded:
    """The classes of a graph."""
    of: dict[str, ClassId] = {}
    known: dict[object, ClassId] = {}
    nodes: dict[ClassId, Node] = {}
    counts: Counter[ClassId] = Counter()
    readers: dict[tuple[str, int], list[Reader]] = {}
    for node in graph:
        here = of[node.id] = _class(node, of, counts, known)
        nodes.setdefault(here, node)
        counts[here] += 1
        for place, use in enumerate(node.uses):
            readers.setdefault(use.value, []).append((here, _place(node, place)))
    for name, use in graph.outputs.items():
        readers.setdefault(use.value, []).append((f"{OUTPUT}{name}", 0))
    groups: Counter[tuple[ClassId, int, tuple[Reader, ...]]] = Counter()
    for (source, output), found in readers.items():
        groups[of[source], output, tuple(dict.fromkeys(found))] += 1
    reads = tuple(Read(source, output, found, count) for (source, output, found), count in groups.items())
    return Folded(nodes, dict(counts), of, reads)


def _place(node: Node, place: int) -> int:
    """The operand; terms of a sum that have the same axes are one."""
    if node.op != "add":
        return place
    return next(at for at, use in enumerate(node.uses) if use.dims == node.uses[place].dims)


def _class(node: Node, of: dict[str, ClassId], counts: Counter[ClassId], known: dict[object, ClassId]) -> ClassId:
    """The class of a node: its first member's id."""
    name = node.id if node.layer is None else _anonymous(node.id, node.layer)
    if name == node.id:  # nothing in it tells the layer
        sources = tuple(of[use.node] for use in node.uses)
        name = str(sources) if any(counts[one] > 1 for one in sources) else node.id
    key = (name, node.op, node.phase, node.outs, tuple(use.dims for use in node.uses), tuple(_plain(node)))
    return known.setdefault(key, node.id)


def _plain(node: Node) -> Iterator[object]:
    """What attributes say but for texts, which may name the layer."""
    for name, value in node.attrs.items():
        if not isinstance(value, str):
            yield name, type(value), value


def _anonymous(name: str, layer: Layer) -> str:
    """A node's id without its layer's number."""
    here = f"{layer.chain}.{layer.index}"
    at = name.find(here)
    while at >= 0:
        end = at + len(here)
        starts, ends = at == 0 or name[at - 1] in "/.", end == len(name) or name[end] in "./"
        if starts and ends:
            return f"{name[:at]}{layer.chain}.*{name[end:]}"
        at = name.find(here, end)
    return name
