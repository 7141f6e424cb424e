"""The peer: a plain PyTorch GPT-2 as its users write it, with autograd and PyTorch's best parts.

Fused query-key-value projection, `scaled_dot_product_attention`, fused AdamW and, where it exists, the chunked
`F.linear_cross_entropy`; eager or through `torch.compile`. Weights are taken from a Partita store by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2 (layers to the longest context), and of its batch: row length, rows."""

    layers: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    context: int
    tokens: int
    rows: int


class Block(nn.Module):
    """Pre-norm transformer block (Radford et al. 2019), dropout 0."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.ln1 = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.o = nn.Linear(shape.width, shape.width)
        self.ln2 = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """x[batch, T, D] -> [batch, T, D]."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = x + self.o(y.transpose(1, 2).reshape(batch, tokens, width))
        return h + self.down(F.gelu(self.up(self.ln2(h)), approximate="tanh"))


Run = Callable[[nn.Module, Tensor], Tensor]  # a block on x[batch, T, D]: as it stands, or with some of it made again


def _run(block: nn.Module, x: Tensor) -> Tensor:
    return block(x)


class GPT2(nn.Module):
    """GPT-2 with tied head; `forward` gives the mean loss, by `F.linear_cross_entropy`'s chunks if `chunked`."""

    def __init__(self, shape: Shape, chunked: bool, run: Run | None = None) -> None:
        super().__init__()
        self.chunked = chunked
        self.run_block: Run = run or _run
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        """tokens[batch, T], target[batch, T] -> scalar."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = self.run_block(block, x)
        h = self.ln_f(x).flatten(0, 1)
        if self.chunked:
            options = nn.LinearCrossEntropyOptions()
            return F.linear_cross_entropy(h, self.wte.weight, target.flatten(), options=options)
        return F.cross_entropy(F.linear(h, self.wte.weight), target.flatten())


def has_chunked_loss() -> bool:
    """Whether this PyTorch has the chunked linear cross-entropy."""
    return hasattr(F, "linear_cross_entropy") and hasattr(nn, "LinearCrossEntropyOptions")


def load_weights(model: GPT2, weights: Mapping[str, Tensor]) -> None:
    """Copy Partita's parameters (`blocks.0.attn.q.w[D, H, K]`, …) into the peer."""

    def matrix(path: str, rows: int) -> Tensor:
        return weights[path].reshape(rows, -1).t()

    with torch.no_grad():
        model.wte.weight.copy_(weights["wte.table"])
        model.wpe.weight.copy_(weights["wpe.table"])
        model.ln_f.weight.copy_(weights["ln_f.gain"])
        model.ln_f.bias.copy_(weights["ln_f.b"])
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block), "blocks are Block"
            at, width = f"blocks.{index}", block.o.out_features
            block.qkv.weight.copy_(torch.cat([matrix(f"{at}.attn.{n}.w", width) for n in "qkv"]))
            block.qkv.bias.copy_(torch.cat([weights[f"{at}.attn.{n}.b"].flatten() for n in "qkv"]))
            block.o.weight.copy_(weights[f"{at}.attn.o.w"].reshape(-1, width).t())
            block.o.bias.copy_(weights[f"{at}.attn.o.b"])
            block.up.weight.copy_(weights[f"{at}.mlp.up.w"].t())
            block.up.bias.copy_(weights[f"{at}.mlp.up.b"])
            block.down.weight.copy_(weights[f"{at}.mlp.down.w"].t())
            block.down.bias.copy_(weights[f"{at}.mlp.down.b"])
            for mine, theirs in ((block.ln1, "ln1"), (block.ln2, "ln2")):
                mine.weight.copy_(weights[f"{at}.{theirs}.gain"])
                mine.bias.copy_(weights[f"{at}.{theirs}.b"])


def peer_step(
    shape: Shape,
    weights: Mapping[str, Tensor],
    lr: float,
    *,
    chunked: bool,
    compiled: bool | str | None,
    device: torch.device,
    low: bool = False,
    run: Run | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """One training step of the peer: zero, forward, backward, AdamW. Gives the loss (a tensor, not synchronised).

    compiled: whether through torch.compile, or through which of its backends. low: forward and loss under autocast to
    bfloat16. run: how each block runs
    """
    model = GPT2(shape, chunked, run).to(device)
    load_weights(model, weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    backend = compiled if isinstance(compiled, str) else "inductor"
    forward = torch.compile(model, backend=backend) if compiled else model

    def step(tokens: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = forward(tokens, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
