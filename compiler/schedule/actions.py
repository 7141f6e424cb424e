"""What a pipeline schedule is: for every device an ordered list of actions. Data, and nothing but data.

A model is cut into `chunks`, chunk after chunk along the chain of its blocks; `placement[c]` is the device that holds
chunk c (GPipe and 1F1B: one chunk a device; interleaved: several, round and round; V: down and up again). A step's rows
are cut into microbatches, and each microbatch into `slices[m]` token slices (one: not cut). What a chunk does for one
slice of one microbatch is an action; so is each message between devices, and once a step what the gradients need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What an action does. BACKWARD is both halves at once; INPUT is the gradient of the chunk's input, WEIGHT that of
    its parameters. An activation goes to the next chunk, a gradient to the previous one. Fetches are no schedule's own:
    `copies.py` puts them into a stage's order, where what a backward, or its weights' half, reads is on the host."""

    FORWARD = "forward"
    BACKWARD = "backward"
    INPUT = "backward input"
    WEIGHT = "backward weight"
    SEND_ACTIVATION = "send activation"
    RECEIVE_ACTIVATION = "receive activation"
    SEND_GRADIENT = "send gradient"
    RECEIVE_GRADIENT = "receive gradient"
    FETCH = "fetch"
    FETCH_WEIGHT = "fetch weight"
    REDUCE = "reduce"
    UPDATE = "update"


COMPUTE = frozenset({Kind.FORWARD, Kind.BACKWARD, Kind.INPUT, Kind.WEIGHT})
SENDS = frozenset({Kind.SEND_ACTIVATION, Kind.SEND_GRADIENT})
RECEIVES = frozenset({Kind.RECEIVE_ACTIVATION, Kind.RECEIVE_GRADIENT})
FETCHES = frozenset({Kind.FETCH, Kind.FETCH_WEIGHT})


class Action(NamedTuple):
    """One action of a device; a named tuple, because a large schedule has a million of them.

    `chunk` is this device's own: what SEND_ACTIVATION of chunk c sends, RECEIVE_ACTIVATION of chunk c + 1 receives;
    what SEND_GRADIENT of chunk c sends, RECEIVE_GRADIENT of chunk c - 1. REDUCE is of a chunk alone, UPDATE of the
    device; what does not apply is 0.
    """

    kind: Kind
    microbatch: int = 0
    chunk: int = 0
    slice: int = 0

    def __str__(self) -> str:
        if self.kind is Kind.UPDATE:
            return "update"
        if self.kind is Kind.REDUCE:
            return f"reduce of chunk {self.chunk}"
        part = f", slice {self.slice}" if self.slice else ""
        return f"{self.kind.value} of microbatch {self.microbatch}, chunk {self.chunk}{part}"


Orders = Sequence[Sequence[Action]]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schedule is for: the device of each chunk, and the number of slices of each microbatch."""

    placement: tuple[int, ...]
    slices: tuple[int, ...]

    @property
    def devices(self) -> int:
        """How many devices hold a chunk."""
        return max(self.placement) + 1

    @property
    def microbatches(self) -> int:
        """How many microbatches a step has."""
        return len(self.slices)

    @property
    def last(self) -> int:
        """The last chunk, which computes the loss."""
        return len(self.placement) - 1

    def chunks(self, device: int) -> tuple[int, ...]:
        """The chunks that a device holds, in order."""
        return tuple(c for c, home in enumerate(self.placement) if home == device)

    def units(self) -> Iterator[tuple[int, int]]:
        """Every (microbatch, slice), in the order of the forward."""
        for microbatch, slices in enumerate(self.slices):
            for part in range(slices):
                yield microbatch, part

    def backward_units(self) -> Iterator[tuple[int, int]]:
        """Every (microbatch, slice), a microbatch's slices in reverse: later ones read the earlier ones' keys."""
        for microbatch, slices in enumerate(self.slices):
            for part in reversed(range(slices)):
                yield microbatch, part


@dataclass(frozen=True, slots=True)
class Schedule:
    """`actions[d]` is what device d does, in order; `name` is what it was asked for as."""

    name: str
    shape: Shape
    actions: tuple[tuple[Action, ...], ...]


def one_chunk_each(devices: int) -> tuple[int, ...]:
    """Chunk c on device c."""
    return tuple(range(devices))


def looped(devices: int, chunks_each: int) -> tuple[int, ...]:
    """Round and round: chunk c on device c mod p."""
    return tuple(range(devices)) * chunks_each


def vee(devices: int) -> tuple[int, ...]:
    """Down and up again: device d holds chunks d and 2p - 1 - d, so the loss is on the device that begins."""
    return (*range(devices), *reversed(range(devices)))


def route(action: Action, shape: Shape) -> tuple[int, int]:
    """The devices (from, to) of a message's action."""
    here = shape.placement[action.chunk]
    if action.kind in (Kind.SEND_ACTIVATION, Kind.RECEIVE_GRADIENT):
        other = shape.placement[action.chunk + 1]
    else:
        other = shape.placement[action.chunk - 1]
    return (here, other) if action.kind in SENDS else (other, here)


def receiver(send: Action) -> Action:
    """The receive that a send belongs to."""
    if send.kind is Kind.SEND_ACTIVATION:
        return Action(Kind.RECEIVE_ACTIVATION, send.microbatch, send.chunk + 1, send.slice)
    assert send.kind is Kind.SEND_GRADIENT, f"{send} is no send"
    return Action(Kind.RECEIVE_GRADIENT, send.microbatch, send.chunk - 1, send.slice)
