"""Collectives of real processes: torch.distributed, asynchronous, one group for each line of devices along a mesh axis.

In: a collective and the operands here. Out: something to wait for, and the results. What is sent lies in one piece, its
cut axis in front; a tensor that lies so is sent from its place and received in its place. Small members of a bucket
share a message (`parcels.py`); sums of them stay in its memory. The staging is what `compiler/lower/workspace.py`
foretells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import torch
import torch.distributed as dist

from .layout import Mesh, chunk
from .messages import Line, Message
from .parcels import parcels
from .post import Arriving, Post
from .program import Collective, Receive, Send
from .sorted_rows import begun

Tensors = Sequence[torch.Tensor]
Members = tuple[int, ...]  # of a bucket, by place
Way = tuple[str, int, int, int]  # of messages: the axis, the ranks that send and receive, the tag
Unpack = Callable[[torch.Tensor], Tensors]  # what a message gave, as the members that it carried


@dataclass(frozen=True, slots=True)
class Sent:
    """A collective under way: its messages, and what each gives, with the places of its members."""

    messages: Sequence[tuple[Members, Message, Unpack]]

    def ready(self) -> bool:
        """Always: `results` blocks until the others have come."""
        return True

    def results(self) -> Tensors:
        """The outputs."""
        found: dict[int, torch.Tensor] = {}
        for members, message, unpack in self.messages:
            found.update(zip(members, unpack(message.result()), strict=True))
        return [found[at] for at in sorted(found)]


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a mesh: a group for each axis. `gloo` carries them, or NCCL.

    ways: groups of two for messages. NCCL runs all messages of a group in one order, whatever their tags: in one group
    a receive that is begun early would hold up the send that its sender waits for. gloo needs none.
    """

    mesh: Mesh
    rank: int
    groups: Mapping[str, dist.ProcessGroup]
    gloo: bool = True
    ways: Mapping[Way, dist.ProcessGroup] = field(default_factory=dict[Way, dist.ProcessGroup])
    tags: Mapping[str, count[int]] = field(init=False)
    lines: Mapping[str, tuple[int, tuple[int, ...]]] = field(init=False)  # of each axis: its place, and who is there
    post: Post = field(default_factory=Post)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", {axis: count() for axis in self.groups})
        object.__setattr__(self, "lines", {axis: self.mesh.along(self.rank, axis) for axis in self.groups})

    def begin(self, collective: Collective, operands: Tensors, into: Tensors = ()) -> Sent:
        """Begin a collective with the processes that differ from this one along its axis alone."""
        axis = collective.axis
        at, peers = self.lines[axis]
        sent = _Bucket(Line(self.groups[axis], at, peers, self.gloo, self.tags[axis]), collective, operands, into)
        rules = {"all_reduce": sent.all_reduce, "all_gather": sent.all_gather, "reduce_scatter": sent.reduce_scatter}
        rules["all_to_all"] = sent.sorted_rows if collective.groups else sent.all_to_all
        rule, itemsize = rules[collective.kind], operands[0].dtype.itemsize
        return Sent([(members, *rule(members)) for members in parcels(collective, itemsize, self.gloo)])

    def send(self, message: Send, number: int, tensor: torch.Tensor) -> None:
        """Begin to send; first wait for earlier ones of its tag where too many are on their way."""
        peer = self._peer(message.axis, message.to)
        way = self.ways.get((message.axis, self.rank, peer, message.tag))
        there = message if way is None else replace(message, to=int(peer > self.rank))
        self.post.send(way or self.groups[message.axis], there, number, tensor)

    def receive(self, message: Receive, number: int, into: torch.Tensor) -> Arriving:
        """Begin to receive."""
        peer = self._peer(message.axis, message.source)
        way = self.ways.get((message.axis, peer, self.rank, message.tag))
        here = message if way is None else replace(message, source=int(peer > self.rank))
        return self.post.receive(way or self.groups[message.axis], here, number, into)

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        self.post.finish()

    def _peer(self, axis: str, place: int) -> int:
        """The rank of a place of an axis."""
        return self.lines[axis][1][place]


