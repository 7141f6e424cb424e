"""A pipeline of a published setting's layers on a machine: seconds of a step for given token slices.

In: what a layer takes, the machine's rates, the slices' lengths. Out: seconds, simulated or by the paper's formula, and
the slices that our own dynamic program finds. As in the paper (section 3.3), a message is part of its sender's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...compiler.schedule.actions import Shape, one_chunk_each
from ...compiler.schedule.ladder import HALVES
from ...compiler.schedule.orders import gpipe
from ...compiler.schedule.simulate import Price, simulate
from ...compiler.schedule.slices import cut
from ...compiler.schedule.transfers import complete
from .terapipe_layer import LayerCosts, Rates
from .terapipe_published import BETWEEN, DEVICES, INSIDE, TOKENS

STEP = 4  # tokens: our own slices are multiples
NEAR = 1e-4  # of a step's time: how close our own slices come to the best
Slice = tuple[int, int]  # (length, context)


@dataclass
class Pipe:
    """A setting on a machine."""

    layer: LayerCosts
    rates: Rates
    known: dict[tuple[int, int], tuple[float, float]] = field(
        default_factory=dict[tuple[int, int], tuple[float, float]]
    )

    def prepare(self, slices: Sequence[Slice]) -> None:
        """Reckons many (length, context) at once."""
        left = [one for one in dict.fromkeys(slices) if one not in self.known]
        if not left:
            return
        lengths, contexts = (np.array(column, dtype=float) for column in zip(*left, strict=True))
        setting = self.layer.setting
        parts = [self.layer.seconds(half, lengths, contexts, self.rates) for half in HALVES]
        each = setting.layers // setting.stages
        forward, backward = each * parts[0], each * (parts[1] + parts[2])
        self.known |= dict(zip(left, zip(forward.tolist(), backward.tolist(), strict=True), strict=True))

    def hop_s(self, chunk: int, length: int) -> float:
        """The message of a slice from chunk to chunk + 1: inside of a machine where both stand there."""
        setting = self.layer.setting
        inside = (chunk + 1) * setting.devices % DEVICES != 0
        link = INSIDE if inside else BETWEEN
        return self.layer.crossing_bytes(length) / link.bandwidth_bytes_per_s + link.latency_s

    def mean_hop_s(self, length: int) -> float:
        """Over all borders."""
        hops = [self.hop_s(chunk, length) for chunk in range(DEVICES)]
        return sum(hops) / len(hops)

    def slice_s(self, rows: int, length: int, context: int) -> float:
        """Forward and backward with both messages, as the dynamic program asks."""
        assert rows == 1, "a microbatch is a row"
        forward, backward = self.known[length, context]
        return forward + backward + 2 * self.hop_s(DEVICES - 1, length)

    def best(self) -> tuple[int, ...]:
        """Our own slices of a row."""
        units = TOKENS // STEP
        self.prepare([(k * STEP, c * STEP) for c in range(units) for k in range(1, units - c + 1)])
        setting = self.layer.setting
        near = NEAR * setting.with_s / setting.stages
        found = cut(setting.batch, TOKENS, setting.stages, self.slice_s, STEP, near, row_counts=[1])
        return found.microbatches[0].lengths

    def step_s(self, lengths: Sequence[int]) -> float:
        """A step, simulated: every row is a microbatch, cut alike."""
        setting, begins = self.layer.setting, _begins(lengths)
        self.prepare(list(zip(lengths, begins, strict=True)))
        shape = Shape(one_chunk_each(setting.stages), (len(lengths),) * setting.batch)
        table = [
            [self._price(chunk, *one) for one in zip(lengths, begins, strict=True)] for chunk in range(shape.last + 1)
        ]
        found = simulate(complete("gpipe", shape, gpipe(shape)), lambda chunk, microbatch, part: table[chunk][part])
        return float(found.makespan)

    def _price(self, chunk: int, length: int, context: int) -> Price:
        forward, backward = self.known[length, context]
        after = self.hop_s(chunk, length) if chunk + 1 < self.layer.setting.stages else 0.0
        before = self.hop_s(chunk - 1, length) if chunk else 0.0
        return Price(forward + after, backward + before, 0.0)

    def formula_s(self, lengths: Sequence[int]) -> float:
        """Σ t_i + (K - 1) max t_i, the slowest border in the sum and the mean one on the way through."""
        setting, begins = self.layer.setting, _begins(lengths)
        self.prepare(list(zip(lengths, begins, strict=True)))
        slow = [self.slice_s(1, *one) for one in zip(lengths, begins, strict=True)]
        faster = 2 * (self.mean_hop_s(lengths[0]) - self.hop_s(DEVICES - 1, lengths[0]))
        return setting.batch * sum(slow) + (setting.stages - 1) * (max(slow) + faster)


def _begins(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:at]) for at in range(len(lengths))]
