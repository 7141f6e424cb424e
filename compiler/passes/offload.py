"""offload: the optimizer's state, what it updates and the update itself on the device's host.

In: what one device runs: a step's graph, or another program over the same parameters, with the names of what lies on
the host. Out: the same with `host` nodes, and `offload` and `fetch` where a value goes from one side to the other.

    gradient -> offload -> update on the host -> parameter, on the host -> (cast there) -> fetch -> forward, backward

A step of one microbatch sends each gradient down as soon as it is there, before it is widened, and its square for the
norm of all is taken then; of several, sums stay on the device until they are whole. Parameters come up in the order in
which they are read. A parameter whose update collectives carry (a shard that all gather again) stays on the device: its
own part goes down, and comes up new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOCAL, LOSS, MODEL, RELAYOUTS, STEP, Level
from ..ir.types import Node, Phase, Use
from ..ops.definition import Role
from ..ops.registry import REGISTRY

NUMBERS = frozenset({"constant", "extent"})  # written into whatever reads them


def hosted(steps: Iterable[Graph]) -> frozenset[str]:
    """The optimizer's states of some steps, and the parameters that they are of, as far as they may lie on the host."""
    graphs = list(steps)
    states = {node.id: str(node.attrs["of"]) for graph in graphs for node in graph.nodes("state") if node.attrs["of"]}
    return settled(graphs, frozenset((*states, *states.values())))


def settled(steps: Sequence[Graph], names: frozenset[str]) -> frozenset[str]:
    """Of these parameters and states those that may lie on the host while some steps run.

    One whose new value is not made there, or whose old one a collective reads in the update, stays on the device.
    """
    while True:
        kept = frozenset(name for name in names if all(_is_written_there(graph, name, names) for graph in steps))
        if kept == names:
            return names
        names = kept


def _is_written_there(graph: Graph, name: str, names: frozenset[str]) -> bool:
    if name not in graph:
        return True
    there = _computed_there(graph, names)
    for edge in graph.users(name):
        reader = graph[edge.consumer]
        if reader.phase is Phase.UPDATE and not _is_computed(reader):
            return False
    writes = [node for node in graph.nodes("assign") if node.attrs["target"] == name]
    return all(write.id in there and write.phase is Phase.UPDATE for write in writes)


def _computed_there(graph: Graph, names: Collection[str]) -> frozenset[str]:
    """What of the update is computed from what lies on the host, between collectives."""
    found: set[str] = set()
    for node in graph.nodes(where=lambda node: node.phase is Phase.UPDATE and _is_computed(node)):
        if any(use.node in found or use.node in names for use in node.uses):
            found.add(node.id)
    return frozenset(found)


@dataclass(frozen=True)
class Offload:
    """names: the parameters and states that lie on the host (see `hosted`).
    early: whether gradients of a lone microbatch go down while the backward runs."""

    names: frozenset[str] = frozenset()
    early: bool = True

    name: ClassVar[str] = "offload"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS, STEP, LOCAL)
    gives: ClassVar[Level | None] = LOCAL
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        return _Moving(graph, self.names, self.early and graph.microbatches == 1).rewrite()


