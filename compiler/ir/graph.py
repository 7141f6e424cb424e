"""The graph: frozen nodes behind one networkx multigraph, always in a topological order.

A `GraphBuilder` takes nodes, each after what it reads, and gives a `Graph`, which never changes. A pass reads one graph
and builds another. Order is that of insertion, so that everything derived from a graph is deterministic.
This is the only module that knows networkx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import networkx as nx

from .types import Dim, Node, Use


@dataclass(frozen=True, slots=True)
class Edge:
    """One operand: `producer`'s output `use.output` is operand `operand` of `consumer`."""

    producer: str
    consumer: str
    operand: int
    use: Use


class Graph:
    """An immutable dataflow graph.

    name          the model's
    outputs       what the graph is asked for, by name (`logits`, `loss`, taps)
    bodies        the meaning of each kernel function that occurs, by key
    microbatches  how many times the forward and backward phases run in one step
    """

    def __init__(
        self,
        name: str,
        store: nx.MultiDiGraph[str],
        outputs: Mapping[str, Use],
        bodies: Mapping[str, Graph],
        microbatches: int,
    ) -> None:
        self.name = name
        self._store = store
        self.outputs: Mapping[str, Use] = MappingProxyType(dict(outputs))
        self.bodies: Mapping[str, Graph] = MappingProxyType(dict(bodies))
        self.microbatches = microbatches

    def __len__(self) -> int:
        return self._store.number_of_nodes()

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._store

    def __iter__(self) -> Iterator[Node]:
        """All nodes, each after what it reads."""
        return iter([data["node"] for _, data in self._store.nodes(data=True)])

    def __getitem__(self, node_id: str) -> Node:
        return cast(Node, self._store.nodes[node_id]["node"])

    def __eq__(self, other: object) -> bool:
        """Equal means: the same nodes in the same order, the same outputs and bodies."""
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            (self.name, self.microbatches) == (other.name, other.microbatches)
            and dict(self.outputs) == dict(other.outputs)
            and list(self) == list(other)
            and dict(self.bodies) == dict(other.bodies)
        )

    __hash__ = None  # type: ignore[assignment]

    def nodes(self, op: str | None = None, where: Callable[[Node], bool] | None = None) -> list[Node]:
        """The nodes of one operator, or those that a predicate picks, in order."""
        return [n for n in self if (op is None or n.op == op) and (where is None or where(n))]

    def users(self, node_id: str) -> list[Edge]:
        """Every edge that leaves the node, in the order of the consumers."""
        found = self._store.out_edges(node_id, data="edge")
        return [cast(Edge, edge) for _, _, edge in found]

    def ancestors(self, node_id: str) -> frozenset[str]:
        """Every node that this one depends on."""
        return frozenset(nx.ancestors(self._store, node_id))

    def descendants(self, node_id: str) -> frozenset[str]:
        """Every node that depends on this one."""
        return frozenset(nx.descendants(self._store, node_id))

    def dims(self) -> dict[str, Dim]:
        """Every dim that occurs, by name, in order of first appearance."""
        found: dict[str, Dim] = {}
        for node in self:
            for dims in [u.dims for u in node.uses] + [t.dims for t in node.outs]:
                for dim in dims:
                    found.setdefault(dim.name, dim)
        return found

    def is_acyclic(self) -> bool:
        """True of every graph that a builder made; the verifier asks all the same."""
        return bool(nx.is_directed_acyclic_graph(self._store))


class GraphBuilder:
    """Collects nodes in topological order; `finish` gives the graph."""

    def __init__(self, name: str, microbatches: int = 1) -> None:
        self.name = name
        self.microbatches = microbatches
        self._store: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        self._outputs: dict[str, Use] = {}
        self._bodies: dict[str, Graph] = {}
        self._suffix: dict[str, int] = {}

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._store

    def __getitem__(self, node_id: str) -> Node:
        return cast(Node, self._store.nodes[node_id]["node"])

    def __iter__(self) -> Iterator[Node]:
        return iter([data["node"] for _, data in self._store.nodes(data=True)])

    def fresh(self, wanted: str) -> str:
        """An id not taken yet: `wanted`, else `wanted.1`, `wanted.2`, …"""
        if wanted not in self._store:
            return wanted
        number = self._suffix.get(wanted, 0) + 1
        while f"{wanted}.{number}" in self._store:
            number += 1
        self._suffix[wanted] = number
        return f"{wanted}.{number}"

    def add(self, node: Node) -> Node:
        """Append a node whose operands are all here. Gives the node back."""
        assert node.id not in self._store, f"node {node.id} is here already"
        for use in node.uses:
            assert use.node in self._store, f"{node.id} reads {use.node}, which is not here yet"
        self._store.add_node(node.id, node=node)
        for operand, use in enumerate(node.uses):
            self._store.add_edge(use.node, node.id, edge=Edge(use.node, node.id, operand, use))
        return node

    def extend(self, nodes: Iterable[Node]) -> None:
        """Append many nodes in order."""
        for node in nodes:
            self.add(node)

    def output(self, name: str, use: Use) -> None:
        """Ask for a value under a name."""
        assert use.node in self._store, f"output {name} is {use.node}, which is not here"
        self._outputs[name] = use

    def body(self, key: str, graph: Graph) -> None:
        """Keep the meaning of a kernel function."""
        self._bodies[key] = graph

    def finish(self) -> Graph:
        """The graph; the builder must not be used after."""
        return Graph(self.name, self._store, self._outputs, self._bodies, self.microbatches)
