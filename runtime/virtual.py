"""All devices of a mesh in one process, running the very modules and instructions that processes run.

In: a build and the whole parameters, states and data. Out: what each device gives, and the whole tensors again.
Collectives are exact and deterministic: sums run in the order of the axis. Devices take turns and stop where they must
wait for others; if all wait, or devices that meet ask for different things, that is a fault of the program.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch

from .execute import Executable, Store
from .layout import chunk, part
from .program import Build, Collective, Input, Receive, Send
from .sorted_rows import Rows, begun
from .state import tensors_of

JOINED = MappingProxyType({"sum": torch.add, "max": torch.maximum})


class ClusterError(Exception):
    """The devices' programs do not fit together."""


# ---- collectives


@dataclass(slots=True)
class _Meeting:
    """One collective of the devices of one group: who has come, and with what."""

    collective: Collective
    came: dict[int, list[torch.Tensor]] = field(default_factory=dict[int, list[torch.Tensor]])
    rows: dict[int, Rows] = field(default_factory=dict[int, Rows])  # of sorted rows, what each sends and expects
    results: dict[int, list[torch.Tensor]] = field(default_factory=dict[int, list[torch.Tensor]])


@dataclass(slots=True)
class _Hall:
    """Where the devices meet: each group's collectives, by their number within the group."""

    build: Build
    comings: int = 0
    meetings: dict[tuple[tuple[int, ...], str, int], _Meeting] = field(
        default_factory=dict[tuple[tuple[int, ...], str, int], _Meeting]
    )

    mail: dict[tuple[int, int, int, int], tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=dict[tuple[int, int, int, int], tuple[torch.Tensor, torch.Tensor]]
    )  # what lies in the sender's memory, and what lay there when it was sent

    def come(
        self, rank: int, number: int, sent: Collective, operands: Sequence[torch.Tensor], into: Sequence[torch.Tensor]
    ) -> _Attendance:
        at, peers = self.build.mesh.along(rank, sent.axis)
        self.comings += 1
        meeting = self.meetings.setdefault((peers, sent.axis, number), _Meeting(sent))
        if _asked(meeting.collective) != _asked(sent):
            raise ClusterError(f"device {rank} begins {_asked(sent)} where another begins {_asked(meeting.collective)}")
        meeting.came[at] = list(operands)
        if sent.groups:
            meeting.rows[at] = begun(sent, at, len(peers), operands)
        if len(meeting.came) == len(peers):
            together = [meeting.came[i] for i in range(len(peers))]
            rows = [meeting.rows[i] for i in sorted(meeting.rows)]
            meeting.results = dict(enumerate(exchanged(rows) if rows else combined(sent, together)))
            del self.meetings[peers, sent.axis, number]
        return _Attendance(meeting, at, into)


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message that is awaited: it is there when it has been sent."""

    hall: _Hall
    key: tuple[int, int, int, int]
    into: torch.Tensor

    def ready(self) -> bool:
        return self.key in self.hall.mail

    def results(self) -> Sequence[torch.Tensor]:
        now, sent = self.hall.mail.pop(self.key)
        if not torch.allclose(now, sent, rtol=0, atol=0, equal_nan=True):
            sender, receiver, tag, _ = self.key
            raise ClusterError(f"device {sender} writes over message {tag} before {receiver} has taken it")
        if (sent.shape, sent.dtype) != (self.into.shape, self.into.dtype):
            raise ClusterError(f"device {self.key[0]} sends {list(sent.shape)}, {self.key[1]} takes {self.into.shape}")
        return [self.into.copy_(sent)]


def _asked(sent: Collective) -> tuple[object, ...]:
    """What all devices of a group must agree in."""
    how = (sent.kind, sent.axis, sent.dtype, sent.reduction)
    return (*how, sent.dims, sent.sizes, sent.join, sent.groups, len(sent.inputs))


@dataclass(frozen=True, slots=True)
class _Attendance:
    meeting: _Meeting
    at: int
    into: Sequence[torch.Tensor]

    def ready(self) -> bool:
        return bool(self.meeting.results)

    def results(self) -> Sequence[torch.Tensor]:
        assert self.meeting.results, "not all devices have come"
        results = self.meeting.results.pop(self.at)
        return [whole.copy_(result) for whole, result in zip(self.into, results, strict=True)] if self.into else results


def combined(sent: Collective, operands: Sequence[Sequence[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """What each device gets, given what all sent, in the order of the axis."""
    results = [_combined(sent, at, one) for at, one in enumerate(zip(*operands, strict=True))]
    return [list(mine) for mine in zip(*results, strict=True)]


def exchanged(devices: Sequence[Rows]) -> list[list[torch.Tensor]]:
    """What each device gets of the rows that all send."""
    for mine in devices:
        sizes = [other.pieces[mine.at].numel() for other in devices]
        if sizes != mine.expected:
            raise ClusterError(f"number {mine.at} of the axis expects {mine.expected} elements and gets {sizes}")
    return [[mine.arrived([other.pieces[mine.at] for other in devices])] for mine in devices]


def _combined(sent: Collective, at: int, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    count, dim, size = len(parts), sent.dims[at] if sent.dims else 0, sent.sizes[at] if sent.sizes else 0
    if sent.kind == "all_gather":
        whole = torch.cat(list(parts), dim)
        return [whole.clone(memory_format=torch.contiguous_format) for _ in parts]
    if sent.kind == "all_to_all":
        cut = [_chunks(tensor, dim, size, count) for tensor in parts]
        return [torch.cat([cut[i][j] for i in range(count)], sent.join).contiguous() for j in range(count)]
    total = parts[0].clone()
    for other in parts[1:]:
        total = JOINED[sent.reduction](total, other)
    if sent.kind == "all_reduce":
        return [torch.empty_like(tensor).copy_(total) for tensor in parts]
    return [one.clone(memory_format=torch.contiguous_format) for one in _chunks(total, dim, size, count)]


def _chunks(tensor: torch.Tensor, dim: int, size: int, count: int) -> list[torch.Tensor]:
    return [tensor.narrow(dim, *chunk(size, count, i)) for i in range(count)]


@dataclass(slots=True)
class _Device:
    """One device's way into the hall. Collectives of an axis are met in the order in which they are begun."""

    rank: int
    hall: _Hall
    begun: dict[str, int] = field(default_factory=dict[str, int])

    def begin(
        self, collective: Collective, operands: Sequence[torch.Tensor], into: Sequence[torch.Tensor] = ()
    ) -> _Attendance:
        number = self.begun.get(collective.axis, 0)
        self.begun[collective.axis] = number + 1
        return self.hall.come(self.rank, number, collective, operands, into)

    def send(self, message: Send, number: int, tensor: torch.Tensor) -> None:
        key = (self.rank, self._peer(message.axis, message.to), message.tag, number)
        if key in self.hall.mail:
            raise ClusterError(f"device {self.rank} sends message {message.tag} of microbatch {number} twice")
        self.hall.comings += 1
        self.hall.mail[key] = (tensor, tensor.clone())

    def receive(self, message: Receive, number: int, into: torch.Tensor) -> _Letter:
        return _Letter(self.hall, (self._peer(message.axis, message.source), self.rank, message.tag, number), into)

    def finish(self) -> None:
        """Letters lie in the hall."""

    def _peer(self, axis: str, place: int) -> int:
        return self.hall.build.mesh.along(self.rank, axis)[1][place]


