"""Collectives of real processes: torch.distributed, asynchronous, one group for each line of devices along a mesh axis.

In: a collective and the operands here. Out: something to wait for, and the results. What is sent lies in one piece,
its cut axis in front, padded to equal parts (gloo gathers no uneven parts and sends nothing that is not contiguous): by
the chunk rule all padding then lies at the very end. The staging is what `compiler/lower/workspace.py` foretells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.distributed as dist

from .layout import Mesh, chunk
from .program import Collective
from .sorted_rows import begun

Finish = Callable[[], Sequence[torch.Tensor]]

OPS = MappingProxyType({"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX})


@dataclass(frozen=True, slots=True)
class Sent:
    """A collective under way. It keeps what is read and written until it is done."""

    work: dist.Work | None
    finish: Finish

    def ready(self) -> bool:
        """Always: `results` blocks until the others have come."""
        return True

    def results(self) -> Sequence[torch.Tensor]:
        """The outputs."""
        if self.work is not None:
            self.work.wait()
        return self.finish()


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a mesh: a group for each axis."""

    mesh: Mesh
    rank: int
    groups: Mapping[str, dist.ProcessGroup]

    def begin(self, collective: Collective, operands: Sequence[torch.Tensor]) -> Sent:
        """Begin a collective with the processes that differ from this one along its axis alone."""
        at, peers = self.mesh.along(self.rank, collective.axis)
        line = _Line(self.groups[collective.axis], at, len(peers), collective)
        if collective.kind == "all_reduce":
            return line.all_reduce(operands)
        if collective.groups:
            return line.rows(operands)
        (operand,) = operands
        rules = {"all_gather": line.all_gather, "reduce_scatter": line.reduce_scatter, "all_to_all": line.all_to_all}
        return rules[collective.kind](operand)


@dataclass(frozen=True, slots=True)
class _Line:
    """One device's view of one collective: it is number `at` of `count`."""

    group: dist.ProcessGroup
    at: int
    count: int
    sent: Collective

    def all_reduce(self, operands: Sequence[torch.Tensor]) -> Sent:
        kept = {*self.sent.in_place}
        results = [x if n in kept else x.clone() for n, x in zip(self.sent.inputs, operands, strict=True)]
        flat = [_flat(result) for result in results]
        if len(flat) == 1:
            work = dist.all_reduce(flat[0], OPS[self.sent.reduction], self.group, async_op=True)
            return Sent(work, lambda: results)
        bucket = torch.cat(flat)
        work = dist.all_reduce(bucket, OPS[self.sent.reduction], self.group, async_op=True)

        def finish() -> Sequence[torch.Tensor]:
            for target, part in zip(flat, bucket.split([f.numel() for f in flat]), strict=True):
                target.copy_(part)
            return results

        return Sent(work, finish)

    def all_gather(self, x: torch.Tensor) -> Sent:
        dim, size = self.sent.dim, self.sent.size
        piece = _padded(x.movedim(dim, 0), -(-size // self.count))
        whole = piece.new_empty((self.count * piece.shape[0], *piece.shape[1:]))
        work = dist.all_gather_single(whole, piece, self.group, async_op=True)
        return Sent(work, lambda: [_dense(whole[:size].movedim(0, dim))])

    def reduce_scatter(self, x: torch.Tensor) -> Sent:
        dim, size = self.sent.dim, self.sent.size
        each = -(-size // self.count)
        whole = _padded(x.movedim(dim, 0), self.count * each)
        piece = whole.new_empty((each, *whole.shape[1:]))
        work = dist.reduce_scatter_single(piece, whole, OPS[self.sent.reduction], self.group, async_op=True)
        mine = chunk(size, self.count, self.at)[1]
        # `whole` is read until the work is done
        return Sent(work, lambda: [_dense(piece[:mine].movedim(0, dim))] if whole.numel() + 1 else [])

    def rows(self, operands: Sequence[torch.Tensor]) -> Sent:
        rows = begun(self.sent, self.at, self.count, operands)
        outgoing = torch.cat(rows.pieces)
        incoming = outgoing.new_empty(sum(rows.expected))
        cut = [piece.numel() for piece in rows.pieces]
        work = dist.all_to_all_single(incoming, outgoing, rows.expected, cut, self.group, async_op=True)

        def finish() -> Sequence[torch.Tensor]:
            assert sum(cut) == outgoing.numel(), "what is sent is kept until here"
            return [rows.arrived(incoming.split(rows.expected))]

        return Sent(work, finish)

    def all_to_all(self, x: torch.Tensor) -> Sent:
        dim, join = self.sent.dim, self.sent.join
        parts = [x.narrow(dim, *chunk(self.sent.size, self.count, i)) for i in range(self.count)]
        outgoing = torch.cat([part.reshape(-1) for part in parts])
        mine, theirs = (
            chunk(self.sent.size, self.count, self.at)[1],
            [chunk(self.sent.join_size, self.count, i)[1] for i in range(self.count)],
        )
        shapes: list[list[int]] = []
        for other in theirs:
            shape = list(x.shape)
            shape[dim], shape[join] = mine, other
            shapes.append(shape)
        sizes = [math.prod(shape) for shape in shapes]
        incoming = outgoing.new_empty(sum(sizes))
        cut = [part.numel() for part in parts]
        work = dist.all_to_all_single(incoming, outgoing, sizes, cut, self.group, async_op=True)

        def finish() -> Sequence[torch.Tensor]:
            pieces = zip(incoming.split(sizes), shapes, strict=True)
            assert len(cut) == self.count, f"{outgoing.numel()} elements were sent"  # and kept until here
            return [torch.cat([piece.view(shape) for piece, shape in pieces], join)]

        return Sent(work, finish)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor's memory in a line, in whatever order its elements lie (the same on every device)."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Contiguous, with `rows` rows; itself where it is that."""
    if tensor.shape[0] == rows:
        return tensor.contiguous()
    return torch.cat([tensor, tensor.new_zeros((rows - tensor.shape[0], *tensor.shape[1:]))])


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous()
