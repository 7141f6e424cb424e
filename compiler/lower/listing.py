"""A graph as the list of nodes that is to be emitted: what `fuse.py` and `updates.py` rewrite and `segment.py` cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..ir.types import Attr, Node, Phase, TensorType, Use

Key = tuple[str, int]
PHASES = (Phase.PREPARE, Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE)


@dataclass(frozen=True, slots=True)
class Listing:
    """Nodes in the order in which they run, and what is asked for.

    accumulators   values that live in a buffer of their own, to which every microbatch adds
    checks         scalars, the loss first, that must be finite before anything is updated
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Use]
    microbatches: int
    accumulators: Mapping[Key, TensorType] = field(default_factory=dict[Key, TensorType])
    checks: tuple[Key, ...] = ()

    def index(self) -> dict[str, Node]:
        """The nodes by id."""
        return {node.id: node for node in self.nodes}

    def users(self) -> dict[Key, list[Node]]:
        """Who reads each value, once for each operand."""
        found: dict[Key, list[Node]] = {}
        for node in self.nodes:
            for use in node.uses:
                found.setdefault(use.value, []).append(node)
        return found

    def asked(self) -> frozenset[Key]:
        """The values that outlive the program."""
        return frozenset(use.value for use in self.outputs.values())


def frozen(**attrs: Attr) -> Mapping[str, Attr]:
    """Attributes of a `lower.*` node."""
    return MappingProxyType(attrs)
