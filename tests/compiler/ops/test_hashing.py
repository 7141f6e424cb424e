"""The hash against its words in plain Python integers, and what randomness must be: the same in every part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.ops.hashing import gaussian, key_words, uniform

MASK = 2**32 - 1


def mix(h: int) -> int:
    h = ((h ^ (h >> 16)) * 0x21F0AAAD) & MASK
    h = ((h ^ (h >> 15)) * 0x735A2D97) & MASK
    return h ^ (h >> 15)


def plainly(text: str, seed: int, step: int, stream: int, coordinates: Sequence[int]) -> int:
    """The bits of one element, as the docstring of `hashing` says it."""
    a, b = key_words(text)
    for word in (seed, seed >> 32, step, stream, *coordinates[:-1]):
        a = mix((a + mix((word + 0x9E3779B9) & MASK)) & MASK)
        b = mix((b + mix((word + 0x7F4A7C15) & MASK)) & MASK)
    column = coordinates[-1] if coordinates else 0
    return mix((a + mix((column + 0x9E3779B9) & MASK)) & MASK) ^ b


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**31), start=st.integers(0, 2**40), rank=st.integers(0, 3))
def test_every_element_is_what_the_words_say(seed: int, step: int, start: int, rank: int) -> None:
    coordinates = [np.arange(2, dtype=np.int64) + start for _ in range(rank)]
    found = uniform(key_words("a.b"), seed, step, coordinates)
    for index in np.ndindex(found.shape):
        bits = plainly("a.b", seed, step, 0, [start + i for i in index])
        assert found[index] == (bits >> 8) / 2**24


@given(cut=st.integers(1, 6))
def test_parts_know_their_values(cut: int) -> None:
    rows, columns = np.arange(7, dtype=np.int64), np.arange(5, dtype=np.int64)
    whole = uniform(key_words("k"), 1, 2, [rows, columns])
    np.testing.assert_array_equal(uniform(key_words("k"), 1, 2, [rows[cut:], columns]), whole[cut:])


def test_the_text_hash_is_fnv() -> None:
    assert key_words("")[0] == 0x811C9DC5
    assert key_words("a")[0] == 0xE40C292C  # the published FNV-1a value of "a"


def test_uniform_looks_uniform_and_keys_differ() -> None:
    coordinates = [np.arange(200, dtype=np.int64), np.arange(300, dtype=np.int64)]
    drawn = [
        uniform(key_words(key), seed, step, coordinates) for key, seed, step in (("a", 0, 0), ("b", 0, 0), ("a", 0, 1))
    ]
    for one in drawn:
        assert one.min() >= 0 and one.max() < 1
        assert one.mean() == pytest.approx(0.5, abs=0.005)
        assert one.var() == pytest.approx(1 / 12, abs=0.002)
        histogram, _ = np.histogram(one, bins=50, range=(0, 1))
        assert ((histogram - 1200) ** 2 / 1200).sum() < 90  # chi-squared with 49 degrees of freedom
    assert abs(np.corrcoef([one.ravel() for one in drawn]) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(drawn[0][:-1].ravel(), drawn[0][1:].ravel())[0, 1]) < 0.02


def test_gaussian_is_normal() -> None:
    drawn = gaussian(key_words("w"), 3, 0, [np.arange(200, dtype=np.int64), np.arange(300, dtype=np.int64)])
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (drawn**4).mean() == pytest.approx(3, abs=0.15)
