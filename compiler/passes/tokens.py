"""Which axes of which values stand for the tokens of a row, whatever they are called there.

In: a graph and the name of the tokens' axis of its inputs. Out: the places of such axes in each value, followed along
the edges: `k[T -> S]` has the tokens under another name. `index` counts tokens where its dim is one that tokens have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.types import Dim, Dims, Node, Use

Value = tuple[str, int]


@dataclass
class Places:
    """places: of the tokens' axes of each value. dims: what such axes are called somewhere."""

    graph: Graph
    places: dict[Value, frozenset[int]] = field(default_factory=dict[Value, frozenset[int]])
    dims: set[Dim] = field(default_factory=set[Dim])

    def of(self, use: Use) -> Dims:
        """The tokens' axes of an operand, in the reader's labels."""
        return tuple(use.dims[at] for at in sorted(self.places.get(use.value, ())))

    def labels(self, node: Node) -> Dims:
        """The axes of a node that are tokens, each once; of an `index`, its dim."""
        if node.op == "index":
            dim = node.attrs["dim"]
            return (dim,) if isinstance(dim, Dim) and dim in self.dims else ()
        return tuple(dict.fromkeys(dim for use in node.uses for dim in self.of(use)))


def token_places(graph: Graph, name: str) -> Places:
    """Follows the tokens from the inputs whose axis has that name, until nothing new is found."""
    found = Places(graph)
    before = -1
    while before != len(found.dims):
        before = len(found.dims)
        for node in graph:
            _follow(found, node, name)
    return found


def _follow(found: Places, node: Node, name: str) -> None:
    if node.op == "input":
        tokens = {dim for dim in node.outs[0].dims if dim.name == name}
    else:
        tokens = set(found.labels(node))
        out = node.attrs.get("out")
        if node.op == "window" and node.attrs["dim"] in tokens and isinstance(out, Dim):
            tokens.add(out)
        if node.op == "scan" and node.attrs["dim"] in tokens:
            tokens.add(next(d for d in tokens if d == node.attrs["dim"]))
    found.dims |= tokens
    for index, out in enumerate(node.outs):
        found.places[node.id, index] = frozenset(at for at, dim in enumerate(out.dims) if dim in tokens)
