"""Torch functions that generated modules import beside aten: the counter hash of `random`, small tables.

They take and give plain tensors and keep no state. The hash is that of `compiler/ops/hashing.py`, word for word: the
keys of rows are folded in int64, the one mix for every element runs in place on int32 (whose products wrap, as they
should), so that a part of a tensor draws the numbers of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

MASK = 0xFFFFFFFF
FIRST, SECOND = 0x9E3779B9, 0x7F4A7C15
MULTIPLY_1, MULTIPLY_2 = 0x21F0AAAD, 0x735A2D97

Word = torch.Tensor


def row(values: Sequence[float], *, dtype: torch.dtype, device: str) -> torch.Tensor:
    """A few numbers as a vector."""
    return torch.tensor(list(values), dtype=dtype, device=device)


def key_words(text: str) -> tuple[int, int]:
    """The two words that stand for a key's text (FNV-1a with two bases)."""
    words: list[int] = []
    for word in (0x811C9DC5, 0x5BD1E995):
        for byte in text.encode():
            word = ((word ^ byte) * 0x01000193) & MASK
        words.append(word)
    return words[0], words[1]


def _mix(h: Word) -> Word:
    h = ((h ^ (h >> 16)) * MULTIPLY_1) & MASK
    h = ((h ^ (h >> 15)) * MULTIPLY_2) & MASK
    return h ^ (h >> 15)


def _fold(key: tuple[Word, Word], word: Word) -> tuple[Word, Word]:
    a, b = key
    return _mix((a + _mix((word + FIRST) & MASK)) & MASK), _mix((b + _mix((word + SECOND) & MASK)) & MASK)


def _mix_in_place(h: torch.Tensor) -> torch.Tensor:
    """`_mix` on int32, one spare tensor."""
    spare = torch.bitwise_right_shift(h, 16).bitwise_and_(0xFFFF)
    h.bitwise_xor_(spare).mul_(MULTIPLY_1)
    torch.bitwise_right_shift(h, 15, out=spare)
    h.bitwise_xor_(spare.bitwise_and_(0x1FFFF)).mul_(MULTIPLY_2)
    torch.bitwise_right_shift(h, 15, out=spare)
    return h.bitwise_xor_(spare.bitwise_and_(0x1FFFF))


def _int32(word: Word) -> torch.Tensor:
    """The low 32 bits of an int64 word as int32."""
    return (((word & MASK) ^ 0x80000000) - 0x80000000).to(torch.int32)


def _bits(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    words: tuple[int, int],
    stream: int,
    shape: Sequence[int],
) -> torch.Tensor:
    """32 random bits for every element, as int32."""
    device = seed.device
    key = (torch.full_like(seed, words[0]), torch.full_like(seed, words[1]))
    for word in (seed & MASK, (seed >> 32) & MASK, step & MASK, torch.full_like(seed, stream)):
        key = _fold(key, word)
    rank = len(shape)
    positions = [torch.arange(n, device=device) + start for n, start in zip(shape, starts, strict=True)]
    for axis, position in enumerate(positions[:-1]):
        key = _fold(key, position.reshape([-1 if i == axis else 1 for i in range(rank)]))
    columns = positions[-1] if rank else torch.zeros_like(seed)
    mixed = _int32(key[0]) + _int32(_mix((columns + FIRST) & MASK))
    return _mix_in_place(mixed).bitwise_xor_(_int32(key[1]))


def uniform(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    word_a: int,
    word_b: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    stream: int = 0,
) -> torch.Tensor:
    """Uniform in [0, 1), multiples of 2^-24, by (seed, step, key words, global element) alone."""
    bits = _bits(seed, step, starts, (word_a, word_b), stream, shape)
    whole = bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return whole.to(exact).mul_(2.0**-24).to(dtype)


def gaussian(
    seed: torch.Tensor,
    step: torch.Tensor,
    starts: Sequence[torch.Tensor],
    word_a: int,
    word_b: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Normal with mean 0 and variance 1: sqrt(-2 log(1 - u1)) cos(2 pi u2) (Box and Muller 1958)."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    first, second = (uniform(seed, step, starts, word_a, word_b, shape, exact, stream) for stream in (1, 2))
    radius = first.neg_().log1p_().mul_(-2.0).sqrt_()
    return radius.mul_(second.mul_(2 * math.pi).cos_()).to(dtype)
