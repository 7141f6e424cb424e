"""What each block of a step takes on one device: what the price of any plan is added up from.

In: a device's graph of a step with few layers (laid out on the axes that cut tensors, not on `data` or `pipe`), the
mesh and the cluster. Out: a `Part` for each block: seconds of a microbatch's forward and of the backward's halves with
the messages in them, bytes kept, passed on and needed for a moment, and what its parameters hold and send, so that any
size of `data` and any stage of ZeRO is priced from it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..cost.memory import GIVEN, LITERALS
from ..cost.roofline import FREE, VIEWS, bounds_s, node_time
from ..ir.graph import Graph
from ..ir.types import Node, Phase, TensorType
from ..ops.collectives import COLLECTIVES
from ..ops.shapes import elements
from ..partition.price import Prices
from ..schedule.blocks import AGAIN, Chain
from .courses import NO_HALVES, Halves, courses, gradients, halves, packs

COMPUTED = frozenset({Phase.FORWARD, Phase.BACKWARD})
Timed = Mapping[str, float]  # seconds of a run of each node
SCALARS = "common"  # the home of what belongs to no block: the gradients' norm, the learning rate


@dataclass(frozen=True, slots=True)
class Weights:
    """What a block's parameters are on one device of a mesh without `data`, by how ZeRO cuts it (bytes).

    master     parameters that are cast before they are computed with: cut from stage 1 on
    computed   parameters as forward and backward read them: cut at stage 3; `behind`: those that the backward reads
    states     of the optimizer: cut from stage 1 on
    gradients  summed over the microbatches, one by one: cut from stage 2 on
    read       the computed ones of them that are trained, one by one
    launch_s, update_s  of the update: the kernels' launches, and what shrinks where it is cut
    """

    master: int = 0
    computed: int = 0
    behind: int = 0
    states: int = 0
    gradients: tuple[int, ...] = ()
    read: tuple[int, ...] = ()
    launch_s: float = 0.0
    update_s: float = 0.0

    @property
    def gradient_bytes(self) -> int:
        """Of all gradients."""
        return sum(self.gradients)


@dataclass(frozen=True, slots=True)
class Part:
    """One block, for one microbatch on one device.

    momentary  bytes while it runs, beyond what lasts and is kept
    making     the same, where the gradients that it has made so far are no part of what lasts
    waiting    of gradients that a block behind it has made and one before it adds to: a table's that both read
    own        of its weights those that no block before it has too: what two blocks read, one device has once
    messages   how many values are what is passed on
    tied       gradients of weights that a block before it has too: which one is the first, and bytes
    alive      node by node, what `momentary` is the most of; `made`: the gradients that are there by then
    first      as `momentary`, of forward and input's half where the backward is in halves; `late`: of the weights' half
               beyond `held`; `late_making`: as `making`
    halves     node by node, what those are the most of
    """

    name: str
    forward_s: float
    input_s: float
    weight_s: float
    kept: int
    held: int
    crossing: int
    momentary: int
    making: int
    waiting: int
    weights: Weights
    own: Weights
    messages: int = 0
    tied: tuple[tuple[str, int], ...] = ()
    alive: tuple[int, ...] = ()
    made: tuple[int, ...] = ()
    first: int = 0
    late: int = 0
    late_making: int = 0
    halves: Halves = NO_HALVES

    @property
    def seconds(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.input_s + self.weight_s


@dataclass(frozen=True, slots=True)
class Parts:
    """parts: of the whole model, in order; alike layers are one object. common_s: once a step on every device.
    updating: bytes that the update needs for a moment; preparing: what goes before several microbatches. core_s: of a
    microbatch, without what is computed again."""

    parts: tuple[Part, ...]
    common_s: float
    updating: int
    core_s: float
    preparing: int = 0


class Term(NamedTuple):
    """A node of forward or backward, or a message; a named tuple, because a search makes a hundred thousand of them.

    half                     of which part: 0 forward, 1 input, 2 weight
    arithmetic_s, traffic_s  what bounds a node, each alone; a message has its bytes and no seconds
    kernels_s                what its kernels were foretold to take, where they were timed
    """

    part: int
    half: int
    again: bool
    arithmetic_s: float = 0.0
    traffic_s: float = 0.0
    free: bool = False
    message: tuple[str, str] | None = None
    bytes_: float = 0.0
    kernels_s: float | None = None

    def seconds(self, prices: Prices) -> float:
        """What it takes."""
        if self.message is not None:
            return prices.collective_s(*self.message, self.bytes_)
        if self.kernels_s is not None:
            return self.kernels_s
        return 0.0 if self.free else max(self.arithmetic_s, self.traffic_s) + prices.cluster.machine.launch_s

    def towards(self, other: Term, share: float) -> Term:
        """On the line from this through another one, so far on: all of it is linear in the rows."""
        arithmetic = _on_line(self.arithmetic_s, other.arithmetic_s, share)
        traffic, bytes_ = _on_line(self.traffic_s, other.traffic_s, share), _on_line(self.bytes_, other.bytes_, share)
        kernels = None if self.kernels_s is None else _on_line(self.kernels_s, other.kernels_s or 0.0, share)
        return Term(self.part, self.half, self.again, arithmetic, traffic, self.free, self.message, bytes_, kernels)


@dataclass(frozen=True)
class Rough:
    """One device's graph, read: its terms, and its parts without seconds."""

    terms: tuple[Term, ...]
    parts: tuple[Part, ...]
    common_s: float
    updating: int
    preparing: int = 0

    def alike(self, other: Rough) -> bool:
        """Whether both are of graphs that differ in sizes alone."""
        mine, theirs = ([(t.part, t.half, t.again, t.message) for t in one.terms] for one in (self, other))
        return mine == theirs and [p.name for p in self.parts] == [p.name for p in other.parts]

    def towards(self, other: Rough, share: float) -> Rough:
        """On the line through another one of more rows."""
        terms = tuple(a.towards(b, share) for a, b in zip(self.terms, other.terms, strict=True))
        parts = tuple(_between(a, b, share) for a, b in zip(self.parts, other.parts, strict=True))
        return replace(self, terms=terms, parts=parts, updating=max(self.updating, other.updating))

    def least_s(self, prices: Prices, names: Sequence[str], devices: int) -> float:
        """No layout of one device's graph on so many takes less for a microbatch: all of it cut evenly, no messages."""
        often, launch = Counter(names), prices.cluster.machine.launch_s
        return sum(
            often[self.parts[term.part].name] * (max(term.arithmetic_s, term.traffic_s) / devices + launch)
            for term in self.terms
            if not term.free and term.message is None
        )

    def parts_with(self, prices: Prices, names: Sequence[str]) -> Parts:
        """The parts of the whole model; `names`: of its blocks, each that of the one that stands for it."""
        often, core = Counter(names), 0.0
        seconds = [[0.0, 0.0, 0.0] for _ in self.parts]
        for term in self.terms:
            here = term.seconds(prices)
            seconds[term.part][term.half] += here
            core += 0.0 if term.again else here * often[self.parts[term.part].name]
        parts = [
            replace(part, forward_s=one[0], input_s=one[1], weight_s=one[2])
            for part, one in zip(self.parts, seconds, strict=True)
        ]
        by_name = {part.name: part for part in parts}
        return Parts(tuple(by_name[name] for name in names), self.common_s, self.updating, core, self.preparing)


