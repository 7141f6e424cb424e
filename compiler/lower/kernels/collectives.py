"""Collectives on a mesh of one device: the identity. On more devices they are instructions between modules."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.types import Node
from ..emit import Emitter, Rule, Value


def identity(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """What one device has is the whole value."""
    return [e.tensor(values[0], node.uses[0].dtype)]


RULES: dict[str, Rule] = dict.fromkeys(
    ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "shard", "partial", "spread", "mask"), identity
)
