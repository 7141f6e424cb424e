"""What stays on a device all the step: parameters, states, summed gradients, what the forward keeps for the backward
(in a pipeline for all microbatches in flight), and what is gathered once for all microbatches.

In: the program of a graph's choices. Out: its bytes under a choice, the least that any choice leaves, and the row that
bounds it. What is held for a moment is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..integer import Row
from ..ir.layout import Layout
from ..ir.types import Phase
from .fold import ClassId, Read
from .strategies import Strategy

if TYPE_CHECKING:
    from .solve import Program

PER_MICROBATCH = frozenset({Phase.FORWARD, Phase.BACKWARD})


@dataclass
class Resident:
    """Of one program."""

    program: Program

    def row(self, limit: int, gathered: Sequence[tuple[int, int]]) -> Row:
        """The row that keeps it within a limit. gathered: variables of what is gathered for all microbatches, with
        the bytes of each."""
        own, merged = self.program, dict[int, float]()
        for place, size in gathered:
            merged[place] = merged.get(place, 0.0) + size / limit
        for name, output in self._values:
            for i, layout in enumerate(own.made(name, output)):
                place = own.first[name] + i
                merged[place] = merged.get(place, 0.0) + self._bytes(name, output, layout) / limit
        return list(merged), list(merged.values()), -float("inf"), 1.0

    def bytes(self, picked: Mapping[ClassId, Strategy], flying: float | None = None) -> int:
        """Under a choice. flying: of so many microbatches, where it is not the program's own number."""
        own, total = self.program, 0
        for name, output in self._values:
            layout = own.made(name, output)[own.choices[name].index(picked[name])]
            total += self._bytes(name, output, layout, flying)
        return total + sum(self._gathered_bytes(read, readers, picked) for read, readers in self._gathered)

    def least(self) -> dict[ClassId, int]:
        """The least bytes of each class that a device holds, every value cut as far as it can be."""
        found: dict[ClassId, int] = {}
        for name, output in self._values:
            least = min(self._bytes(name, output, layout) for layout in self.program.made(name, output))
            found[name] = found.get(name, 0) + least
        return found

    def _bytes(self, name: ClassId, output: int, layout: Layout, flying: float | None = None) -> int:
        own, node = self.program, self.program.folded.nodes[name]
        times = (own.flying if flying is None else flying) if node.phase is Phase.FORWARD else 1
        return round(own.folded.counts[name] * times * own.prices.part_bytes(node.outs[output], layout))

    @cached_property
    def _values(self) -> list[tuple[ClassId, int]]:
        """Results that stay as they are made."""
        folded, found = self.program.folded, dict[tuple[ClassId, int], None]()
        for name, node in folded.nodes.items():
            if node.op in ("parameter", "state", "accumulate"):
                found[name, 0] = None
        for read in folded.reads:
            phases = {folded.nodes[name].phase for name, _ in read.readers if name in folded.nodes}
            if folded.nodes[read.source].phase is Phase.FORWARD and Phase.BACKWARD in phases:
                found[read.source, read.output] = None
        return list(found)

    @cached_property
    def _gathered(self) -> list[tuple[Read, list[tuple[ClassId, list[Layout]]]]]:
        """What may be gathered for all microbatches: who reads it, and what each of their strategies wants."""
        own, found = self.program, list[tuple[Read, list[tuple[ClassId, list[Layout]]]]]()
        for read in own.folded.reads:
            if own.lasts(read.source):
                wanted = [(key, one) for key, one in own.wanted(read).items() if one.phase in PER_MICROBATCH]
                found.append((read, [(key.rpartition("#")[0], [of for _, of in one.needs]) for key, one in wanted]))
        return found

    def _gathered_bytes(
        self, read: Read, readers: Sequence[tuple[ClassId, list[Layout]]], picked: Mapping[ClassId, Strategy]
    ) -> int:
        """What is gathered of one value, each layout once."""
        own, source = self.program, read.source
        has = own.made(source, read.output)[own.choices[source].index(picked[source])]
        wanted = {layouts[own.choices[name].index(picked[name])] for name, layouts in readers}
        names = own.mesh.names
        whole = (one for one in wanted if any(isinstance(has.on(a), int) and one.on(a) is None for a in names))
        return sum(read.count * own.prices.part_bytes(own.folded.nodes[source].outs[read.output], one) for one in whole)
