"""What must be finite before anything is updated: the loss, and the norm of the gradients where the step has one.

In: a listing. Out: the same, what these scalars need in front of all else that the update does, so that a step can be
refused while parameters and optimizer states are still as they were. A step whose loss is scaled looks itself, on the
device, for it must go on with a smaller scale.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.levels import SEND
from ..ir.types import Node, Phase
from .listing import Key, Listing

CHECKED = ("loss", "grad_norm")


def checked_first(found: Listing) -> Listing:
    """The nodes of the update that the checked scalars need, in front of the others."""
    if "loss" not in found.outputs or "skipped" in found.outputs:
        return found
    keys = tuple(dict.fromkeys(found.outputs[name].value for name in CHECKED if name in found.outputs))
    updates = [node for node in found.nodes if node.phase is Phase.UPDATE]
    if not updates:
        return found
    # What other stages wait for is sent before this one waits for them.
    first = needed(found, keys) | {node.id for node in updates if node.op == SEND}
    rest = [node for node in found.nodes if node.phase is not Phase.UPDATE]
    ahead = [node for node in updates if node.id in first]
    behind = [node for node in updates if node.id not in first]
    return replace(found, nodes=(*rest, *ahead, *behind), checks=keys)


def needed(found: Listing, keys: tuple[Key, ...]) -> frozenset[str]:
    """The nodes that these values are computed from, and they themselves."""
    index = found.index()
    pending, seen = [key[0] for key in keys], set[str]()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(use.node for use in index[name].uses if use.node in index)  # others are accumulators
    return frozenset(seen)


def states_written_early(found: Listing) -> tuple[str, ...]:
    """The model's own states, which are written before the update."""
    return tuple(dict.fromkeys(node.uses[0].node for node in found.nodes if _writes_early(node)))


def _writes_early(node: Node) -> bool:
    return node.op == "lower.assign" and node.phase is not Phase.UPDATE