# ---- the cluster


@dataclass(frozen=True, slots=True)
class Cluster:
    """A loaded build (`folder.load`, `folder.executable`) on every device of its mesh."""

    executable: Executable

    @property
    def build(self) -> Build:
        """What runs."""
        return self.executable.build

    @torch.no_grad()
    def run(
        self,
        name: str,
        stores: Sequence[Store],
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        bound: float = math.inf,
    ) -> list[dict[str, torch.Tensor]]:
        """One run of a program on all devices, rank by rank what each gives.

        stores  each device's part of parameters and states; written in place
        data    for each microbatch its whole inputs by name
        bound   a loss above it updates nothing
        """
        hall = _Hall(self.build)
        running: dict[int, Generator[None, None, dict[str, torch.Tensor]]] = {}
        for rank, store in enumerate(stores):
            device = replace(self.executable, communicator=_Device(rank, hall))
            rows = [cut_inputs(self.build, device.programs[name].inputs, rank, whole) for whole in data]
            running[rank] = device.steps(name, store, rows, step, seed, bound=bound)
        found: dict[int, dict[str, torch.Tensor]] = {}
        while running:
            before = hall.comings + len(found)
            for rank, steps in list(running.items()):
                try:
                    next(steps)
                except StopIteration as end:
                    found[rank] = end.value
                    del running[rank]
            if running and before == hall.comings + len(found):
                raise ClusterError(f"devices {sorted(running)} wait for one another")
        if hall.mail:
            raise ClusterError(f"{len(hall.mail)} messages were sent that nobody takes")
        if hall.meetings:
            raise ClusterError(f"{len(hall.meetings)} collectives were begun by some devices only")
        return [found[rank] for rank in range(len(stores))]

    def split(self, store: Mapping[str, torch.Tensor]) -> list[Store]:
        """Whole parameters and states cut for every device. Copies."""
        items = tensors_of(self.build)
        return [
            {
                name: _cut(store[name], *self.build.part_of(item, rank))
                for name, item in items.items()
                if name in store and self.build.has(item, rank)
            }
            for rank in range(self.build.mesh.size)
        ]

    def join(self, stores: Sequence[Store]) -> Store:
        """The whole tensors again. Raises `ClusterError` where copies of one part differ."""
        found: Store = {}
        for name, item in tensors_of(self.build).items():
            having = [rank for rank, store in enumerate(stores) if name in store]
            if not having:
                continue
            whole = torch.empty(item.shape, dtype=stores[having[0]][name].dtype)
            seen: dict[object, torch.Tensor] = {}
            for rank in having:
                store = stores[rank]
                offsets, sizes = self.build.part_of(item, rank)
                first = seen.setdefault((offsets, sizes), store[name])
                if not torch.equal(first, store[name]) and not bool(first.isnan().any()):
                    raise ClusterError(f"device {rank} holds another {name} than a device with the same part")
                _view(whole, offsets, sizes).copy_(store[name])
            found[name] = whole
        return found


def cut_inputs(
    build: Build, inputs: Sequence[Input], rank: int, whole: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A device's part of a microbatch."""
    found: dict[str, torch.Tensor] = {}
    for item in inputs:
        if item.source == "data":
            shape = item.whole or item.shape
            found[item.name] = _cut(whole[item.name], *part(shape, item.layout, build.mesh, rank))
    return found


def _cut(whole: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    return _view(whole, offsets, sizes).clone(memory_format=torch.contiguous_format)


def _view(whole: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    for position, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        whole = whole.narrow(position, offset, size)
    return whole
