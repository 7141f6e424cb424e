"""What one device of a mesh holds and sends in a step, read off a partitioned graph, or off one device's own.

In: the graph, the mesh. Out: bytes of the device that has most: of parameters (with the copies that are computed with),
summed gradients, optimizer states, activations that the forward keeps for the backward; and bytes sent along each axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.layout import Mesh
from ..ir.types import Node, Phase, Use
from ..ops.collectives import COLLECTIVES
from ..ops.shapes import elements
from .flops import ONCE_A_STEP
from .roofline import VIEWS


@dataclass(frozen=True, slots=True)
class Account:
    """Bytes of one device. sent_bytes: along each axis in a step. messages: how many, along each axis."""

    parameter_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int
    sent_bytes: Mapping[str, int]
    messages: Mapping[str, int]


def account(graph: Graph, mesh: Mesh, hosted: Container[str] = ()) -> Account:
    """What the device that has most holds and sends. `hosted`: parameters and states that lie on its host."""
    held: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    read_in = _readers(graph)
    for node in graph:
        for index in range(len(node.outs)):
            kind = "" if node.id in hosted else _kind(graph, node, read_in.get((node.id, index), frozenset()))
            held[kind] += _bytes(graph, node.out(index), mesh) if kind else 0
        if node.op in COLLECTIVES:
            axis, times = str(node.attrs["axis"]), 1 if node.phase in ONCE_A_STEP else graph.microbatches
            sent[axis] += times * _sent(graph, node, mesh)
            messages[axis] += times
    return Account(held["parameters"], held["gradients"], held["states"], held["kept"], dict(sent), dict(messages))


def _readers(graph: Graph) -> dict[tuple[str, int], frozenset[Phase]]:
    found: dict[tuple[str, int], set[Phase]] = {}
    for node in graph:
        for use in node.uses:
            found.setdefault(use.value, set()).add(node.phase)
    return {value: frozenset(phases) for value, phases in found.items()}


def _kind(graph: Graph, node: Node, readers: frozenset[Phase]) -> str:
    """Whose memory a result is between the phases; nothing for what is gone by then."""
    if node.op in ("parameter", "state"):
        return "parameters" if node.op == "parameter" else "states"
    if node.op == "accumulate":
        return "gradients" if node.outs[0].dims else ""
    computed = {Phase.FORWARD, Phase.BACKWARD} & readers
    if node.phase is Phase.PREPARE and computed and node.uses:
        return "parameters"  # a copy: cast, or gathered
    keeps = node.phase is Phase.FORWARD and Phase.BACKWARD in readers and node.op not in VIEWS
    return "kept" if keeps else ""


def _bytes(graph: Graph, use: Use, mesh: Mesh) -> int:
    return _elements(graph, use, mesh) * use.dtype.itemsize_bytes


def _elements(graph: Graph, use: Use, mesh: Mesh, usual: bool = False) -> int:
    """Of a device's part; a graph without layouts is that of one device already."""
    layouts = graph[use.node].layouts
    if not layouts:
        return elements(use.dims)
    layout = layouts[use.output]
    return layout.usual_elements(use.dims, mesh) if usual else layout.elements(use.dims, mesh)


# With k devices and n bytes of the whole along the axis, each sends (k-1)/k n for an all-gather or a reduce-scatter,
# twice that for an all-reduce, and (k-1)/k of what it holds for an all-to-all.
def _sent(graph: Graph, node: Node, mesh: Mesh) -> int:
    size = mesh.size(str(node.attrs["axis"]))
    use = node.out() if node.op == "all_gather" else node.uses[0]
    whole = _elements(graph, use, mesh, usual=True) * use.dtype.itemsize_bytes
    return (2 if node.op == "all_reduce" else 1) * whole * (size - 1) // size
