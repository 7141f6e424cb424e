"""Torch functions that generated modules import beside aten: the draws of `random` and `gaussian`.

They take and give plain tensors and keep no state. The hash is that of `runtime/random.py`: the keys of rows are small,
and the one mix for every element runs in place on 32-bit lanes. A part of a tensor draws the numbers of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .random import GAUSSIAN_STREAMS, UNIFORM_STREAM, box_muller, row_bits, row_keys, unit


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
