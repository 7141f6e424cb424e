"""The order of the data is a permutation, the same for the same key, and not the same for another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.permutation import keyed, mix, permute

SIZES = st.integers(1, 3000)
KEYS = st.integers(0, 2**32 - 1)


@given(SIZES, KEYS)
def test_bijective(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(SIZES, KEYS, st.data())
def test_element_by_element_equals_at_once(size: int, key: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, size - 1))
    assert int(permute(position, size, key)) == permute(np.arange(size), size, key)[position]


@given(st.integers(2**33, 2**62), KEYS, st.integers(0, 2**33 - 1))
def test_large_domains_stay_inside(size: int, key: int, position: int) -> None:
    assert 0 <= int(permute(position, size, key)) < size


def test_keys_and_positions_spread() -> None:
    size = 1000
    one, other = (permute(np.arange(size), size, keyed(seed, 0)) for seed in (1, 2))
    assert (one != other).mean() > 0.98
    # a random permutation's displacement averages size / 3; its neighbours are as far apart
    assert abs(np.abs(one - np.arange(size)).mean() - size / 3) < 30
    assert abs(np.abs(np.diff(one)).mean() - size / 3) < 30


@given(KEYS)
def test_one_number_mixed_as_many_are(value: int) -> None:
    assert keyed(value) == mix(mix(np.array([0x9E3779B9 ^ value], dtype=np.uint64)))[0]


def test_every_part_of_a_key_matters() -> None:
    keys = [keyed(*parts) for parts in ((0, 0), (0, 1), (1, 0), (1 << 32, 0), (0, 1 << 40), (-1, 0))]
    assert len(set(keys)) == len(keys)
