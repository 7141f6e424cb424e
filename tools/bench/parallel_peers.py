"""The peers on two processes: PyTorch's own data, sharded-data and tensor parallelism around the plain GPT-2.

DistributedDataParallel with its buckets as gradients; FSDP2's `fully_shard` a block at a time; DTensor's
`parallelize_module` in Megatron's form, with the vocabulary cut in embedding, head and loss. All have fused AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from .peers import GPT2, Block, Shape, load_weights

Step = Callable[[Tensor, Tensor], Tensor]


def adamw(parameters: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """Fused; DTensors and plain tensors in groups of their own, as the fused kernel wants them."""
    groups = [[p for p in parameters if isinstance(p, DTensor) is cut] for cut in (True, False)]
    return torch.optim.AdamW(
        [{"params": group} for group in groups if group], lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )


def trained(model: nn.Module, lr: float) -> Step:
    """Zero, forward, backward, AdamW; the loss of the rows here."""
    optimizer = adamw(list(model.parameters()), lr)

    def step(tokens: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = model(tokens, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def replicated(shape: Shape, weights: Mapping[str, Tensor], lr: float, chunked: bool) -> Step:
    """DistributedDataParallel; each process has its rows."""
    model = GPT2(shape, chunked)
    load_weights(model, weights)
    return trained(DistributedDataParallel(model, gradient_as_bucket_view=True), lr)


def sharded(
    shape: Shape, weights: Mapping[str, Tensor], lr: float, chunked: bool, mesh: DeviceMesh, again: bool
) -> Step:
    """FSDP2, a group for each block. `again`: gathered parameters are dropped after the forward (ZeRO 3), or kept."""
    model = GPT2(shape, chunked)
    load_weights(model, weights)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, reshard_after_forward=again)
    return trained(model, lr)


class _Heads(Block):
    """A block whose fused projection has its rows head by head (H, 3, K), so that a part of them is whole heads."""

    def forward(self, x: Tensor) -> Tensor:
        """x[batch, T, D] -> [batch, T, D]."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(batch, tokens, -1, 3, width // self.heads).permute(3, 0, 2, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = x + self.o(y.transpose(1, 2).reshape(batch, tokens, -1))
        return h + self.down(F.gelu(self.up(self.ln2(h)), approximate="tanh"))


class _Parallel(GPT2):
    """The model whose table is cut along the vocabulary: the head's logits and their loss stay so."""

    def __init__(self, shape: Shape, mesh: DeviceMesh) -> None:
        super().__init__(shape, chunked=False)
        self.mesh = mesh
        self.blocks = nn.ModuleList(_Heads(shape) for _ in range(shape.layers))

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        """tokens[batch, T], target[batch, T] -> scalar."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        h = DTensor.from_local(self.ln_f(x).flatten(0, 1), self.mesh, [Replicate()], run_check=False)
        return F.cross_entropy(F.linear(h, self.wte.weight), target.flatten())


def tensor_parallel(shape: Shape, weights: Mapping[str, Tensor], lr: float, mesh: DeviceMesh) -> Step:
    """DTensor tensor parallelism (Shoeybi et al. 2019): column, then row; every process has all rows."""
    model = _Parallel(shape, mesh)
    load_weights(model, weights)
    plan: dict[str, ParallelStyle] = {
        "wte": RowwiseParallel(input_layouts=Replicate()),
        "blocks.*.qkv": ColwiseParallel(),
        "blocks.*.o": RowwiseParallel(),
        "blocks.*.up": ColwiseParallel(),
        "blocks.*.down": RowwiseParallel(),
    }
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block), "blocks are Block"
            for tensor in (block.qkv.weight, block.qkv.bias):
                apart = tensor.view(3, block.heads, -1, *tensor.shape[1:])
                tensor.copy_(apart.transpose(0, 1).reshape(tensor.shape))
    parallelize_module(model, mesh, plan)
    optimizer = adamw(list(model.parameters()), lr)

    def step(tokens: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with loss_parallel():
            loss = model(tokens, target)
            loss.backward()
        optimizer.step()
        whole = loss.detach()
        return whole.full_tensor() if isinstance(whole, DTensor) else whole

    return step
