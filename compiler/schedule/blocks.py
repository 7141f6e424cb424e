"""A training step's graph as a chain of blocks with prices: what `place` cuts and `simulate` prices.

In: a step's graph, a machine, the link between stages. Out: a `Block` for each layer (`Node.layer`) and each instance
beside the layers: embeddings, head and loss. What belongs to neither follows what it reads, or goes before who reads
it; in the backward it follows the gradients that it reads. The weights' half of the backward is what no earlier
block's backward reads: the graph gives it for free. Kept is what the backward reads of the forward, counted where it
is read and whole, although kernels may share some of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..cost.cluster import Link
from ..cost.memory import GIVEN, LITERALS, STORED
from ..cost.roofline import VIEWS, Machine, node_time
from ..ir.graph import Graph
from ..ir.types import Node, Phase
from ..ops.shapes import elements
from .place import Block
from .simulate import Price

Value = tuple[str, int]
AGAIN = "again/"  # how the names of nodes begin that compute a forward value again in the backward
NO_VALUES = GIVEN | STORED | LITERALS  # what no device sends to another: each has it, or gets it with its data


@dataclass(frozen=True, slots=True)
class Hosted:
    """What lies on the host: the optimizer with what it updates; values, from forward to backward."""

    optimizer: bool = False
    values: frozenset[Value] = frozenset()


ON_DEVICE = Hosted()


def blocks_of(step: Graph, machine: Machine, link: Link, hosted: Hosted = ON_DEVICE) -> list[Block]:
    """The chain. Every dim must have a size."""
    chain = Chain(step)
    kept, moved = chain.kept(hosted.values), chain.hosted(hosted.values)
    held, static = chain.held(hosted.values), chain.static(only_hosted(step) if hosted.optimizer else frozenset())
    crossing, values = chain.crossing(), chain.crossing_values()
    seconds: defaultdict[tuple[int, str], float] = defaultdict(float)
    for node in step:
        if node.id in chain.block:
            half = "forward" if node.phase is Phase.FORWARD else "weight" if node.id in chain.weights else "input"
            seconds[chain.block[node.id], half] += node_time(node, machine).seconds
    return [
        Block(
            name, seconds[at, "forward"], seconds[at, "input"], seconds[at, "weight"],
            crossing[at] / link.bandwidth_bytes_per_s, link.latency_s * len(values[at]),
            static[at], kept[at], held[at], moved[at],
        )
        for at, name in enumerate(chain.names)
    ]  # fmt: skip


def chunk_prices(blocks: Sequence[Block], cuts: Iterable[tuple[int, int]]) -> list[Price]:
    """The price of each chunk: its blocks' sums, and the message of its last."""
    return [
        Price(
            sum(b.forward_s for b in part), sum(b.input_s for b in part), sum(b.weight_s for b in part),
            part[-1].transfer_s, part[-1].latency_s, sum(b.kept_bytes for b in part), sum(b.held_bytes for b in part),
        )
        for part in (blocks[begin:end] for begin, end in cuts)
    ]  # fmt: skip


def device_bytes(blocks: Sequence[Block], cuts: Sequence[tuple[int, int]], placement: Sequence[int]) -> list[int]:
    """What each device always has: the parameters, gradients and states of its chunks."""
    found = [0] * (max(placement) + 1)
    for device, (begin, end) in zip(placement, cuts, strict=True):
        found[device] += sum(block.static_bytes for block in blocks[begin:end])
    return found