@dataclass(frozen=True, slots=True)
class _Bucket:
    """One device's view of one collective."""

    line: Line
    sent: Collective
    operands: Tensors
    into: Tensors

    def all_reduce(self, members: Members) -> tuple[Message, Unpack]:
        kept = {*self.sent.in_place}
        given = [(self.sent.inputs[at], self.operands[at]) for at in members]
        if len(members) > 1:
            return self._packed([x if name in kept or x.is_contiguous() else x.clone() for name, x in given])
        ((name, operand),) = given
        result = operand if name in kept else operand.clone()
        return self.line.reduce(_flat(result), self.sent.reduction), lambda _: [result]

    def _packed(self, terms: Tensors) -> tuple[Message, Unpack]:
        """Packed, of which the results are parts: nothing is copied back, and no term is needed any more."""
        frames = [(term.shape, term.stride()) for term in terms]
        sizes = [term.numel() for term in terms]

        def unpack(bucket: torch.Tensor) -> Tensors:
            pieces = zip(bucket.split(sizes), frames, strict=True)
            return [piece.as_strided(*frame, piece.storage_offset()) for piece, frame in pieces]

        return self.line.reduce(torch.cat([_flat(term) for term in terms]), self.sent.reduction), unpack

    def all_gather(self, members: Members) -> tuple[Message, Unpack]:
        mine = [self._front(at) for at in members]
        sizes = [self._sizes(at) for at in members]
        whole: torch.Tensor | None = None
        if len(members) == 1 and self.into and self._leads(members[0]):
            whole = self.into[members[0]].view(-1)
        message = self.line.gather(_together(mine), [sum(each) for each in zip(*sizes, strict=True)], whole)

        def unpack(found: torch.Tensor) -> Tensors:
            ranks = found.split([sum(each) for each in zip(*sizes, strict=True)])
            pieces = [rank.split([each[i] for each in sizes]) for i, rank in enumerate(ranks)]
            columns = zip(members, zip(*pieces, strict=True), strict=True)
            return [self._gathered(at, found if len(members) == 1 else torch.cat(column)) for at, column in columns]

        return message, unpack

    def _gathered(self, at: int, flat: torch.Tensor) -> torch.Tensor:
        """A member from its rows, one behind another."""
        whole = self._back(at, flat, self.sent.sizes[at])
        if not self.into:
            return whole
        target = self.into[at]
        return target if target.data_ptr() == whole.data_ptr() else target.copy_(whole)

    def reduce_scatter(self, members: Members) -> tuple[Message, Unpack]:
        sizes = [self._sizes(at) for at in members]
        parts = [self._front(at).split(each) for at, each in zip(members, sizes, strict=True)]
        by_rank = [part for rank in zip(*parts, strict=True) for part in rank]
        flat = self._front(members[0]) if len(members) == 1 else torch.cat(by_rank)
        message = self.line.scatter(flat, [sum(each) for each in zip(*sizes, strict=True)], self.sent.reduction)
        own = self.line.at

        def unpack(found: torch.Tensor) -> Tensors:
            pieces = [found] if len(members) == 1 else [p.clone() for p in found.split([each[own] for each in sizes])]
            return [self._back(at, piece, self._rows(at)[own]) for at, piece in zip(members, pieces, strict=True)]

        return message, unpack

    def all_to_all(self, members: Members) -> tuple[Message, Unpack]:
        (x,), (dim,), join = self.operands, self.sent.dims, self.sent.join
        assert members == (0,), "an all-to-all has one member"
        ours, theirs = self._rows(0), _chunks(self.sent.join_size, len(self.line.ranks))
        parts = [part.reshape(-1) for part in x.split(ours, dim)]
        shapes: list[list[int]] = []
        for other in theirs:
            shape = list(x.shape)
            shape[dim], shape[join] = ours[self.line.at], other
            shapes.append(shape)
        sizes = [math.prod(shape) for shape in shapes]
        message = self.line.swap(torch.cat(parts), [part.numel() for part in parts], sizes)

        def unpack(incoming: torch.Tensor) -> Tensors:
            pieces = zip(incoming.split(sizes), shapes, strict=True)
            return [torch.cat([piece.view(shape) for piece, shape in pieces], join)]

        return message, unpack

    def sorted_rows(self, members: Members) -> tuple[Message, Unpack]:
        """An all-to-all of rows that go to the devices which have their groups, or come back."""
        assert members == (0,), "what else it is given says where its rows go"
        rows = begun(self.sent, self.line.at, len(self.line.ranks), self.operands)
        cut = [piece.numel() for piece in rows.pieces]
        message = self.line.swap(torch.cat(rows.pieces), cut, rows.expected)
        return message, lambda incoming: [rows.arrived(incoming.split(rows.expected))]

    # ---- a member's cut axis

    def _rows(self, at: int) -> list[int]:
        """How much of it each device has."""
        return _chunks(self.sent.sizes[at], len(self.line.ranks))

    def _sizes(self, at: int) -> list[int]:
        """How many elements that is."""
        shape, dim = self.operands[at].shape, self.sent.dims[at]
        rest = math.prod(size for i, size in enumerate(shape) if i != dim)
        return [rows * rest for rows in self._rows(at)]

    def _leads(self, at: int) -> bool:
        """Whether the parts of the tensor lie one behind another."""
        return math.prod(self.operands[at].shape[: self.sent.dims[at]]) == 1

    def _front(self, at: int) -> torch.Tensor:
        """The operand in one piece, its cut axis in front. A line through other memory is one that `reshape` leaves."""
        return self.operands[at].movedim(self.sent.dims[at], 0).reshape(-1).contiguous()

    def _back(self, at: int, flat: torch.Tensor, rows: int) -> torch.Tensor:
        """The cut axis, of so many rows, where it was."""
        dim = self.sent.dims[at]
        rest = [size for i, size in enumerate(self.operands[at].shape) if i != dim]
        return flat.view(rows, *rest).movedim(0, dim).contiguous()


def _chunks(size: int, parts: int) -> list[int]:
    return [chunk(size, parts, i)[1] for i in range(parts)]


def _together(flat: Tensors) -> torch.Tensor:
    return flat[0] if len(flat) == 1 else torch.cat(list(flat))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor's memory in a line, in whatever order its elements lie (the same on every device)."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
