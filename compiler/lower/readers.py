"""Who reads a value, asked of all nodes that compute the same: what is made again rounds as it did the first time.

In: a listing. Out: `Readers`. How a kernel is chosen may hang on who else reads a value. Of what the backward makes
again each copy has fewer readers than the value would have if it were kept; so readers are counted over all copies, and
phase, layer and part are those of the first. Nodes compute the same if operator, arguments and operands are the same; a
value that went to the host and came back is the same value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ..ir.levels import MOVES, RECEIVE
from ..ir.types import Node
from .kernels import ARGUMENTS
from .listing import Key, Listing

_OWN = ARGUMENTS | {RECEIVE, "accumulate"}  # two of them are never the same


@dataclass(frozen=True, slots=True)
class Readers:
    """firsts: of each node the first that computes the same; values: of each value the first that is the same.

    users: who reads a value itself; operands: who reads it or one that is the same, by the first's id, and as which
    operand; asked: what outlives the program, in one of its copies
    """

    firsts: Mapping[str, Node]
    values: Mapping[Key, Key]
    users: Mapping[Key, Sequence[Node]]
    operands: Mapping[Key, AbstractSet[tuple[str, int]]]
    asked: AbstractSet[Key]

    def alone(self, value: Key) -> bool:
        """Whether one operand of one node reads a value, and nothing else would if all were kept."""
        first = self.values[value]
        return len(self.users.get(value, ())) == 1 and len(self.operands[first]) == 1 and first not in self.asked


def readers_of(found: Listing) -> Readers:
    """The readers of all values of a listing."""
    firsts: dict[str, Node] = {}
    values: dict[Key, Key] = {}
    known: dict[object, Node] = {}
    operands: dict[Key, set[tuple[str, int]]] = defaultdict(set)
    for node in found.nodes:
        read = [values[use.value] for use in node.uses]
        first = firsts[node.id] = known.setdefault(_expression(node, read), node)
        if node.op in MOVES:
            values[node.id, 0] = read[0]
            continue
        values.update(((node.id, at), (first.id, at)) for at in range(len(node.outs)))
        for at, value in enumerate(read):
            operands[value].add((first.id, at))
    return Readers(firsts, values, found.users(), operands, frozenset(values[value] for value in found.asked()))


def _expression(node: Node, read: Sequence[Key]) -> object:
    """What two nodes that compute the same have in common."""
    if node.op in _OWN or not node.outs:
        return node.id
    seen = tuple((value, use.dims, use.dtype) for value, use in zip(read, node.uses, strict=True))
    return (node.op, seen, node.outs, tuple(sorted(node.attrs.items())), node.body)
