"""The one source of randomness: a counter hash on 32-bit words, for parameters' initial values and for dropout.

All words are in [0, 2^32); + and * keep the low 32 bits. Multipliers are below 2^31, so no product passes 2^63.
- mix(h): h ^= h >> 16; h *= 0x21F0AAAD; h ^= h >> 15; h *= 0x735A2D97; h ^= h >> 15  (C. Wellons' hash-prospector).
- A key is two words (a, b): the FNV-1a hashes of the UTF-8 text, with bases 0x811C9DC5 and 0x5BD1E995.
- fold((a, b), c) = (mix(a + mix(c + 0x9E3779B9)), mix(b + mix(c + 0x7F4A7C15))): c is taken modulo 2^32.
- The row key folds, in this order, into the key: seed, seed >> 32, step, the stream (0 for `random`; 1 and 2 for
  `gaussian`), then the global coordinate along each dim but the last. Sizes do not enter: a part knows its values.
- Element c of a row (its global coordinate along the last dim, 0 for a scalar) has the bits
  mix(a + mix(c + 0x9E3779B9)) ^ b.
- uniform = (bits >> 8) * 2^-24, exact in float32, in [0, 1).
- gaussian = sqrt(-2 log(1 - u1)) cos(2 pi u2) from the streams 1 and 2 (Box and Muller 1958).
"""

from __future__ import annotations

from collections.abc import Sequence

from .definition import Array
from .numerics import np

MASK = 0xFFFFFFFF
FIRST, SECOND = 0x9E3779B9, 0x7F4A7C15
UNIFORM_STREAM, GAUSSIAN_STREAMS = 0, (1, 2)


def _text_hash(text: str, basis: int) -> int:
    word = basis
    for byte in text.encode():
        word = ((word ^ byte) * 0x01000193) & MASK
    return word


def key_words(text: str) -> tuple[int, int]:
    """The two words that stand for a key's text: known when compiling, so the program holds two numbers."""
    return _text_hash(text, 0x811C9DC5), _text_hash(text, 0x5BD1E995)


def mix(h: Array) -> Array:
    """Every bit of h into every bit of the result; words as int64 in [0, 2^32)."""
    h = ((h ^ (h >> 16)) * 0x21F0AAAD) & MASK
    h = ((h ^ (h >> 15)) * 0x735A2D97) & MASK
    return h ^ (h >> 15)


def fold(key: tuple[Array, Array], word: Array) -> tuple[Array, Array]:
    """One more coordinate into a key; arrays broadcast."""
    a, b = key
    return mix((a + mix((word + FIRST) & MASK)) & MASK), mix((b + mix((word + SECOND) & MASK)) & MASK)


def bits(words: tuple[int, int], seed: int, step: int, stream: int, coordinates: Sequence[Array]) -> Array:
    """32 random bits for every element; `coordinates` are global, one int64 vector for each dim."""
    rank = len(coordinates)
    key = (np.asarray(words[0], dtype=np.int64), np.asarray(words[1], dtype=np.int64))
    for word in (seed & MASK, (seed >> 32) & MASK, step & MASK, stream):
        key = fold(key, np.asarray(word, dtype=np.int64))
    for axis, positions in enumerate(coordinates[:-1]):
        key = fold(key, positions.reshape([-1 if i == axis else 1 for i in range(rank)]))
    columns = coordinates[-1] if rank else np.asarray(0, dtype=np.int64)
    return mix((key[0] + mix((columns + FIRST) & MASK)) & MASK) ^ key[1]


def uniform(words: tuple[int, int], seed: int, step: int, coordinates: Sequence[Array], stream: int = 0) -> Array:
    """Uniform in [0, 1), a multiple of 2^-24, as float64."""
    return (bits(words, seed, step, stream, coordinates) >> 8) * 2.0**-24


def gaussian(words: tuple[int, int], seed: int, step: int, coordinates: Sequence[Array]) -> Array:
    """Normal with mean 0 and variance 1, as float64."""
    first, second = (uniform(words, seed, step, coordinates, stream) for stream in GAUSSIAN_STREAMS)
    return np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
