"""What activations on the host make of a model's parts: bytes kept no more, seconds of copies that nothing hides.

In: one device's graph of a thin step, the device's host; the whole model's parts. Out: of each part the bytes that its
backward reads and that lie on the host until then (`cost/hosted.py` says which: what is moved in less
time than it is made again), and the parts as a device has them. What a block's backward reads comes up while the block
after it runs backward, and what went down last may not be there yet: beside its own a block has what the two before it
moved. It takes no less than its copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..cost.cluster import Cluster
from ..cost.hosted import Parts as Orders
from ..cost.hosted import cheaper_to_move
from ..cost.roofline import Machine
from ..ir.graph import Graph
from ..ops.shapes import elements
from ..schedule.blocks import Chain, Value
from .parts import Part, Parts
from .thin import Thin

_NONE_AT_ONCE = Orders(soon=frozenset())  # a thin chain's last layer stands for others too


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that a part's backward reads from the host. own: made in it. other: made in a block before it."""

    own: int = 0
    other: int = 0


def moved_of(local: Graph, cluster: Cluster, rows: float = 1.0) -> dict[str, Moved]:
    """For each part of a thin step what would go of it, if it had so many times the rows."""
    machine, host = _slower(cluster.machine, rows), cluster.host
    host = replace(host, link_bytes_per_s=host.link_bytes_per_s / rows)
    values = cheaper_to_move(local, machine, host, _NONE_AT_ONCE)
    chain, found = Chain(local), dict[str, Moved]()

    def size(value: Value) -> int:
        out = local[value[0]].outs[value[1]]
        return elements(out.dims) * out.dtype.itemsize_bytes

    for at, (name, kept) in enumerate(zip(chain.names, chain.kept_values(), strict=True)):
        sizes = [(size(value), chain.block[value[0]] == at) for value in kept & values]
        found[name] = Moved(sum(n for n, own in sizes if own), sum(n for n, own in sizes if not own))
    return found


def _slower(machine: Machine, times: float) -> Machine:
    """On which a step takes what one of so many times the rows does: launches are as they were."""
    return Machine(
        {dtype: rate / times for dtype, rate in machine.flops_per_s.items()},
        machine.elementwise_per_s / times,
        machine.bandwidth_bytes_per_s / times,
        machine.launch_s,
    )


def whole_moved(thin: Thin, names: Sequence[str], moved: Mapping[str, Moved], rows: float) -> list[int]:
    """Of each part of the whole model the bytes, of so many times the rows. What a chain's last
    layer reads stays; a thin chain's first reads nothing of a layer before it, though it may stand for others."""
    found: list[int] = []
    for name, (at, count) in zip(names, _places(thin, names), strict=True):
        chain = name.rpartition(".")[0]
        alike = [one for other, one in moved.items() if count and other.rpartition(".")[0] == chain]
        here = moved.get(name, Moved())
        other = 0 if at == 0 else here.other or max((one.other for one in alike), default=0)
        found.append(0 if at == count - 1 else round((here.own + other if count else here.own + here.other) * rows))
    return found


def _places(thin: Thin, names: Sequence[str]) -> list[tuple[int, int]]:
    """Of each part its number in its chain, and how many that has; (-1, 0) for what stands in none."""
    seen: dict[str, int] = {}
    found: list[tuple[int, int]] = []
    for name in names:
        chain = name.rpartition(".")[0]
        if chain in thin.stands:
            seen[chain] = seen.get(chain, -1) + 1
            found.append((seen[chain], len(thin.stands[chain])))
        else:
            found.append((-1, 0))
    return found


def aloft(parts: Parts, moved: Sequence[int], link_bytes_per_s: float) -> Parts:
    """The parts as a device has them whose activations lie on its host; alike ones stay one object."""
    made: dict[tuple[int, int, int], Part] = {}

    def part(at: int) -> Part:
        one, own, before = parts.parts[at], moved[at], sum(moved[max(0, at - 2) : at])
        key = (id(one), own, before)
        if key not in made:
            copy = own / link_bytes_per_s
            made[key] = replace(
                one,
                forward_s=max(one.forward_s, copy),
                input_s=max(one.input_s, copy - one.weight_s),
                kept=max(0, one.kept - own),
                momentary=one.momentary + own + before,
                making=one.making + own + before,
                first=one.first + own + before,
            )
        return made[key]

    return replace(parts, parts=tuple(map(part, range(len(parts.parts)))))
