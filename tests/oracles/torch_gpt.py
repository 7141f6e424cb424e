"""GPT-2 in plain PyTorch, as one would write it by hand, with a training loop of torch's own parts.

In: weights under Partita's names and shapes. Out: logits, and what `torch.optim.AdamW` makes of them in some steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

Tensor = torch.Tensor
Rows = tuple[Tensor, Tensor]


def gpt2(p: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """logits [batch, T, V] of tokens [batch, T]; no dropout."""
    x = p["wte.table"][tokens] + p["wpe.table"][: tokens.shape[1]]
    layers = 1 + max(int(name.split(".")[1]) for name in p if name.startswith("blocks."))
    for layer in range(layers):
        x = _block({n.split(".", 2)[2]: one for n, one in p.items() if n.startswith(f"blocks.{layer}.")}, x)
    return _norm(x, p, "ln_f") @ p["wte.table"].T


def _block(p: Mapping[str, Tensor], x: Tensor) -> Tensor:
    n = _norm(x, p, "ln1")
    q, k, v = (torch.einsum("btd,dhk->bhtk", n, p[f"attn.{one}.w"]) + p[f"attn.{one}.b"].unsqueeze(1) for one in "qkv")
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + torch.einsum("bhtk,hkd->btd", y, p["attn.o.w"]) + p["attn.o.b"]
    up = functional.gelu(_norm(x, p, "ln2") @ p["mlp.up.w"] + p["mlp.up.b"], approximate="tanh")
    return x + up @ p["mlp.down.w"] + p["mlp.down.b"]


def _norm(x: Tensor, p: Mapping[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], p[f"{name}.gain"], p[f"{name}.b"], eps=1e-5)


@dataclass(frozen=True)
class StepRecord:
    """What a step saw and left; gradients before the clipping."""

    loss: float
    norm: float
    gradients: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor]


def train(
    weights: Mapping[str, Tensor], batches: Sequence[Rows], rate: Callable[[int], float], clip: float,
    decayed: Callable[[str], bool], decay: float, betas: tuple[float, float],
) -> list[StepRecord]:  # fmt: skip
    """AdamW with clipping by the global norm, whole batches at once."""
    p = {name: one.clone().requires_grad_() for name, one in weights.items()}
    groups = [
        {"params": [one for name, one in p.items() if decayed(name) is on], "weight_decay": decay if on else 0.0}
        for on in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    records: list[StepRecord] = []
    for tokens, target in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(gpt2(p, tokens).flatten(0, 1), target.flatten())
        loss.backward()
        gradients = {name: one.grad.clone() for name, one in p.items() if one.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(list(p.values()), clip)
        optimizer.step()
        schedule.step()
        after = {name: one.detach().clone() for name, one in p.items()}
        records.append(StepRecord(loss.item(), norm.item(), gradients, after))
    return records