def rough(local: Graph, prices: Prices, timed: Timed | None = None) -> Rough:
    """Reads the graph of one device. timed: seconds of a run of each node, where kernels were timed."""
    chain = Chain(local)
    terms = tuple(_term(node, chain, prices, timed) for node in local if node.id in chain.block)
    kept, held, crossing = chain.kept(), chain.held(), chain.crossing()
    messages = [len(values) for values in chain.crossing_values()]
    homes = homes_of(local, chain)
    seconds = {n.id: seconds_of(n, prices, timed) for n in local if n.phase not in COMPUTED}
    weights = _weights(local, chain, homes, prices, seconds)
    firsts = {name: (min(blocks, key=lambda b: chain.number.get(b, -1)),) for name, blocks in homes.items()}
    once = _weights(local, chain, firsts, prices, seconds)
    owned = [once[name] for name in chain.names]
    born, waiting = gradients(local, chain)
    lasting = sum(w.master + w.computed + w.states + w.gradient_bytes for w in owned)
    reached, updating = courses(local, chain, kept, lasting, born, prices.cluster)
    apart = halves(local, chain, kept, held, crossing, lasting, born)
    tied = _tied(local, chain, homes)
    parts = (
        Part(
            name, 0.0, 0.0, 0.0, kept[at], held[at], crossing[at], 0, 0, waiting[at], weights[name], once[name],
            messages[at], tuple(tied[name]),
        )
        for at, name in enumerate(chain.names)
    )  # fmt: skip
    common = sum(seconds[n.id] for n in local if n.phase not in COMPUTED and homes[n.id] == (SCALARS,))
    reaching = tuple(_reaching(part, *course, half) for part, course, half in zip(parts, reached, apart, strict=True))
    return Rough(terms, reaching, common, updating, packs(local, Phase.PREPARE, prices.cluster))


