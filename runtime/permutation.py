"""A keyed pseudo-random permutation of 0 … size-1 that is computed element by element, without a table.

The order of the training data is one: the window at any position of any epoch follows from (seed, epoch, position)
alone, so that a run resumes at any step without state. A balanced Feistel network over the next power of four, walked
until the value falls inside the range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.uint64]
ROUNDS = 6
_MASK = np.uint64(0xFFFFFFFF)


def mix(value: Integers) -> Integers:
    """The bijective 32-bit hash of random.py (C. Wellons' hash-prospector), in 64-bit lanes."""
    value = ((value ^ (value >> np.uint64(16))) * np.uint64(0x21F0AAAD)) & _MASK
    value = ((value ^ (value >> np.uint64(15))) * np.uint64(0x735A2D97)) & _MASK
    return value ^ (value >> np.uint64(15))


def keyed(*keys: int) -> int:
    """One 32-bit key from several integers of up to 64 bits, each of whose bits matters."""
    state = 0x9E3779B9
    for key in keys:
        for half in (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF):
            state = _mix_one(state ^ half)
    return state


def _mix_one(value: int) -> int:
    """`mix` of one number, without numpy's cost by call."""
    value = ((value ^ (value >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return value ^ (value >> 15)


def permute(positions: npt.ArrayLike, size: int, key: int) -> npt.NDArray[np.int64]:
    """Where each position in [0, size) stands under the permutation that `key` (32 bits) names; shape is kept."""
    assert 0 < size <= 1 << 62, f"no permutation of {size} elements"
    values = np.array(positions, dtype=np.uint64, ndmin=1)
    assert values.size == 0 or int(values.max()) < size, "a position beyond the permutation's size"
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    values = _feistel(values, half_bits, key)
    outside = values >= size
    while outside.any():  # at most 4 tries expected: the domain is less than four times as large
        values[outside] = _feistel(values[outside], half_bits, key)
        outside = values >= size
    return values.astype(np.int64).reshape(np.shape(positions))


def _feistel(values: Integers, half_bits: int, key: int) -> Integers:
    """(left, right) -> (right, left ^ hash(right, key, round)), which is a bijection whatever the hash."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for number in range(ROUNDS):
        round_key = np.uint64(keyed(key, number))
        left, right = right, left ^ (mix((right & _MASK) ^ round_key) & mask)
    return (left << shift) | right