@dataclass
class Chain:
    """Which block each forward and backward node belongs to, and what follows from it.

    names  of the blocks, in order; `block` the number of each node's; `weights` the nodes of the weights' half
    """

    step: Graph
    names: list[str] = field(init=False)
    block: dict[str, int] = field(init=False, default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)
        self.root: dict[Value, Value] = {}
        for node in self.step:
            for use in node.uses:
                self.readers[use.node].append(node)
            for index in range(len(node.outs)):
                view = node.op in VIEWS and node.uses
                self.root[node.id, index] = self.root[node.uses[0].value] if view else (node.id, index)
        self._names()
        self._forward()
        self._backward()
        self.weights = self._weights()

    def _names(self) -> None:
        """Blocks in the order in which the forward first comes to them."""
        found = dict.fromkeys(_owner(node) for node in self.step if node.phase is Phase.FORWARD)
        self.names = [name for name in found if name] or ["model"]
        self.number = {name: at for at, name in enumerate(self.names)}

    def _forward(self) -> None:
        """Its owner's block, but never before what it reads; without an owner, with what it reads, or who reads it."""
        late: list[Node] = []
        for node in self.step:
            if node.phase is Phase.FORWARD:
                read = [self.block[use.node] for use in node.uses if use.node in self.block]
                own = self.number.get(_owner(node), -1)
                if own < 0 and not read:
                    late.append(node)
                else:
                    self.block[node.id] = max(own, *read, own)
        for node in reversed(late):
            users = [self.block[user.id] for user in self.readers[node.id] if user.id in self.block]
            self.block[node.id] = min(users, default=0)

    def _backward(self) -> None:
        """Its owner's block, but never after what it reads of the backward; the loss's gradient is the last's.

        A sum of gradients alone is made where the last of them is: one tensor is sent on, not its terms. What is
        computed again is no gradient: it stays where it was computed first.
        """
        for node in self.step:
            first = original(node, self.step)
            if first is not None:
                self.block[node.id] = self.block[first.id]
            elif node.phase is Phase.BACKWARD:
                read = [self.block[use.node] for use in node.uses if self._is_gradient(self.step[use.node])]
                last = len(self.names) - 1
                summed = node.op == "add" and len(read) == len(node.uses)
                self.block[node.id] = min(last if summed else self.number.get(_owner(node), last), *read, last)

    def _is_gradient(self, node: Node) -> bool:
        return node.phase is Phase.BACKWARD and original(node, self.step) is None

    def _weights(self) -> frozenset[str]:
        """Backward nodes that no earlier block's backward reads, however far on."""
        needed: set[str] = set()
        sums: set[str] = set()  # of parameters' gradients, which are added up wherever they come from
        for node in reversed(list(self.step)):
            if node.phase is Phase.BACKWARD:
                users = [user for user in self.readers[node.id] if user.phase is Phase.BACKWARD]
                if node.op in ("accumulate", "add") and all(user.id in sums for user in users):
                    sums.add(node.id)
                at = self.block[node.id]
                if any((self.block[u.id] < at and u.id not in sums) or u.id in needed for u in users):
                    needed.add(node.id)
        return frozenset(node for node in self.block if self.step[node].phase is Phase.BACKWARD) - needed

    def _bytes(self, values: Iterable[Value]) -> int:
        outs = (self.step[name].outs[index] for name, index in values)
        return sum(elements(out.dims) * out.dtype.itemsize_bytes for out in outs)

    def _read(self, wanted: Phase, readers: Iterable[Node]) -> list[set[Value]]:
        """For each block, what these readers of it read of a phase's values."""
        found: list[set[Value]] = [set() for _ in self.names]
        for node in readers:
            roots = (self.root[use.value] for use in node.uses)
            here = (root for root in roots if self.step[root[0]].phase is wanted and self._is_sent(root))
            found[self.block[node.id]].update(here)
        return found

    def _is_sent(self, root: Value) -> bool:
        return self.step[root[0]].op not in NO_VALUES

    def kept(self, hosted: frozenset[Value] = frozenset()) -> list[int]:
        """The bytes that each block's backward reads of the forward, without those that lie on the host."""
        return [self._bytes(values - hosted) for values in self.kept_values()]

    def hosted(self, hosted: frozenset[Value]) -> list[int]:
        """The bytes that each block's backward reads of what lies on the host."""
        return [self._bytes(values & hosted) for values in self.kept_values()]

    def held(self, hosted: frozenset[Value] = frozenset()) -> list[int]:
        """The bytes that the weights' half reads of the forward and of the input's half, and that are there by then."""
        read = {u.value for node in self.block if self._from_input(node) for u in self.step[node].uses}
        return [self._bytes(values - (hosted - read)) for values in self.held_values()]

    def crossing(self) -> list[int]:
        """For each block, the bytes that go over its end."""
        return [self._bytes(values) for values in self.crossing_values()]

    def kept_values(self) -> list[set[Value]]:
        """What each block's backward reads of the forward."""
        return self._read(Phase.FORWARD, (node for node in self.step if node.phase is Phase.BACKWARD))

    def held_values(self) -> list[set[Value]]:
        """What the weights' half reads of the forward and of the input's half."""
        late = [self.step[name] for name in self.block if name in self.weights]
        own = self._read(Phase.FORWARD, late)
        gradients: list[set[Value]] = [set() for _ in self.names]
        for node in late:
            roots = (self.root[use.value] for use in node.uses)
            gradients[self.block[node.id]].update(r for r in roots if r[0] in self.block and self._from_input(r[0]))
        return [one | other for one, other in zip(own, gradients, strict=True)]

    def _from_input(self, name: str) -> bool:
        return self.step[name].phase is Phase.BACKWARD and name not in self.weights

    def crossing_values(self) -> list[set[Value]]:
        """For each block, what is read behind it and made in it or before, from the data."""
        varies = self._varies()
        found: list[set[Value]] = [set() for _ in self.names]
        for node in self.step:
            if node.phase is Phase.FORWARD:
                for root in (self.root[use.value] for use in node.uses):
                    if root[0] in varies and self._is_sent(root):
                        for at in range(self.block[root[0]], self.block[node.id]):
                            found[at].add(root)
        return found

    def _varies(self) -> frozenset[str]:
        """Forward nodes that depend on the data: what depends on positions alone, each device makes itself."""
        found: set[str] = set()
        for node in self.step:
            if node.op == "input" or (node.phase is Phase.FORWARD and any(use.node in found for use in node.uses)):
                found.add(node.id)
        return frozenset(found)

    def static(self, hosted: frozenset[str] = frozenset()) -> list[int]:
        """Parameters, what is made of them once a step, their states and accumulators; tied ones at every reader.
        `hosted`: those that lie on the host."""
        homes: dict[str, set[int]] = {}
        found = [0] * len(self.names)
        for node in reversed(list(self.step)):
            if node.phase is Phase.PREPARE and node.op != "state":
                homes[node.id] = self._homes(node, homes)
        for node in self.step:
            size = self._bytes((node.id, index) for index in range(len(node.outs)))
            lasting = node.phase is Phase.PREPARE and node.op not in GIVEN | LITERALS | VIEWS and node.id not in hosted
            at = homes.get(_of(node), set[int]()) if lasting else set[int]()
            if node.op == "accumulate" and node.id in self.block:
                at = {self.block[node.id]}
            for one in at:
                found[one] += size
        return found

    def _homes(self, node: Node, homes: Mapping[str, set[int]]) -> set[int]:
        """The blocks that read a node of the prepare phase, through others of that phase."""
        direct = {self.block[user.id] for user in self.readers[node.id] if user.id in self.block}
        return direct.union(*(homes.get(user.id, set[int]()) for user in self.readers[node.id]))


