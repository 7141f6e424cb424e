"""Replicated parameters whose update is cut over an axis: each device writes its own part in place, then all gather.

In: a listing and the axes of the mesh. Out: the same where `p = all_gather(f(shard(p)))` needs neither a copy of the
part nor one of the whole: the part is a view, the new value goes over the old one there, and what is gathered comes
into the parameter itself. It holds where the parts lie one behind another, and the update reads nothing else of `p`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..ir.types import Dim, Node, Phase, Use
from .listing import Key, Listing, frozen

GATHER = "lower.gather"  # operands: the own part, the whole that it is a view of; no results


def write_own_parts(found: Listing, axes: Sequence[str]) -> Listing:
    """Such assignments go to the shard, which is marked as a view; `gather_own_parts` must follow."""
    index, users, asked = found.index(), found.users(), found.asked()
    views: dict[str, Node] = {}
    instead: dict[str, Node] = {}
    gone: set[str] = set()
    for node in found.nodes:
        gather = index[node.uses[0].node] if node.op == "assign" and node.phase is Phase.UPDATE else None
        target = index.get(str(node.attrs.get("target")))
        if gather is None or gather.op != "all_gather" or target is None:
            continue
        alone = len(users[gather.id, 0]) == 1 and (gather.id, 0) not in asked
        shard = _own_part(target, gather, users) if alone and gather.attrs["axis"] in axes else None
        if shard is not None and shard.id not in views and (shard.id, 0) not in asked:
            views[shard.id] = replace(shard, attrs={**shard.attrs, "view": True})
            instead[node.id] = replace(node, uses=gather.uses, attrs={**node.attrs, "target": shard.id})
            gone.add(gather.id)
    nodes = tuple(views.get(n.id, instead.get(n.id, n)) for n in found.nodes if n.id not in gone)
    return replace(found, nodes=nodes)


def _own_part(target: Node, gather: Node, users: Mapping[Key, Sequence[Node]]) -> Node | None:
    """The one thing that the update reads of a parameter: the part that is gathered again."""
    read = {node.id: node for node in users.get((target.id, 0), ()) if node.phase is Phase.UPDATE}
    if len(read) != 1:
        return None
    (shard,) = read.values()
    same = shard.op == "shard" and shard.attrs["axis"] == gather.attrs["axis"]
    if not same or shard.uses[0].node != target.id or len(shard.uses) + len(gather.uses) > 2:
        return None
    at, back = _position(shard.uses[0], shard.attrs["dim"]), _position(gather.uses[0], gather.attrs["dim"])
    leads = math.prod(dim.size or 0 for dim in shard.uses[0].dims[:at]) == 1
    return shard if leads and at == back else None


def _position(use: Use, dim: object) -> int:
    assert isinstance(dim, Dim), "a collective names the dim that it cuts"
    return use.dims.index(dim)


def gather_own_parts(found: Listing) -> Listing:
    """Each view is gathered once everything is written."""
    gathers: list[Node] = []
    for node in found.nodes:
        if node.op == "shard" and node.attrs.get("view"):
            (whole,) = node.uses
            attrs = frozen(axis=node.attrs["axis"], dim=node.attrs["into"], into=node.attrs["dim"])
            uses = (Use(node.id, 0, node.outs[0].dims, whole.dtype), whole)
            gathers.append(replace(node, id=f"gather/{whole.node}", op=GATHER, uses=uses, outs=(), attrs=attrs))
    return replace(found, nodes=(*found.nodes, *gathers))
