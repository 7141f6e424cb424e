"""Flat messages along one axis of the mesh: what gloo or NCCL is asked for. `collectives.py` says what they mean.

In: tensors in one piece, the parts that each device has of them. Out: the work under way and what comes of it. Over
gloo, gathers and scatters are messages from device to device that go from and to where the tensors lie, and terms are
summed in the order of the axis: torch's own (ProcessGroupGloo.cpp) gather into a copy of the whole, and scatter from
one, which took twice the time and that memory. All else has gloo's or NCCL's own collective, of equal padded parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType

import torch
import torch.distributed as dist

OPS = MappingProxyType({"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX})
JOINED = MappingProxyType({"sum": torch.add, "max": torch.maximum})


@dataclass(frozen=True, slots=True)
class Message:
    """Messages under way: `finish` gives the result once all `works` are done. `kept` is read until then."""

    works: Sequence[dist.Work]
    finish: Callable[[], torch.Tensor]
    kept: Sequence[torch.Tensor] = ()

    def result(self) -> torch.Tensor:
        """Blocks until the others have come; on CUDA, the stream that calls waits."""
        for work in self.works:
            work.wait()
        return self.finish()


@dataclass(frozen=True, slots=True)
class Line:
    """The devices that differ along one axis alone; this is number `at` of `ranks`. `tags` numbers what is sent."""

    group: dist.ProcessGroup
    at: int
    ranks: tuple[int, ...]
    gloo: bool
    tags: count[int]

    def reduce(self, flat: torch.Tensor, reduction: str) -> Message:
        """Joins the terms of all, in place."""
        work = dist.all_reduce(flat, OPS[reduction], self.group, async_op=True)
        return Message(_works(work), lambda: flat)

    def gather(self, mine: torch.Tensor, sizes: Sequence[int], whole: torch.Tensor | None) -> Message:
        """The parts of all, of these sizes, one behind another: into `whole`, of which `mine` may be the part."""
        if whole is None:
            whole = mine.new_empty(sum(sizes))
        if self.gloo:
            return self._gather_directly(mine, sizes, whole)
        most = max(sizes)
        even = sum(sizes) == most * len(sizes)
        target = whole if even else mine.new_empty(most * len(sizes))
        work = dist.all_gather_single(target, _padded(mine, most), self.group, async_op=True)

        def finish() -> torch.Tensor:
            for part, padded in zip(whole.split(list(sizes)), target.split(most), strict=True):
                if not even:
                    part.copy_(padded[: part.numel()])
            return whole

        return Message(_works(work), finish, (mine,))

    def _gather_directly(self, mine: torch.Tensor, sizes: Sequence[int], whole: torch.Tensor) -> Message:
        parts = whole.split(list(sizes))
        if parts[self.at].data_ptr() != mine.data_ptr():
            parts[self.at].copy_(mine)
        works = self._exchange([mine] * len(parts), parts)
        return Message(works, lambda: whole, (mine,))

    def scatter(self, whole: torch.Tensor, sizes: Sequence[int], reduction: str) -> Message:
        """The joined terms of all, of which each device keeps its part."""
        if self.gloo:
            return self._scatter_directly(whole, sizes, reduction)
        most, own = max(sizes), sizes[self.at]
        sent = torch.cat([_padded(part, most) for part in whole.split(list(sizes))]) if len({*sizes}) > 1 else whole
        found = whole.new_empty(most)
        work = dist.reduce_scatter_single(found, sent, OPS[reduction], self.group, async_op=True)
        return Message(_works(work), lambda: found[:own], (sent,))

    def _scatter_directly(self, whole: torch.Tensor, sizes: Sequence[int], reduction: str) -> Message:
        parts = whole.split(list(sizes))
        own = parts[self.at]
        terms = [own if other == self.at else torch.empty_like(own) for other in range(len(parts))]

        def finish() -> torch.Tensor:
            total = terms[0]
            for term in terms[1:]:
                total = JOINED[reduction](total, term)
            return total

        return Message(self._exchange(parts, terms), finish, (whole,))

    def _exchange(self, to: Sequence[torch.Tensor], come: Sequence[torch.Tensor]) -> list[dist.Work]:
        """Send each other device its own, and take what it sends. Nothing is sent that has no elements."""
        tag = next(self.tags)
        works: list[dist.Work | None] = []
        for other, rank in enumerate(self.ranks):
            if other != self.at and come[other].numel():
                works.append(dist.irecv(come[other], rank, self.group, tag))
        for other, rank in enumerate(self.ranks):
            if other != self.at and to[other].numel():
                works.append(dist.isend(to[other], rank, self.group, tag))
        return _works(*works)

    def swap(self, outgoing: torch.Tensor, cut: Sequence[int], sizes: Sequence[int]) -> Message:
        """To each device its part of `outgoing`, from each what it sends here, one behind another."""
        incoming = outgoing.new_empty(sum(sizes))
        work = dist.all_to_all_single(incoming, outgoing, list(sizes), list(cut), self.group, async_op=True)
        return Message(_works(work), lambda: incoming, (outgoing,))


def _works(*works: dist.Work | None) -> list[dist.Work]:
    """Those that are to be waited for."""
    return [work for work in works if work is not None]


def _padded(flat: torch.Tensor, size: int) -> torch.Tensor:
    return flat if flat.numel() == size else torch.cat([flat, flat.new_zeros(size - flat.numel())])
