"""The graph: frozen nodes behind one networkx multigraph, always in a topological order.

A `GraphBuilder` takes nodes, each after what it reads, and gives a `Graph`, which never changes. A pass reads one graph
and builds another. Order is that of insertion, so that everything derived from a graph is deterministic.
This is the only module that knows networkx; it is loaded when a graph's edges are first asked for, because its import
alone takes a fifth of the time that checking a spec may take.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Never, cast

from .types import Dim, Dims, Node, Use

if TYPE_CHECKING:
    import networkx as nx


NOTHING: Mapping[str, Never] = MappingProxyType({})
DUMP = "dump/"  # what is in front of the name of an output that is kept for looking at


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
        nodes: Mapping[str, Node],
        outputs: Mapping[str, Use],
        bodies: Mapping[str, Graph],
        microbatches: int,
    ) -> None:
        self.name = name
        self._nodes = nodes
        self.outputs: Mapping[str, Use] = MappingProxyType(dict(outputs))
        self.bodies: Mapping[str, Graph] = MappingProxyType(dict(bodies))
        self.microbatches = microbatches

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __iter__(self) -> Iterator[Node]:
        """All nodes, each after what it reads."""
        return iter(self._nodes.values())

    def __getitem__(self, node_id: str) -> Node:
        return self._nodes[node_id]

    @cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The networkx graph: node ids with their `node`, an `edge` for every operand. Not to be changed."""
        import networkx as nx  # late: see above

        found: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for node in self:
            found.add_node(node.id, node=node)
            for operand, use in enumerate(node.uses):
                found.add_edge(use.node, node.id, edge=Edge(use.node, node.id, operand, use))
        return found

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
        found = self.network.out_edges(node_id, data="edge")
        return [cast(Edge, edge) for _, _, edge in found]

    def ancestors(self, node_id: str) -> frozenset[str]:
        """Every node that this one depends on."""
        import networkx as nx  # late: see above

        return frozenset(nx.ancestors(self.network, node_id))

    def descendants(self, node_id: str) -> frozenset[str]:
        """Every node that depends on this one."""
        import networkx as nx  # late: see above

        return frozenset(nx.descendants(self.network, node_id))

    def dims(self) -> Mapping[str, Dim]:
        """Every dim that occurs, by name, in order of first appearance."""
        return self._dims

    @cached_property
    def _dims(self) -> Mapping[str, Dim]:
        found: dict[str, Dim] = {}
        every: dict[Dims, None] = {}  # few are told apart
        for node in self:
            for use in node.uses:
                every[use.dims] = None
            for out in node.outs:
                every[out.dims] = None
        for dims in every:
            for dim in dims:
                found.setdefault(dim.name, dim)
        return MappingProxyType(found)

    def is_acyclic(self) -> bool:
        """True of every graph that a builder made; the verifier asks all the same."""
        import networkx as nx  # late: see above

        return bool(nx.is_directed_acyclic_graph(self.network))


class GraphBuilder:
    """Collects nodes in topological order; `finish` gives the graph."""

    def __init__(self, name: str, microbatches: int = 1, coming: Container[str] = ()) -> None:
        """coming: ids that are taken before their nodes are here."""
        self.name = name
        self.microbatches = microbatches
        self._coming = coming
        self._nodes: dict[str, Node] = {}
        self._outputs: dict[str, Use] = {}
        self._bodies: dict[str, Graph] = {}
        self._suffix: dict[str, int] = {}

    @classmethod
    def rewriting(cls, graph: Graph) -> GraphBuilder:
        """For what is made of a graph: `fresh` gives no id of its nodes, as any may still be kept."""
        return cls(graph.name, graph.microbatches, graph)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __getitem__(self, node_id: str) -> Node:
        return self._nodes[node_id]

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def _taken(self, node_id: str) -> bool:
        return node_id in self._nodes or node_id in self._coming

    def fresh(self, wanted: str) -> str:
        """An id not taken yet: `wanted`, else `wanted.1`, `wanted.2`, …"""
        if not self._taken(wanted):
            return wanted
        number = self._suffix.get(wanted, 0) + 1
        while self._taken(f"{wanted}.{number}"):
            number += 1
        self._suffix[wanted] = number
        return f"{wanted}.{number}"

    def add(self, node: Node) -> Node:
        """Append a node whose operands are all here. Gives the node back."""
        assert node.id not in self._nodes, f"node {node.id} is here already"
        for use in node.uses:
            assert use.node in self._nodes, f"{node.id} reads {use.node}, which is not here yet"
        self._nodes[node.id] = node
        return node

    def extend(self, nodes: Iterable[Node]) -> None:
        """Append many nodes in order."""
        for node in nodes:
            self.add(node)

    def output(self, name: str, use: Use) -> None:
        """Ask for a value under a name."""
        assert use.node in self._nodes, f"output {name} is {use.node}, which is not here"
        self._outputs[name] = use

    def body(self, key: str, graph: Graph) -> None:
        """Keep the meaning of a kernel function."""
        self._bodies[key] = graph

    def finish(self, outputs: Mapping[str, Use] = NOTHING, bodies: Mapping[str, Graph] = NOTHING) -> Graph:
        """The graph, with these outputs and bodies beside those that it has; the builder must not be used after."""
        for name, use in outputs.items():
            self.output(name, use)
        return Graph(self.name, self._nodes, self._outputs, {**self._bodies, **bodies}, self.microbatches)
