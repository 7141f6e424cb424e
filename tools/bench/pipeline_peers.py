"""The peers of `partita bench pipeline`: torch.distributed.pipelining around the plain GPT-2, cut where ours is.

In: the layers of each chunk, a schedule's class, weights of a Partita store. Out: this process's training step. They
get their best: fused attention, the chunked loss where it is there, fused AdamW, no outputs kept, the mean over
microbatches folded into the loss. Chunks lie on the processes as the schedule has them: round and round, or as a V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.nn import functional as F

from .parallel_peers import adamw
from .peers import GPT2, Shape, load_weights

PeerStep = Callable[[Tensor, Tensor], Tensor]
SINGLE: Mapping[str, Any] = MappingProxyType({"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B})  # a stage each
MULTIPLE: Mapping[str, Any] = MappingProxyType(
    {
        "interleaved(2)": ScheduleInterleaved1F1B,
        "zero_bubble": ScheduleInterleavedZeroBubble,  # of one stage a process: ZB-H1, as ours
        "zero_bubble_v": ScheduleZBVZeroBubble,
    }
)


class Piece(nn.Module):
    """One chunk: some blocks, before the first the embeddings, behind the last the norm; the head is the loss's."""

    def __init__(self, model: GPT2, head: nn.Linear, begin: int, end: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(list(model.blocks)[begin:end])
        self.wte, self.wpe = (model.wte, model.wpe) if begin == 0 else (None, None)
        last = end == len(model.blocks)
        self.ln_f, self.head = (model.ln_f, head) if last else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        """tokens[batch, T] or x[batch, T, D] -> [batch, T, D]."""
        if self.wte is not None and self.wpe is not None:
            x = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            x = block(x)
        return x if self.ln_f is None else self.ln_f(x)


def pipelined(
    shape: Shape,
    weights: Mapping[str, Tensor],
    lr: float,
    *,
    schedule: str,
    layers: Sequence[int],
    placement: Sequence[int],
    microbatches: int,
    chunked: bool,
) -> PeerStep:
    """The step of this process: `layers[c]` layers in chunk c, which is on process `placement[c]`.

    It takes tokens[batch, T] and target[batch, T], and gives the loss on the process of the last chunk, else 0.
    """
    model, head = GPT2(shape, chunked=False), nn.Linear(shape.width, shape.vocabulary, bias=False)
    load_weights(model, weights)
    with torch.no_grad():
        head.weight.copy_(weights["head.w"].t())
    rank, last = dist.get_rank(), len(layers) - 1
    ends = [sum(layers[: chunk + 1]) for chunk in range(len(layers))]
    pieces = {
        chunk: Piece(model, head, ends[chunk] - layers[chunk], ends[chunk])
        for chunk, place in enumerate(placement)
        if place == rank
    }
    device = torch.device("cpu")
    stages = [PipelineStage(piece, chunk, len(layers), device) for chunk, piece in pieces.items()]
    loss = _loss(head.weight, chunked, microbatches)
    kwargs: dict[str, Any] = {"n_microbatches": microbatches, "loss_fn": loss, "scale_grads": False}
    plan: Any = SINGLE[schedule](stages[0], **kwargs) if schedule in SINGLE else MULTIPLE[schedule](stages, **kwargs)
    optimizer = adamw([p for piece in pieces.values() for p in piece.parameters()], lr)
    del model, head

    def step(tokens: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        given = (tokens,) if 0 in pieces else ()
        losses: list[Tensor] = []
        named = {"target": target, "losses": losses} if last in pieces else {}
        plan.step(*given, **named, return_outputs=False)
        optimizer.step()
        return torch.stack(losses).detach().sum() if losses else torch.zeros(())

    return step


def _loss(weight: Tensor, chunked: bool, microbatches: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean over a microbatch's tokens, as its part of the mean over all."""

    def loss(h: Tensor, target: Tensor) -> Tensor:
        rows, ids = h.flatten(0, 1), target.flatten()
        if chunked:
            return F.linear_cross_entropy(rows, weight, ids, options=nn.LinearCrossEntropyOptions()) / microbatches
        return F.cross_entropy(F.linear(rows, weight), ids) / microbatches

    return loss
