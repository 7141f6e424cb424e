"""What partition is held to, beside its values: every operator can be computed as its operands and results lie.

In: a partitioned graph. Out: the first node whose layouts are none of its operator's options, or whose change of layout
is none that its collective makes. So a layout that is wrong is found where it was chosen, not where it is read.
"""

from __future__ import annotations

from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Layout, Mesh
from ...compiler.ir.levels import RELAYOUTS
from ...compiler.ir.types import Node
from ...compiler.partition.relayout import moves
from ...compiler.partition.strategies import options


def first_unfit(graph: Graph, mesh: Mesh) -> tuple[Node, str] | None:
    """The first node whose operands lie as it cannot take them, or whose results lie as it cannot make them."""
    for node in graph:
        operands = [graph[use.node].layouts[use.output] for use in node.uses]
        if not (_moves(node, operands[0], mesh) if node.op in RELAYOUTS else _computes(graph, node, operands, mesh)):
            read = ", ".join(layout.text(use.dims) for layout, use in zip(operands, node.uses, strict=True))
            made = ", ".join(layout.text(out.dims) for layout, out in zip(node.layouts, node.outs, strict=True))
            return node, f"no device computes {node.op} of {read or 'nothing'} to {made or 'nothing'}"
    return None


def _moves(node: Node, before: Layout, mesh: Mesh) -> bool:
    wanted = (node.op, node.attrs["axis"], node.layouts[0])
    return any((move.op, move.axis, move.after) == wanted for move in moves(node.outs[0].dims, before, mesh))


def _computes(graph: Graph, node: Node, operands: list[Layout], mesh: Mesh) -> bool:
    """Whether along every axis what lies there is an option of the operator."""
    if node.op == "assign":
        return operands[0] == graph[str(node.attrs["target"])].layouts[0]
    known = [(option.operands, option.results) for option in options(node) if not option.apart]
    lies = ((tuple(o.on(axis) for o in operands), tuple(r.on(axis) for r in node.layouts)) for axis in mesh.names)
    return all(one in known for one in lies)
