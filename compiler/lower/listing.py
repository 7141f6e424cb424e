"""A graph as the list of nodes that is to be emitted: what `fuse.py` and `updates.py` rewrite and `segment.py` cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..ir.layout import PIPE
from ..ir.levels import RECEIVE, SEND
from ..ir.types import Attr, Node, Phase, TensorType, Use

Key = tuple[str, int]
NO_PART = -1
COPY = "lower.copy"  # of a value, into memory of its own
PHASES = (Phase.PREPARE, Phase.FORWARD, Phase.BACKWARD, Phase.UPDATE)


@dataclass(frozen=True, slots=True)
class Listing:
    """Nodes in the order in which they run, and what is asked for.

    accumulators   values that live in a buffer of their own, to which every microbatch adds
    checks         scalars, the loss first, that must be finite before anything is updated
    parts          of a stage of a pipeline, which part of a microbatch's work a node is in; they run in order
    ranks          the orders in which microbatches go through the parts, where there are several: each part's place
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Use]
    microbatches: int
    accumulators: Mapping[Key, TensorType] = field(default_factory=dict[Key, TensorType])
    checks: tuple[Key, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    ranks: tuple[tuple[int, ...], ...] = ()

    def part(self, node: Node) -> int:
        """The part of a node; -1 of one that is in none."""
        return self.parts.get(node.id, NO_PART)

    def always_before(self, part: int, other: int) -> bool:
        """Whether every microbatch goes through a part before another."""
        return all(rank[part] < rank[other] for rank in self.ranks)

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


def of_stages(node: Node) -> bool:
    """Whether stages of a pipeline, whose graphs differ, begin this together: then in the order in which they stand."""
    return node.attrs.get("axis") == PIPE and node.op not in (SEND, RECEIVE)


def frozen(**attrs: Attr) -> Mapping[str, Attr]:
    """Attributes of a `lower.*` node."""
    return MappingProxyType(attrs)


def targets(node: Node) -> tuple[Key, ...]:
    """What a node writes over: the target of an assignment; parameters and both moments of a fused update."""
    if node.op == "lower.assign":
        return (node.uses[0].value,)
    if node.op == "lower.adamw":
        tail = 2 + bool(node.attrs["scaled"]) + bool(node.attrs["guarded"])
        return tuple(use.value for at, use in enumerate(node.uses[:-tail]) if at % 4 != 1)
    return ()