def _reaching(part: Part, alive: tuple[int, ...], made: tuple[int, ...], halves: Halves) -> Part:
    """The part whose moments are those."""
    making = max((a + m for a, m in zip(alive, made, strict=True)), default=0)
    first, late, late_making = halves.most
    return replace(
        part, momentary=max(0, *alive), making=max(0, making), alive=alive, made=made,
        first=first, late=late, late_making=late_making, halves=halves,
    )  # fmt: skip


def _term(node: Node, chain: Chain, prices: Prices, timed: Timed | None) -> Term:
    half = 0 if node.phase is Phase.FORWARD else 2 if node.id in chain.weights else 1
    at, again = chain.block[node.id], node.id.startswith(AGAIN)
    if node.op in COLLECTIVES:
        use = node.outs[0] if node.op == "all_gather" else node.uses[0].type
        return Term(at, half, again, message=(node.op, str(node.attrs["axis"])), bytes_=_bytes(use))
    if timed is not None:
        return Term(at, half, again, kernels_s=timed.get(node.id, 0.0))
    if node.op in FREE or node.op in VIEWS:
        return Term(at, half, again, free=True)
    return Term(at, half, again, *bounds_s(node, prices.cluster.machine))


def _between(part: Part, other: Part, share: float) -> Part:
    """A part's bytes on the line through those of more rows."""
    sizes = {
        name: round(_on_line(getattr(part, name), getattr(other, name), share))
        for name in ("kept", "held", "crossing", "waiting")
    }

    def line(mine: Sequence[int], theirs: Sequence[int]) -> tuple[int, ...]:
        return tuple(round(_on_line(a, b, share)) for a, b in zip(mine, theirs, strict=True))

    own, more = part.halves, other.halves
    apart = Halves(line(own.first, more.first), line(own.weights, more.weights), own.made)
    return _reaching(replace(part, **sizes), line(part.alive, other.alive), part.made, apart)


def _on_line(first: float, second: float, share: float) -> float:
    return first + (second - first) * share


def seconds_of(node: Node, prices: Prices, timed: Timed | None = None) -> float:
    """One run of a node of a device's graph, or of a message."""
    if node.op not in COLLECTIVES:
        return timed.get(node.id, 0.0) if timed is not None else node_time(node, prices.cluster.machine).seconds
    use = node.outs[0] if node.op == "all_gather" else node.uses[0].type
    return prices.collective_s(node.op, str(node.attrs["axis"]), _bytes(use))


def _bytes(out: TensorType) -> int:
    return elements(out.dims) * out.dtype.itemsize_bytes


# ---- where parameters and what is made of them belong