def of_optimizer(step: Graph) -> frozenset[str]:
    """The states of parameters, and these."""
    states = {node.id: str(node.attrs["of"]) for node in step.nodes("state") if node.attrs["of"]}
    return frozenset(states) | frozenset(states.values())


def only_hosted(step: Graph) -> frozenset[str]:
    """Of these those that no microbatch reads, or of which it reads what is made narrower once a step alone."""
    once = {node.id for node in step if node.phase in (Phase.PREPARE, Phase.UPDATE)}
    return of_optimizer(step) - {use.node for node in step if node.id not in once for use in node.uses}


def _owner(node: Node) -> str:
    """The layer, or else the outermost instance, that a node is part of; empty where it is part of the model itself."""
    return f"{node.layer.chain}.{node.layer.index}" if node.layer is not None else node.path.partition(".")[0]


def original(node: Node, step: Graph) -> Node | None:
    """The forward node that a node of the backward computes again."""
    name = node.id.removeprefix(AGAIN)
    if node.phase is not Phase.BACKWARD or name == node.id or name not in step:
        return None
    return step[name] if step[name].phase is Phase.FORWARD else None


def _of(node: Node) -> str:
    """The parameter that a state belongs to; else the node itself."""
    return str(node.attrs.get("of", node.id.partition("/")[2])) if node.op == "state" else node.id
