"""What of a tensor a collective cuts or joins.

In: a node that changes a layout. Out: the axis that is cut or joined, with its size over all devices; and of how many
groups the rows are, where what is cut is sorted rows.
"""

from __future__ import annotations

from ..ir.types import Dim, Node
from ..ops.collectives import changes
from .own import GATHER


def groups_of(node: Node) -> int:
    """Of how many groups the sorted rows are that a change of layout cuts or joins: 0 where it is of no such."""
    runs = [dim.runs for pair in changes(node) for dim in pair]
    return next((one.by.size or 0 for one in runs if one is not None), 0)


def position_of(node: Node, name: str) -> tuple[int, int]:
    """Where the axis stands that a collective cuts or joins, and its size over all devices (0, 0 where there is none).

    all_gather(dim -> into) makes it whole; reduce_scatter, shard (dim -> into) and all_to_all (split) cut it.
    """
    dim = node.attrs.get(name)
    if not isinstance(dim, Dim):
        return 0, 0
    whole = {
        "all_gather": node.attrs.get("into"),
        GATHER: node.attrs.get("into"),
        "all_to_all": node.attrs.get("join_into"),
    }.get(node.op, dim)
    found = whole if name != "split" else dim
    assert isinstance(found, Dim) and found.size is not None, f"{node.id}: {name} has no size"
    return node.uses[0].dims.index(dim), found.size
