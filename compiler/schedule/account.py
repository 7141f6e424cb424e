"""What each stage of a pipeline holds and sends in a step, read off its graph.

In: one device's step graph (no scans), the whole mesh, what a plan says of the pipeline. Out: for each stage the bytes
of parameters (with the copies that are computed with), summed gradients, optimizer states, and activations at their
most: what chunks keep from forward to backward, for as many microbatches as the schedule has in flight; and the bytes
and messages that it sends along each axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..base.diagnostic import Diagnostic, SpecError
from ..cost.account import account
from ..ir.graph import Graph
from ..ir.layout import PIPE, Mesh
from ..ir.levels import SEND
from ..ir.types import Node, Phase
from ..ops.shapes import elements
from .chunks import chunked
from .forms import FormFault, parse_form
from .place import PlaceFault
from .placing import Pipeline, PlacedStep, placed_step
from .simulate import by_chunk, simulate
from .stages import staged
from .verify import BUFFERS, most_in_flight


@dataclass(frozen=True, slots=True)
class StageAccount:
    """Bytes of a device of one stage.

    blocks     first and last of each of its chunks
    in_flight  the most forwards of a chunk, microbatch and slice whose backward is not done
    """

    blocks: tuple[tuple[str, str], ...]
    parameter_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int
    in_flight: int
    sent_bytes: Mapping[str, int]
    messages: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        """Of all that it holds; what an operator needs only while it runs is not counted."""
        return self.parameter_bytes + self.gradient_bytes + self.state_bytes + self.activation_bytes


def stage_accounts(step: Graph, mesh: Mesh, wanted: Pipeline) -> list[StageAccount]:
    """The account of each stage. Raises SpecError E0946 where there is no such pipeline."""
    form, devices = parse_form(wanted.schedule), mesh.size(PIPE)
    try:
        found = placed_step(step, form, devices, wanted)
    except (FormFault, PlaceFault) as fault:
        raise SpecError(Diagnostic("E0946", str(fault), hint=fault.hint)) from None
    shape = found.schedule.shape
    cut = chunked(step, found.chunk_of(step), shape.placement, max(shape.slices))
    stages, _ = staged({"step": (cut, found.schedule)}, BUFFERS)
    kept = simulate(found.schedule, by_chunk(found.prices())).peak_bytes
    flying = most_in_flight(found.schedule)
    return [
        _account(stage.graph, mesh, found, device, kept[device], flying[device])
        for device, stage in enumerate(stages["step"])
    ]


def _account(graph: Graph, mesh: Mesh, found: PlacedStep, device: int, kept: int, flying: int) -> StageAccount:
    held = account(graph, mesh)
    sent, messages = Counter(held.sent_bytes), Counter(held.messages)
    for node in graph.nodes(SEND):
        times = 1 if node.phase is Phase.UPDATE else graph.microbatches
        sent[PIPE] += times * _size(node)
        messages[PIPE] += times
    cuts = [found.placed.cuts[chunk] for chunk in found.schedule.shape.chunks(device)]
    blocks = tuple((found.blocks[begin].name, found.blocks[end - 1].name) for begin, end in cuts)
    return StageAccount(
        blocks, held.parameter_bytes, held.gradient_bytes, held.state_bytes, kept, flying, dict(sent), dict(messages)
    )


def _size(sent: Node) -> int:
    return elements(sent.uses[0].dims) * sent.uses[0].dtype.itemsize_bytes
