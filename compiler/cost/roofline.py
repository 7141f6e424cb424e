"""The time of a step, before it runs: per node the larger of arithmetic and memory traffic, plus a launch.

    t(node) = max(flops / peak(dtype), bytes / bandwidth) + launch        (Williams, Waterman, Patterson 2009)

In: a graph with sizes and a `Machine`, whose figures are measured or read from a catalogue. Out: seconds, and what
bounds them. It is a lower bound for kernels that reach the machine's own figures, not a promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.types import DType, Node
from .flops import ONCE_A_STEP, Work, work_of

FREE = frozenset({"parameter", "state", "input", "constant", "start", "step", "seed", "extent", "stop"})
VIEWS = frozenset({"split_dim", "merge_dims", "expand", "transpose", "unstack", "split"})


@dataclass(frozen=True, slots=True)
class Machine:
    """One device.

    flops_per_s            by element type: what a large matrix product reaches
    elementwise_per_s      elementwise operations a second, where their number and not their bytes is the bound
    bandwidth_bytes_per_s  read and written together
    launch_s               what starting one kernel costs
    """

    flops_per_s: Mapping[DType, float]
    elementwise_per_s: float
    bandwidth_bytes_per_s: float
    launch_s: float

    def matmul(self, dtype: DType) -> float:
        """The peak for a type; float32's where none was measured."""
        return self.flops_per_s.get(dtype, self.flops_per_s[DType.F32])


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of a step, and how many of them arithmetic, memory traffic and launches bound."""

    seconds: float = 0.0
    arithmetic_s: float = 0.0
    traffic_s: float = 0.0
    launch_s: float = 0.0

    def __add__(self, other: Time) -> Time:
        return Time(
            self.seconds + other.seconds,
            self.arithmetic_s + other.arithmetic_s,
            self.traffic_s + other.traffic_s,
            self.launch_s + other.launch_s,
        )


def node_time(node: Node, machine: Machine) -> Time:
    """One run of one node."""
    if node.op in FREE or node.op in VIEWS:
        return Time()
    arithmetic, traffic = bounds_s(node, machine)
    bound = max(arithmetic, traffic)
    by_arithmetic = arithmetic >= traffic
    return Time(
        bound + machine.launch_s,
        arithmetic if by_arithmetic else 0.0,
        0.0 if by_arithmetic else traffic,
        machine.launch_s,
    )


def bounds_s(node: Node, machine: Machine) -> tuple[float, float]:
    """What arithmetic and memory traffic of one run take, each alone."""
    work = work_of(node)
    return _arithmetic(node, work, machine), work.bytes_moved / machine.bandwidth_bytes_per_s


def _arithmetic(node: Node, work: Work, machine: Machine) -> float:
    """Contractions run at the matrix peak of their operands' type, all else at the elementwise rate."""
    if work.model_flops:
        return work.flops / machine.matmul(node.uses[0].dtype)
    return work.flops / machine.elementwise_per_s


def step_time(graph: Graph, machine: Machine) -> Time:
    """One step: the forward and backward once a microbatch."""
    total = Time()
    for node in graph:
        one = node_time(node, machine)
        times = 1 if node.phase in ONCE_A_STEP else graph.microbatches
        total += Time(one.seconds * times, one.arithmetic_s * times, one.traffic_s * times, one.launch_s * times)
    return total
