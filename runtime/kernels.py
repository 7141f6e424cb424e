"""Torch functions that generated modules import beside aten: draws, grouped products, wide sums, foreign kernels.

They take and give plain tensors and keep no state. The hash is that of `runtime/random.py`: the keys of rows are small,
and the one mix for every element runs in place on 32-bit lanes. A part of a tensor draws the numbers of the whole.
What is wide goes over a few rows at a time, so that no wide copy of a whole tensor exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .foreign import foreign
from .grouped import grouped_dot, grouped_outer
from .random import GAUSSIAN_STREAMS, UNIFORM_STREAM, box_muller, row_bits, row_keys, unit

__all__ = [
    "column_sums",
    "cross_entropy",
    "cross_entropy_backward",
    "foreign",
    "gathered_product",
    "gaussian",
    "grouped_dot",
    "grouped_outer",
    "rms_norm",
    "rms_norm_backward",
    "uniform",
]


def _units(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    words: tuple[int, int],
    stream: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    rank = len(shape)
    places = [torch.arange(n, device=seed.device) + start for n, start in zip(shape, starts, strict=True)]
    rows = [place.reshape([-1 if i == axis else 1 for i in range(rank)]) for axis, place in enumerate(places[:-1])]
    columns = places[-1] if rank else torch.zeros_like(seed)
    return unit(row_bits(row_keys(words, seed, step, stream, rows), columns), dtype)


def uniform(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    word_a: int,
    word_b: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Uniform in [0, 1), multiples of 2^-24, by (seed, step, key words, global element) alone."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return _units(seed, step, starts, (word_a, word_b), UNIFORM_STREAM, shape, exact).to(dtype)


def gaussian(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    word_a: int,
    word_b: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Normal with mean 0 and variance 1."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    first, second = (_units(seed, step, starts, (word_a, word_b), s, shape, exact) for s in GAUSSIAN_STREAMS)
    return box_muller(first, second).to(dtype)


# ---- float32 inside, over bfloat16 and float16

CHUNK = 1 << 18  # elements that are wide at a time


def _chunks(x: torch.Tensor) -> list[slice]:
    """Rows of a matrix, a few at a time."""
    rows, columns = x.shape
    step = max(1, CHUNK // max(1, columns))
    return [slice(begin, min(rows, begin + step)) for begin in range(0, rows, step)]


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """loss and log-sum-exp, float32 [2, rows], of low logits[rows, V] and target[rows, 1]."""
    found = torch.empty(2, logits.shape[0], dtype=torch.float32, device=logits.device)
    for part in _chunks(logits):
        z = logits[part].float()
        top = z.amax(1, keepdim=True)
        chosen = z.gather(1, target[part])
        lse = z.sub_(top).exp_().sum(1, keepdim=True).log_().add_(top)
        found[1, part] = lse.squeeze(1)
        found[0, part] = lse.sub_(chosen).squeeze(1)
    return found


def cross_entropy_backward(
    dloss: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor
) -> torch.Tensor:
    """dloss (exp(logits - lse) - [V = target]), over the logits; dloss and lse are float32 [rows, 1]."""
    for part in _chunks(logits):
        p = logits[part].float().sub_(lse[part]).exp_()
        p.scatter_(1, target[part], -1.0, reduce="add")
        logits[part] = p.mul_(dloss[part])
    return logits


def gathered_product(total: torch.Tensor, z: torch.Tensor, h: torch.Tensor, beta: int) -> torch.Tensor:
    """beta total + zᵀ h over a float32 total[V, D], of low z[rows, V] and h[rows, D]: a few of V at a time."""
    for part in _chunks(total):
        product = z[:, part].t() @ h
        _ = total[part].add_(product) if beta else total[part].copy_(product)
    return total


def column_sums(x: torch.Tensor) -> torch.Tensor:
    """Σ over rows of a low x[rows, columns], in float32."""
    found = torch.zeros(1, x.shape[1], dtype=torch.float32, device=x.device)
    for part in _chunks(x):
        z = x[part].float()
        found.addmm_(torch.ones(1, z.shape[0], dtype=torch.float32, device=x.device), z)
    return found.squeeze(0)


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y = gain x rstd in the type of a low x[rows, D], and rstd[rows, 1] = (mean(x²) + eps)^-½ in float32."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    rstd = torch.empty(x.shape[0], 1, dtype=torch.float32, device=x.device)
    for part in _chunks(x):
        z = x[part].float()
        norm = torch.linalg.vector_norm(z, 2, 1, True)
        rstd[part] = norm.square_().div_(x.shape[1]).add_(eps).rsqrt_()
        y[part] = z.mul_(rstd[part]).mul_(gain)
    return y, rstd


def rms_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, gain: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """dx in the type of low dy and x[rows, D], dgain[D] in float32; rstd is float32 [rows, 1]."""
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dgain = torch.zeros(x.shape[1], dtype=torch.float32, device=x.device)
    for part in _chunks(x):
        d, z, r = dy[part].float(), x[part].float(), rstd[part]
        t = d.mul(z)
        dgain.addmv_(t.t(), r.squeeze(1))
        s = t.mv(gain).unsqueeze_(1).mul_(r).mul_(r).mul_(r).div_(-x.shape[1])
        dx[part] = d.mul_(gain).mul_(r).addcmul_(z, s)
    return dx, dgain
