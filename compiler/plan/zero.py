"""What the axis `data` and a stage of ZeRO make of a block's parameters: seconds of messages, bytes of a device.

In: what a device has for a block and what the block reads, a choice, the cluster. Out: `Shared`. With D devices along
`data`, a gradient's bytes g and what is read of a parameter r:

    ZeRO 0   all-reduce g once a step
    ZeRO 1   reduce-scatter g, all-gather r once a step; the update's traffic and memory / D
    ZeRO 2   reduce-scatter g every microbatch; all-gather r once
    ZeRO 3   reduce-scatter g, all-gather r in the forward and again in the backward, every microbatch

(Rajbhandari et al. 2020, section 7). Neighbouring gradients, and parameters, go together, as the program sends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cost.cluster import Cluster
from ..ir.layout import Mesh
from ..partition.choices import DATA
from .courses import together
from .parts import Weights
from .space import Choice

# a block's parameters, all that it reads, the axes that cut tensors, data, ZeRO
Known = tuple[int, int, object, int, int]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the axis `data` adds to a block: once a step, to each half of a microbatch, and bytes that last.

    late: gradients that are no sums, of one microbatch
    """

    reduce_s: float
    update_s: float
    forward_s: float
    input_s: float
    weight_s: float
    static: int
    gradients: int
    late: int


def shared(own: Weights, there: Weights, choice: Choice, cluster: Cluster) -> Shared:
    """own: what a device has for this block. there: what the block reads, of another block's too."""
    data, zero, mesh = choice.data, choice.zero, _on_data(choice)

    def sent(op: str, sizes: Sequence[int]) -> float:
        if data == 1:
            return 0.0
        launch = cluster.machine.launch_s
        messages = list(map(sum, together(sizes, cluster.bucket_bytes)))
        each = {size: cluster.collective_s(op, size, mesh, DATA) + launch for size in set(messages)}
        return sum(each[size] for size in messages)

    def part(size: int, stage: int) -> int:
        return -(-size // data) if zero >= stage else size

    scattered = sent("reduce_scatter", own.gradients) if zero else 0.0
    gathered = sent("all_gather", own.read) if zero else 0.0
    once = sent("all_reduce", own.gradients) if zero == 0 else scattered if zero == 1 else 0.0
    each = scattered if zero >= 2 else 0.0
    update = own.launch_s + own.update_s / (data if zero else 1)
    return Shared(
        once + (gathered if zero in (1, 2) else 0.0), update, gathered if zero == 3 else 0.0,
        gathered if zero == 3 else 0.0, each,
        part(own.master, 1) + part(own.computed, 3) + part(own.states, 1), part(own.gradient_bytes, 2),
        part(own.gradient_bytes, 1),
    )  # fmt: skip


def _on_data(choice: Choice) -> Mesh:
    """The mesh as far as `data` reaches: it lies outside of what cuts tensors."""
    return Mesh(((DATA, choice.data), *choice.unit.inner))
