"""What each block of a step takes on one device: what the price of any plan is added up from.

In: a device's graph of a step with few layers (laid out on the axes that cut tensors, not on `data` or `pipe`), the
mesh and the cluster. Out: a `Part` for each block: seconds of a microbatch's forward and of the backward's halves with
the messages in them, bytes kept, passed on and needed for a moment, and what its parameters hold and send, so that any
size of `data` and any stage of ZeRO is priced from it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..cost.memory import GIVEN, LITERALS, alive_bytes
from ..cost.roofline import VIEWS, node_time
from ..elaborate.models import BATCH
from ..ir.graph import Graph
from ..ir.types import Node, Phase, TensorType
from ..ops.collectives import COLLECTIVES
from ..ops.shapes import elements
from ..partition.price import Prices
from ..schedule.blocks import AGAIN, Chain

COMPUTED = frozenset({Phase.FORWARD, Phase.BACKWARD})
SCALARS = "common"  # the home of what belongs to no block: the gradients' norm, the learning rate


@dataclass(frozen=True, slots=True)
class Weights:
    """What a block's parameters are on one device of a mesh without `data`, by how ZeRO cuts it (bytes).

    master     parameters that are cast before they are computed with: cut from stage 1 on
    computed   parameters as forward and backward read them: cut at stage 3
    states     of the optimizer: cut from stage 1 on
    gradients  summed over the microbatches, one by one: cut from stage 2 on
    read       the computed ones of them that are trained, one by one
    launch_s, update_s  of the update: the kernels' launches, and what shrinks where it is cut
    """

    master: int = 0
    computed: int = 0
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
    """One block, for one microbatch on one device. momentary: bytes while it runs, beyond what lasts and is kept."""

    name: str
    forward_s: float
    input_s: float
    weight_s: float
    kept: int
    held: int
    crossing: int
    momentary: int
    weights: Weights

    @property
    def seconds(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.input_s + self.weight_s


@dataclass(frozen=True, slots=True)
class Parts:
    """parts: of the whole model, in order. common_s: once a step on every device. updating: bytes that the update
    needs for a moment. model_flops: of a microbatch on all devices of the mesh, as MFU counts them.

    core_s   of a microbatch, without what is computed again
    floor_s  of these, what grows with the rows just as they do: arithmetic, and messages' way over the wire
    """

    parts: tuple[Part, ...]
    common_s: float
    updating: int
    model_flops: float
    core_s: float
    floor_s: float


def parts_of(local: Graph, prices: Prices) -> tuple[list[Part], float, int]:
    """The parts of one device's graph, the seconds that belong to none of them, and the update's momentary bytes."""
    chain = Chain(local)
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for node in local:
        if node.id in chain.block:
            half = "forward" if node.phase is Phase.FORWARD else "weight" if node.id in chain.weights else "input"
            seconds[chain.names[chain.block[node.id]], half] += seconds_of(node, prices)
    kept, held, crossing = chain.kept(), chain.held(), chain.crossing()
    homes = homes_of(local, chain)
    weights = _weights(local, chain, homes, prices)
    momentary, updating = _momentary(local, chain, kept, [weights[name] for name in chain.names])
    found = [
        Part(
            name, seconds[name, "forward"], seconds[name, "input"], seconds[name, "weight"],
            kept[at], held[at], crossing[at], momentary[at], weights[name],
        )
        for at, name in enumerate(chain.names)
    ]  # fmt: skip
    common = sum(seconds_of(n, prices) for n in local if n.phase not in COMPUTED and homes[n.id] == (SCALARS,))
    return found, common, updating


def core_of(local: Graph, prices: Prices, times: Mapping[str, int]) -> tuple[float, float]:
    """`core_s` and `floor_s` of a microbatch, each block as often as it stands in the whole model."""
    chain, core, floor = Chain(local), 0.0, 0.0
    for node in local:
        if node.id in chain.block and not node.id.startswith(AGAIN):
            often, seconds = times[chain.names[chain.block[node.id]]], seconds_of(node, prices)
            core += often * seconds
            if node.op not in COLLECTIVES:
                floor += often * node_time(node, prices.cluster.machine).arithmetic_s
            elif any(dim.name.startswith(BATCH) for dim in node.outs[0].dims):
                span = prices.cluster.spans(prices.mesh, str(node.attrs["axis"]))
                waits = sum(math.ceil(math.log2(level.members)) * level.link.latency_s for level in span)
                floor += often * max(0.0, seconds - 2 * waits - prices.cluster.machine.launch_s)
    return core, floor


def seconds_of(node: Node, prices: Prices) -> float:
    """One run of a node of a device's graph, or of a message."""
    if node.op not in COLLECTIVES:
        return node_time(node, prices.cluster.machine).seconds
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


def _weights(local: Graph, chain: Chain, homes: Mapping[str, Sequence[str]], prices: Prices) -> dict[str, Weights]:
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
                used = any(user.id in chain.block for user in _readers(node, chain))
                sums[name]["computed" if used else "master"] += size
                if used and _source(node, local) in updated:
                    read[name].append(size)
            if node.op not in ("parameter", "state", "accumulate"):
                seconds = seconds_of(node, prices)
                launches[name] += launch if seconds else 0.0
                updates[name] += max(0.0, seconds - launch)
    return {
        name: Weights(
            sums[name]["master"], sums[name]["computed"], sums[name]["states"],
            tuple(gradients[name]), tuple(read[name]), launches[name], updates[name],
        )
        for name in chain.names
    }  # fmt: skip


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


# ---- memory that is needed for a moment


def _momentary(local: Graph, chain: Chain, kept: Sequence[int], weights: Sequence[Weights]) -> tuple[list[int], int]:
    """For each block the most bytes alive while it runs, beyond what lasts and what is kept so far; and the update's.

    With one microbatch the gradients are no sums that last: those of later blocks are there in a block's backward.
    """
    alive = alive_bytes(local)
    one = local.microbatches == 1
    gradients = [w.gradient_bytes if one else 0 for w in weights]
    lasting = sum(w.master + w.computed + w.states + (0 if one else w.gradient_bytes) for w in weights)
    found, updating = [0] * len(kept), 0
    for node in local:
        more = alive[node.id] - lasting
        if node.id in chain.block:
            at = chain.block[node.id]
            backward = node.phase is Phase.BACKWARD
            there = sum(kept[: at + 1]) + sum(gradients[at + 1 :]) if backward else sum(kept[:at])
            found[at] = max(found[at], more - there)
        elif node.phase is Phase.UPDATE:
            updating = max(updating, more - sum(gradients))
    return found, updating


def whole(parts: Sequence[Part], names: Sequence[str]) -> tuple[Part, ...]:
    """The parts of the whole model, each a copy of what stands for it, under its own number."""
    by_name = {part.name: part for part in parts}
    seen: Counter[str] = Counter()
    found: list[Part] = []
    for name in names:
        chain, dot, number = name.rpartition(".")
        own = name if not dot or not number.isdecimal() else f"{chain}.{seen[chain]}"
        seen[chain] += 1
        found.append(replace(by_name[name], name=own))
    return tuple(found)
