"""Messages from one device of a mesh to another: between the stages of a pipeline.

In: what a program says of a message, the microbatch that it is of, the tensor. Sending goes on beside the computation;
what is sent is kept until it has left, and no more of a kind are on their way than the program allows. The wire's tag
holds the message's own and the microbatch, so that either side may begin its messages in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from .program import Receive, Send

MOST_MICROBATCHES = 1 << 16  # of a step: the wire's tag has room for as many


@dataclass(frozen=True, slots=True)
class Arriving:
    """A message that is on its way here."""

    work: dist.Work
    into: torch.Tensor

    def ready(self) -> bool:
        """Always: `results` blocks until it is here."""
        return True

    def results(self) -> Sequence[torch.Tensor]:
        """The tensor."""
        self.work.wait()
        return [self.into]


@dataclass(slots=True)
class Post:
    """What has been sent and has not left yet, by the tag of its kind."""

    leaving: dict[int, deque[tuple[dist.Work, torch.Tensor]]] = field(
        default_factory=dict[int, deque[tuple[dist.Work, torch.Tensor]]]
    )

    def send(self, group: dist.ProcessGroup, message: Send, number: int, tensor: torch.Tensor) -> None:
        """Begin to send. Raises RuntimeError where the receiver is gone, or takes nothing for too long."""
        queue = self.leaving.setdefault(message.tag, deque())
        while queue and (len(queue) >= message.ahead or queue[0][0].is_completed()):
            queue.popleft()[0].wait()
        dense = tensor.contiguous()
        work = dist.isend(dense, group=group, tag=wire_tag(message.tag, number), group_dst=message.to)
        assert work is not None, "this process is of the group"
        queue.append((work, dense))

    def receive(self, group: dist.ProcessGroup, message: Receive, number: int, into: torch.Tensor) -> Arriving:
        """Begin to receive."""
        work = dist.irecv(into, group=group, tag=wire_tag(message.tag, number), group_src=message.source)
        assert work is not None, "this process is of the group"
        return Arriving(work, into)

    def finish(self) -> None:
        """Wait for all."""
        for queue in self.leaving.values():
            while queue:
                queue.popleft()[0].wait()


def wire_tag(tag: int, number: int) -> int:
    """One number for a message and its microbatch (-1: of none)."""
    return tag * MOST_MICROBATCHES + number + 1
