"""Sums that are gathered where they are kept: contractions, scatters and sums of rows add into them at once.

In: a listing. Out: the same with `lower.sum` for each add and accumulate that takes such parts in. A part from
elsewhere (the head's share of a tied table) is not put off until the rest is there, for what it reads would live all
that time: it is computed where it stands, and into the accumulator there, if the sum has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

from ..ir.types import Dims, Node, TensorType, Use
from .listing import Key, Listing, frozen
from .readers import Readers, readers_of

KINDS: Mapping[str, str] = MappingProxyType({"dot": "dot", "scatter_add": "scatter", "sum": "rows"})


@dataclass(frozen=True, slots=True)
class _Part:
    """An addend: a value as it is, or the operands of the node that would make it."""

    kind: str
    over: Dims
    uses: tuple[Use, ...]
    maker: Node | None = None


@dataclass(slots=True)
class _Sums:
    found: Listing
    index: Mapping[str, Node] = field(init=False)
    readers: Readers = field(init=False)
    stretch: Mapping[str, int] = field(init=False)
    absorbed: set[str] = field(default_factory=set[str])
    made: dict[str, Node] = field(default_factory=dict[str, Node])
    accumulators: dict[Key, TensorType] = field(default_factory=dict[Key, TensorType])

    def __post_init__(self) -> None:
        self.index, self.readers = self.found.index(), readers_of(self.found)
        self.stretch = _stretches(self.found, self.readers.firsts)

    def gathered(self) -> Listing:
        """The listing with its sums."""
        for node in reversed(self.found.nodes):
            if node.id not in self.absorbed and node.op in ("add", "accumulate"):
                self._gather(node)
        nodes = tuple(self.made.get(n.id, n) for n in self.found.nodes if n.id not in self.absorbed)
        return replace(self.found, nodes=nodes, accumulators=self.accumulators)

    def _gather(self, root: Node) -> None:
        absorbed: set[str] = set()
        parts = [part for use in root.uses for part in self._parts(use, root, absorbed)]
        if root.op == "accumulate":
            self.absorbed |= absorbed
            self.accumulators[(root.id, 0)] = root.outs[0]
            early = [part for part in parts if part.maker is not None and self._far(part.maker, root)]
            if len(early) == len(parts):
                early = []
            for part in early:
                assert part.maker is not None, "only a made part stands elsewhere"
                self.absorbed.discard(part.maker.id)
                self.made[part.maker.id] = _summed(part.maker, [part], root)
            self.made[root.id] = _summed(root, [part for part in parts if part not in early], root)
        elif any(part.kind != "plain" for part in parts):
            self.absorbed |= absorbed
            self.made[root.id] = _summed(root, parts, None)

    def _parts(self, use: Use, root: Node, absorbed: set[str]) -> list[_Part]:
        """What a use adds to the sum. Nodes that are taken in go to `absorbed`."""
        node, dims = self._lone(use, root), set(root.outs[0].dims)
        if node is not None and node.op == "add" and set(node.outs[0].dims) == dims:
            absorbed.add(node.id)
            return [part for inner in node.uses for part in self._parts(inner, root, absorbed)]
        if node is None or set(use.dims) != dims or not _gathers(node):
            return [_Part("plain", (), (use,))]
        if root.op == "add" and (node.op == "sum" or self._far(node, root)):
            return [_Part("plain", (), (use,))]
        absorbed.add(node.id)
        over = cast(Dims, (node.attrs["dim"],) if node.op == "scatter_add" else node.attrs["over"])
        return [_Part(KINDS[node.op], over, node.uses, node)]

    def _lone(self, use: Use, root: Node) -> Node | None:
        """The producer, if only `root`'s sum reads it and it may run where `root` runs."""
        node = self.index.get(use.node)
        if node is None or not self.readers.alone(use.value) or use.dims != node.outs[0].dims:
            return None
        (*here, part), (*there, other) = (_run(self.found, self.readers.firsts[one.id]) for one in (node, root))
        same = here == there and (root.op == "accumulate" or part == other)
        return node if same and node.outs[0].dtype == root.outs[0].dtype else None

    def _far(self, node: Node, root: Node) -> bool:
        """Whether layers lie between the two, or other parts of a stage's work."""
        node, root = self.readers.firsts[node.id], self.readers.firsts[root.id]
        if self.found.part(node) != self.found.part(root):
            return True
        return node.layer is None and self.stretch[node.id] != self.stretch[root.id]


def gather_sums(found: Listing) -> Listing:
    """add and accumulate take in the contractions and scatters that feed nothing else."""
    return _Sums(found).gathered()


def _summed(node: Node, parts: Sequence[_Part], accumulator: Node | None) -> Node:
    """`node` as a sum of parts, into an accumulator's memory where there is one."""
    out = (accumulator or node).outs[0]
    uses = tuple(use for part in parts for use in part.uses)
    attrs = frozen(
        parts=tuple((part.kind, part.over) for part in parts), dims=out.dims, accumulates=accumulator is not None
    )
    if accumulator is None:
        return replace(node, op="lower.sum", uses=uses, attrs=attrs)
    total = Use(accumulator.id, 0, out.dims, out.dtype)
    return replace(node, op="lower.sum", uses=(*uses, total), outs=(), attrs=attrs)


def _run(found: Listing, node: Node) -> tuple[object, ...]:
    """What nodes that run together have in common."""
    return (node.phase, node.layer, found.part(node))


def _stretches(found: Listing, firsts: Mapping[str, Node]) -> dict[str, int]:
    """Numbers the runs of nodes of one phase, layer and part; what computes the same again stands in none."""
    numbers: dict[str, int] = {}
    number, before = 0, None
    for node in (node for node in found.nodes if firsts[node.id] is node):
        here = _run(found, node)
        number += here != before
        numbers[node.id], before = number, here
    return numbers


def _gathers(node: Node) -> bool:
    if node.op == "scatter_add":
        return not set(node.uses[1].dims) & set(node.outs[0].dims)
    if node.op not in ("dot", "sum") or not node.outs[0].dtype.is_float or not node.outs[0].dims:
        return False
    if node.op == "sum":
        return bool(node.attrs["over"])
    a, b = node.uses
    over = cast(Dims, node.attrs["over"])
    return not (set(a.dims) & set(b.dims)) - set(over) and bool(over)
