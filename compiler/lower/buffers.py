"""The buffers of a program as it is written: which are alive, in whose memory they lie, who may write over them.

In: a listing, cut into segments. Of every live buffer its meta tensor is known: shape, strides, and whose memory it is
a view of. From that follows which inputs a call owns (its last reader, and nothing else alive lies in the same memory):
those the module may write over. Parameters, states, data, accumulators and what `prepare` leaves for the microbatches
are never owned. What is a view of a parameter, and is asked for or read once that is written, wants a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..ir.types import Node, Phase, TensorType
from .emit import TORCH_DTYPES, Key, shape, storage
from .kernels import ARGUMENTS
from .listing import NO_PART, Listing, targets
from .outside import argument_name
from .segment import Segment


@dataclass
class Buffers:
    """live: of each buffer its meta tensor; whoever makes or frees one says so here."""

    listing: Listing
    segments: Sequence[Segment]
    live: dict[Key, torch.Tensor] = field(default_factory=dict[Key, torch.Tensor])

    def __post_init__(self) -> None:
        self.nodes: Mapping[str, Node] = self.listing.index()
        self._asked = self.listing.asked()
        self._last = {key: at for at, segment in enumerate(self.segments) for key in segment.inputs}
        self._lasting: set[int] = set()  # memories
        self._seen_by: dict[Key, set[int]] = {}  # in which parts
        self._memory_seen_by: dict[int, set[int]] = {}  # by any name
        self._copies: dict[Key, str] = {}  # what was copied before what it lay in is written
        leaves = [(node.id, node.outs[0]) for node in self.listing.nodes if node.op in ARGUMENTS]
        for key, kind in (*(((name, 0), kind) for name, kind in leaves), *self.listing.accumulators.items()):
            self._outside(key, kind)
        for segment in self.segments:
            for key in (*segment.inputs, *segment.outputs):
                self._seen_by.setdefault(key, set()).add(segment.part)
        self._writes = self._first_writes()

    def _outside(self, key: Key, kind: TensorType) -> None:
        tensor = torch.empty(shape(kind.dims), dtype=TORCH_DTYPES[kind.dtype], device="meta")
        self.live[key] = tensor
        self._lasting.add(storage(tensor))

    def _first_writes(self) -> dict[int, int]:
        """By memory, which segment is the first to assign to it."""
        found: dict[int, int] = {}
        for position, segment in enumerate(self.segments):
            for target in (key for node in segment.nodes for key in targets(node)):
                node = self.nodes[target[0]]
                leaf = target if node.op in ARGUMENTS else node.uses[0].value  # of which the target is the own part
                found.setdefault(storage(self.live[leaf]), position)
        return found

    def name(self, key: Key) -> str:
        """What the buffer of a value is called. An accumulator may outlive the node whose name it has."""
        if key in self._copies:
            return self._copies[key]
        node = self.nodes.get(key[0])
        if node is not None and node.op in ARGUMENTS:
            return argument_name(node)
        return key[0] if key[1] == 0 else f"{key[0]}:{key[1]}"

    def copied(self, key: Key) -> str:
        """The name of a value's copy, which is its buffer from here on."""
        self._copies[key] = f"copy/{self.name(key)}"
        return self._copies[key]

    def enter(self, old: Phase, new: Phase) -> None:
        """Microbatches read what `prepare` left again and again; the update is the last to read an accumulator."""
        if old is Phase.PREPARE:
            self._lasting.update(storage(tensor) for tensor in self.live.values())
        if new is Phase.UPDATE:
            self._lasting -= {storage(self.live[key]) for key in self.listing.accumulators}

    def made(self, segment: Segment) -> None:
        """What a segment has made is seen by whatever part reads it."""
        for key in (key for key in segment.outputs if key in self.live):
            self._memory_seen_by.setdefault(storage(self.live[key]), set()).update(self._seen_by[key])

    def ends(self, key: Key, position: int) -> bool:
        """Whether this segment is the last that may see the buffer."""
        segment = self.segments[position]
        if self._last[key] != position or key in self._asked:
            return False
        if not self._all_before(self._seen_by[key], segment.part):
            return False
        if key in self.listing.accumulators:
            return segment.phase is Phase.UPDATE
        node = self.nodes[key[0]]
        if node.op in ARGUMENTS:
            return node.op == "input" and segment.phase is not Phase.PREPARE
        early = node.phase is Phase.PREPARE and segment.phase in (Phase.FORWARD, Phase.BACKWARD)
        return not early or self.listing.microbatches == 1

    def staying(self, frees: Sequence[Key], position: int) -> set[int]:
        """The memories in which something lies that is alive after these buffers are freed."""
        part, freed = self.segments[position].part, {storage(self.live[key]) for key in frees}
        later = {one for one in freed if not self._all_before(self._memory_seen_by.get(one, set()), part)}
        return {storage(tensor) for key, tensor in self.live.items() if key not in frees} | self._lasting | later

    def outlives(self, key: Key, position: int) -> bool:
        """Whether a value of this segment lies in what is written while it is still to be read, or is asked for."""
        write = self._writes.get(storage(self.live[key]), -1)
        return position < write and (key in self._asked or self._last[key] > write)

    def _all_before(self, parts: set[int], part: int) -> bool:
        """Whether every microbatch has gone through these parts when it comes to a part, which may be one of them."""
        return part == NO_PART or all(self.listing.always_before(other, part) for other in parts - {part, NO_PART})


def written(segment: Segment) -> list[Key]:
    """The parameters and states that a segment may write."""
    nodes = [node for node in segment.nodes if node.op in ("lower.assign", "lower.adamw")]
    inside = {node.id for node in segment.nodes}
    return [use.value for node in nodes for use in node.uses if use.node not in inside]
