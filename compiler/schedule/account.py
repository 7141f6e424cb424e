"""What each stage of a pipeline holds and sends in a step, read off its graph.

In: one device's step graph (no scans), the whole mesh, what a plan says of the pipeline. Out: for each stage the bytes
of parameters (with the copies that are computed with), summed gradients, optimizer states, and activations at their
most: what chunks keep from forward to backward, for as many microbatches as the schedule has in flight; what of it all
lies on the host; and the bytes and messages that it sends along each axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.diagnostic import Diagnostic, SpecError
from ..cost.account import account
from ..ir.graph import Graph
from ..ir.layout import PIPE, Mesh
from ..ir.levels import SEND
from ..ir.types import Node, Phase
from ..ops.shapes import elements
from .blocks import of_optimizer, only_hosted
from .chunks import chunked
from .forms import FormFault, parse_form
from .place import PlaceFault
from .placing import Pipeline, PlacedStep, placed_step
from .simulate import Price, by_chunk, simulate
from .stages import staged
from .verify import BUFFERS, most_in_flight


@dataclass(frozen=True, slots=True)
class StageAccount:
    """Bytes of a device of one stage.

    blocks     first and last of each of its chunks
    in_flight  the most forwards of a chunk, microbatch and slice whose backward is not done
    host_bytes what lies on the device's host, beside it all
    """

    blocks: tuple[tuple[str, str], ...]
    parameter_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int
    in_flight: int
    sent_bytes: Mapping[str, int]
    messages: Mapping[str, int]
    host_bytes: int = 0

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
    kept, there = simulate(found.schedule, by_chunk(found.prices())).peak_bytes, _hosted_bytes(found)
    flying = most_in_flight(found.schedule)
    optimizer = "optimizer" in wanted.offload
    return [
        _account(stage.graph, mesh, found, _Held(device, kept[device], there[device], flying[device], optimizer))
        for device, stage in enumerate(stages["step"])
    ]


@dataclass(frozen=True, slots=True)
class _Held:
    """Activations of a stage at their most: bytes on the device and on its host; optimizer: whether it is there too."""

    device: int
    kept_bytes: int
    hosted_bytes: int
    flying: int
    optimizer: bool


def _hosted_bytes(found: PlacedStep) -> Sequence[int]:
    """The most that lies on each stage's host from forward to backward."""
    sizes = [sum(block.hosted_bytes for block in found.blocks[begin:end]) for begin, end in found.placed.cuts]
    return simulate(found.schedule, by_chunk([Price(0.0, 0.0, 0.0, kept_bytes=size) for size in sizes])).peak_bytes


def _account(graph: Graph, mesh: Mesh, found: PlacedStep, here: _Held) -> StageAccount:
    """What a block's backward reads comes up while the one before it reads its own."""
    held = account(graph, mesh, only_hosted(graph) if here.optimizer else ())
    there = sum(_bytes(graph[name]) for name in of_optimizer(graph)) if here.optimizer else 0
    sent, messages = Counter(held.sent_bytes), Counter(held.messages)
    for node in graph.nodes(SEND):
        times = 1 if node.phase is Phase.UPDATE else graph.microbatches
        sent[PIPE] += times * _size(node)
        messages[PIPE] += times
    cuts = [found.placed.cuts[chunk] for chunk in found.schedule.shape.chunks(here.device)]
    up = 2 * max(block.hosted_bytes for begin, end in cuts for block in found.blocks[begin:end])
    blocks = tuple((found.blocks[begin].name, found.blocks[end - 1].name) for begin, end in cuts)
    return StageAccount(
        blocks, held.parameter_bytes, held.gradient_bytes, held.state_bytes, here.kept_bytes + up, here.flying,
        dict(sent), dict(messages), there + here.hosted_bytes,
    )  # fmt: skip


def _bytes(node: Node) -> int:
    return sum(elements(out.dims) * out.dtype.itemsize_bytes for out in node.outs)


def _size(sent: Node) -> int:
    return elements(sent.uses[0].dims) * sent.uses[0].dtype.itemsize_bytes
