"""How high one device's graph reaches, block by block: what a part's moments are read from.

In: the graph of one device with few layers, its chain of blocks. Out: bytes alive node by node beyond what lasts and
what is kept, the gradients that are there by then, those that wait for another block's sum, and the update's most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate

from ..cost.cluster import Cluster
from ..cost.memory import accumulated, alive_bytes
from ..ir.graph import Graph
from ..ir.types import Phase
from ..ops.costs import bytes_of
from ..schedule.blocks import Chain

GATHERS_AT_A_TIME = 2  # on their way where nothing is computed beside them (`lower/overlap.py`)

Course = tuple[tuple[int, ...], tuple[int, ...]]


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