@dataclass
class _Moving:
    """Rebuilds the graph; a value is moved where its first reader on the other side stands."""

    graph: Graph
    names: frozenset[str]
    early: bool
    readers: dict[str, list[Node]] = field(init=False, default_factory=dict[str, list[Node]])
    moves: dict[tuple[str, int, bool], Use] = field(init=False, default_factory=dict[tuple[str, int, bool], Use])
    instead: dict[str, Use] = field(init=False, default_factory=dict[str, Use])

    def __post_init__(self) -> None:
        for node in self.graph:
            for name in dict.fromkeys(use.node for use in node.uses):
                self.readers.setdefault(name, []).append(node)
        self.asked = {use.node for use in self.graph.outputs.values()}
        self.host = {name for name in self.names if name in self.graph} | _computed_there(self.graph, self.names)
        self._sink()
        self.host |= {node.id for node in self.graph if self._casts(node)}
        self.sums = {node.id for node in self.graph.nodes("accumulate") if self.early and self._goes_down(node)}

    def rewrite(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        for node in self.graph:
            if node.id in self.sums:
                self._send(node)
            else:
                host = node.id in self.host
                uses = tuple(self._use(use, node, host) for use in node.uses)
                self.builder.add(replace(node, uses=uses, host=host))
        return self.builder.finish(self.graph.outputs, self.graph.bodies)

    # ---- what runs there

    def _sink(self) -> None:
        """What only the host reads is computed there too, if that lets no more values go down."""
        for node in reversed(list(self.graph)):
            read = self.readers.get(node.id, [])
            if node.phase is not Phase.UPDATE or node.id in self.host or node.id in self.asked or not node.outs:
                continue
            if node.op in NUMBERS or not read or any(one.id not in self.host for one in read):
                continue
            elementwise = _is_computed(node) and REGISTRY[node.op].kernel is None and _is_mapped(node)
            moved = {
                use.node for use in node.uses if use.node not in self.host and self.graph[use.node].op not in NUMBERS
            }
            large = sum(bool(self.graph[name].outs[0].dims) for name in moved)
            if elementwise and (large == 1 if node.outs[0].dims else len(moved) <= 1):
                self.host.add(node.id)

    def _casts(self, node: Node) -> bool:
        """What makes a parameter narrower before it comes up."""
        if node.op != "cast" or node.phase is not Phase.PREPARE or node.uses[0].node not in self.names:
            return False
        return node.outs[0].dtype.itemsize_bytes < node.uses[0].dtype.itemsize_bytes

    def _goes_down(self, total: Node) -> bool:
        """A gradient that the update on the host reads, and beside it nothing but the norm."""
        read = self.readers.get(total.id, [])
        if total.phase is not Phase.BACKWARD or total.id in self.asked or not total.outs[0].dims:
            return False
        return any(n.id in self.host for n in read) and all(n.id in self.host or _is_square(n) for n in read)

    # ---- moves

    def _send(self, total: Node) -> None:
        """A gradient goes down where it is made, as narrow as it was; its square stays."""
        use = total.uses[0]
        for square in (node for node in self.readers[total.id] if node.id not in self.host):
            uses = tuple(replace(use, dims=one.dims) for one in square.uses)
            name = self.builder.fresh(f"{total.id}.{square.id}")
            inner = replace(total, id=name, op=square.op, uses=uses, outs=square.outs, attrs=square.attrs, body=None)
            self.builder.add(inner)
            summed = Use(inner.id, 0, (), inner.outs[0].dtype)
            again = replace(total, id=self.builder.fresh(f"sum/{square.id}"), uses=(summed,), outs=inner.outs)
            self.instead[square.id] = self.builder.add(again).out()
        made = self.graph[use.node]
        narrow = made.op == "cast" and made.outs[0].dtype.itemsize_bytes > made.uses[0].dtype.itemsize_bytes
        sent = made.uses[0].relabel(dict(zip(made.outs[0].dims, use.dims, strict=True))) if narrow else use
        moved = self._moved(sent, total, host=True)
        kept = replace(total, uses=(moved,), outs=(moved.type,), host=True)
        if narrow:
            kept = self.builder.add(replace(kept, id=self.builder.fresh(f"{total.id}.narrow")))
            wide = replace(total, op="cast", uses=(kept.out(),), attrs=made.attrs, phase=Phase.UPDATE, host=True)
            self.builder.add(wide)
        else:
            self.builder.add(kept)

    def _use(self, use: Use, reader: Node, host: bool) -> Use:
        """The same value on the reader's side."""
        if use.node in self.instead:
            use = replace(self.instead[use.node], dims=use.dims)
        source = self.builder[use.node]
        if source.host is host or source.op in NUMBERS or reader.op in NUMBERS:
            return use
        return replace(self._moved(use, reader, host), dims=use.dims)

    def _moved(self, use: Use, reader: Node, host: bool) -> Use:
        key = (use.node, use.output, host)
        if key not in self.moves:
            source = self.builder[use.node]
            phase = source.phase if source.phase is Phase.PREPARE else reader.phase
            op = "offload" if host else "fetch"
            self.moves[key] = self.builder.add(
                Node(
                    self.builder.fresh(f"{op}/{use.node}"),
                    op,
                    (source.out(use.output),),
                    (source.outs[use.output],),
                    phase=phase,
                    path=source.path,
                    layer=source.layer,
                    origin=source.origin,
                    host=host,
                )
            ).out()
        return replace(self.moves[key], dims=use.dims)


def _is_square(node: Node) -> bool:
    """Σ g · g over all of it"""
    return (
        node.phase is Phase.UPDATE
        and node.op == "dot"
        and not node.outs[0].dims
        and len({u.value for u in node.uses}) == 1
    )


def _is_mapped(node: Node) -> bool:
    return all(role is Role.MAP for role in REGISTRY[node.op].roles(node).values())


def _is_computed(node: Node) -> bool:
    """Whether a host could do it: no message between devices."""
    return node.op in REGISTRY and node.op not in RELAYOUTS
