"""How high one device's graph reaches, block by block: what a part's moments are read from.

In: the graph of one device with few layers, its chain of blocks. Out: bytes alive node by node beyond what lasts and
what is kept, the gradients that are there by then, those that wait for another block's sum, and the update's most; the
same of a backward in halves, of which the weights' half stands behind all of its block's other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..cost.cluster import Cluster
from ..cost.memory import accumulated, alive_bytes
from ..ir.graph import Graph
from ..ir.types import Node, Phase
from ..ops.costs import bytes_of
from ..schedule.blocks import Chain

GATHERS_AT_A_TIME = 2  # on their way where nothing is computed beside them (`lower/overlap.py`)

Course = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Halves:
    """Of a block whose backward is in halves: node by node the bytes alive beyond what lasts and what is there when the
    half begins. first: forward and input's half, beyond what is kept; weights: beyond what is held for it, `made`: with
    the gradients that are there by then."""

    first: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    made: tuple[int, ...] = ()

    @property
    def most(self) -> tuple[int, int, int]:
        """Of the first half, of the weights' half, and of that where its gradients are no part of what lasts."""
        making = (alive + made for alive, made in zip(self.weights, self.made, strict=True))
        return max((0, *self.first)), max((0, *self.weights)), max((0, *making))


NO_HALVES = Halves()


def halves(
    local: Graph, chain: Chain, kept: Sequence[int], held: Sequence[int], crossing: Sequence[int], lasting: int,
    born: Mapping[str, int],
) -> list[Halves]:  # fmt: skip
    """For each block. What goes on to the block before it is gone when the weights' half begins."""
    course = alive_bytes(local, order=_apart(local, chain))
    before = list(accumulate(kept))
    first, weights, made = ([list[int]() for _ in kept] for _ in range(3))
    for node in local:
        if node.id not in chain.block:
            continue
        at, more = chain.block[node.id], course[node.id] - lasting
        if node.id in chain.weights:
            gone = before[at] - kept[at] + (crossing[at - 1] if at else 0)
            weights[at].append(more - gone - held[at])
            made[at].append((made[at][-1] if made[at] else 0) + born.get(node.id, 0))
        else:
            first[at].append(more - before[at])
    return [Halves(tuple(a), tuple(b), tuple(c)) for a, b, c in zip(first, weights, made, strict=True)]


def _apart(local: Graph, chain: Chain) -> list[Node]:
    """The nodes in an order in which each block's weights' half follows the last of its input's half."""
    ends = {chain.block[n.id]: at for at, n in enumerate(local) if n.id in chain.block and n.id not in chain.weights}
    place: dict[str, int] = {}
    for at, node in enumerate(local):
        if node.id in chain.weights:
            read = (place[use.node] for use in node.uses)
            place[node.id] = max(at, ends.get(chain.block[node.id], at), *read)
        else:
            place[node.id] = at
    return sorted(local, key=lambda node: place[node.id])


def courses(
    local: Graph, chain: Chain, kept: Sequence[int], lasting: int, born: Mapping[str, int], cluster: Cluster
) -> tuple[list[Course], int]:
    """For each block, node by node, the bytes alive while it runs, beyond what lasts and what is kept with it, and the
    gradients that it has made by then; and the most of the update."""
    course = alive_bytes(local)
    before = list(accumulate(kept))
    alive: list[list[int]] = [[] for _ in kept]
    made: list[list[int]] = [[] for _ in kept]
    updating, packed = 0, packs(local, Phase.UPDATE, cluster)
    for node in local:
        more = course[node.id] - lasting
        if node.id in chain.block:
            at = chain.block[node.id]
            alive[at].append(more - before[at])
            made[at].append((made[at][-1] if made[at] else 0) + born.get(node.id, 0))
        elif node.phase is Phase.UPDATE:
            updating = max(updating, more + (packed if node.op == "all_gather" else 0))
    return [(tuple(a), tuple(m)) for a, m in zip(alive, made, strict=True)], updating


def gradients(local: Graph, chain: Chain) -> tuple[Counter[str], list[int]]:
    """The bytes of gradients by the node from which on each is there, in the block whose sum it is of; and what waits
    in each block for that one."""
    made, waiting = Counter[str](), [0] * len(chain.names)
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for (name, _), (total, _) in accumulated(local).items():
        if name != total and local[name].op != "add":
            sources[total].append(name)
    order = {node.id: place for place, node in enumerate(local)}
    for node in local.nodes("accumulate"):
        if node.id not in chain.block or not node.outs[0].dims:
            continue
        size, home = bytes_of(node.outs[0]), chain.block[node.id]
        here = [name for name in sources[node.id] if chain.block[name] == home]
        made[min(here, key=order.__getitem__, default=node.id)] += size
        for at in range(home + 1, max((chain.block[name] for name in sources[node.id]), default=home) + 1):
            waiting[at] += size
    return made, waiting


def packs(local: Graph, phase: Phase, cluster: Cluster) -> int:
    """What the gathers of a phase that computes nothing beside them are packed in, so many messages at a time."""
    axes: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
    for node in local.nodes("all_gather"):
        if node.phase is phase:
            axes[node.attrs["axis"]].append((bytes_of(node.outs[0]), bytes_of(node.uses[0].type)))
    found: list[int] = []
    for members in axes.values():
        begin = 0
        for sizes in together([whole for whole, _ in members], cluster.bucket_bytes):
            end = begin + len(sizes)
            if len(sizes) > 1 and not cluster.gloo:
                found.append(sum(whole + own for whole, own in members[begin:end]))
            begin = end
    return sum(sorted(found)[-GATHERS_AT_A_TIME:])


def together(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """What goes in one message, in order: neighbours up to so many bytes."""
    found: list[list[int]] = []
    here = 0
    for size in sizes:
        if found and here + size <= limit:
            found[-1].append(size)
            here += size
        else:
            found.append([size])
            here = size
    return found
