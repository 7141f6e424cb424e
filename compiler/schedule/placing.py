"""From a training step's graph and a plan's words to its blocks' places and its schedule.

In: one device's step graph, how many stages there are, what the plan says. Out: the blocks with their prices, where
they are cut, and the schedule that the cut is priced with. Who lowers stages and who only shows them ask here alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cost.cluster import H100_NODES, Cluster
from ..cost.hosted import Parts, cheaper_to_move
from ..cost.memory import Value
from ..ir.graph import Graph
from .actions import Schedule
from .blocks import Hosted, blocks_of, chunk_prices
from .chunks import names_of
from .forms import Form, build
from .place import Block, Placed, by_hand, in_flight, place
from .simulate import Price, by_chunk


@dataclass(frozen=True)
class Pipeline:
    """What a plan says: the schedule, blocks for each chunk (empty: as is best), the machines, a device's memory, what
    lies on the host (`optimizer`, `activations`)."""

    schedule: str
    balance: tuple[int, ...]
    cluster: Cluster
    memory_bytes: int | None = None
    offload: tuple[str, ...] = ()

    @property
    def is_priced(self) -> bool:
        """Whether it is known what a stage takes where it will run: not of the H100s that stand for no machines."""
        return self.cluster is not H100_NODES

    def hosted(self, step: Graph) -> Hosted:
        """What that is of a step. Which microbatch goes backward at once is not known before it is cut: all may go."""
        machine, host, parts = self.cluster.machine, self.cluster.host, Parts(soon=frozenset())
        moved = cheaper_to_move(step, machine, host, parts) if "activations" in self.offload else frozenset[Value]()
        return Hosted("optimizer" in self.offload, moved)


@dataclass(frozen=True)
class PlacedStep:
    """Blocks, where they are cut into chunks, and the schedule."""

    blocks: Sequence[Block]
    placed: Placed
    schedule: Schedule

    def prices(self) -> list[Price]:
        """What each chunk takes for a microbatch."""
        return chunk_prices(self.blocks, self.placed.cuts)

    def chunk_of(self, step: Graph) -> Mapping[str, int]:
        """The chunk of each block by its name: so other graphs of the same model are cut alike."""
        return names_of(step, self.placed.cuts)


def placed_step(step: Graph, form: Form, devices: int, wanted: Pipeline) -> PlacedStep:
    """Blocks are placed by what the step takes, and where machines are named orders are found by it too.

    Else orders are those of equal halves, as the papers have them: an order that fits the halves of one machine may
    idle for a sixth of the step on another. Raises FormFault, PlaceFault.
    """
    schedule = build(form, devices, step.microbatches)
    blocks = blocks_of(step, wanted.cluster.machine, wanted.cluster.levels[0].link, wanted.hosted(step))
    placement = schedule.shape.placement
    if wanted.balance:
        placed = by_hand(blocks, placement, wanted.balance)
    else:
        there = 2 * max(block.hosted_bytes for block in blocks)  # one block's that is read, one's that comes up
        memory = None if wanted.memory_bytes is None else [wanted.memory_bytes - there] * devices
        flights = [[[-(-n // form.count) for n in one] for one in device] for device in in_flight(schedule)]
        placed = place(blocks, placement, memory, flights, (devices - 1) / (step.microbatches * form.count))
    if wanted.is_priced:
        schedule = build(form, devices, step.microbatches, by_chunk(chunk_prices(blocks, placed.cuts)))
    return PlacedStep(blocks, placed, schedule)