def homes_of(local: Graph, chain: Chain) -> dict[str, tuple[str, ...]]:
    """For each node that runs once a step, the blocks that it belongs to; of none, `SCALARS`."""
    found: dict[str, tuple[str, ...]] = {}
    for node in reversed(list(local)):
        if node.phase is Phase.PREPARE:
            readers = chain.readers[node.id]
            names = [chain.names[chain.block[r.id]] for r in readers if r.id in chain.block]
            names += [name for r in readers if r.phase is Phase.PREPARE for name in found.get(r.id, ())]
            found[node.id] = tuple(dict.fromkeys(name for name in names if name != SCALARS)) or (SCALARS,)
    for node in local:
        if node.op == "state":
            of = str(node.attrs.get("of") or node.id.partition("/")[2])
            found[node.id] = found.get(of, found[node.id])
        elif node.op == "accumulate" and node.id in chain.block:
            found[node.id] = (chain.names[chain.block[node.id]],)
        elif node.phase is Phase.UPDATE:
            large = [use for use in node.uses if use.dims and found.get(use.node, (SCALARS,)) != (SCALARS,)]
            found[node.id] = next((found[use.node] for use in large), (SCALARS,))
    return found


def _weights(
    local: Graph, chain: Chain, homes: Mapping[str, Sequence[str]], prices: Prices, seconds: Timed
) -> dict[str, Weights]:
    """What the parameters of each block are."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    launches: defaultdict[str, float] = defaultdict(float)
    updates: defaultdict[str, float] = defaultdict(float)
    gradients: defaultdict[str, list[int]] = defaultdict(list)
    read: defaultdict[str, list[int]] = defaultdict(list)
    launch = prices.cluster.machine.launch_s
    updated = {str(node.attrs["target"]) for node in local.nodes("assign")}
    for node in local:
        if node.phase in COMPUTED and node.op != "accumulate":
            continue
        size = sum(map(_bytes, node.outs))
        for name in homes[node.id]:
            if name == SCALARS:
                continue
            if node.op == "accumulate":
                if node.outs[0].dims:
                    gradients[name].append(size)
            elif node.op == "state":
                sums[name]["states"] += size
            elif node.phase is Phase.PREPARE and node.op not in GIVEN | LITERALS | VIEWS:
                readers = [user for user in _readers(node, chain) if user.id in chain.block]
                used = bool(readers)
                here = (user for user in readers if chain.names[chain.block[user.id]] == name)
                sums[name]["behind"] += size if any(user.phase is Phase.BACKWARD for user in here) else 0
                sums[name]["computed" if used else "master"] += size
                if used and _source(node, local) in updated:
                    read[name].append(size)
            if node.op not in ("parameter", "state", "accumulate"):
                taken = seconds[node.id]
                launches[name] += min(launch, taken)
                updates[name] += max(0.0, taken - launch)
    return {
        name: Weights(
            sums[name]["master"], sums[name]["computed"], sums[name]["behind"], sums[name]["states"],
            tuple(gradients[name]), tuple(read[name]), launches[name], updates[name],
        )
        for name in chain.names
    }  # fmt: skip


def _tied(local: Graph, chain: Chain, homes: Mapping[str, Sequence[str]]) -> Mapping[str, list[tuple[str, int]]]:
    """For each block the gradients of parameters that another block before it reads too: that block, and bytes."""
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    trained = {str(node.attrs["target"]) for node in local.nodes("assign")}
    for node in local.nodes("parameter"):
        if node.id in trained:
            first, *others = sorted(homes[node.id], key=lambda name: chain.number.get(name, -1))
            for name in others:
                found[name].append((first, _bytes(node.outs[0])))
    return found


def _readers(node: Node, chain: Chain) -> Iterable[Node]:
    """Who reads a value, through views of it."""
    for user in chain.readers[node.id]:
        yield user
        if user.op in VIEWS and user.phase is Phase.PREPARE:
            yield from _readers(user, chain)


def _source(node: Node, local: Graph) -> str:
    """The parameter that a value of the prepare phase is made of."""
    while node.op != "parameter" and node.uses:
        node = local[node.uses[0].node]
    return node.id
