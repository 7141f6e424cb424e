"""Initial values: the same for the same seed, path and element, however they are cut; of the right distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.ops import hashing
from partita.runtime import permutation, random
from partita.runtime.fault import RuntimeFault
from partita.runtime.program import Build, Initializer, Parameter, State
from partita.runtime.random import initial_values
from partita.runtime.state import empty_store, initial_store, parameter_count

NORMAL = Initializer("normal", (0.5,))


WORDS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_one_hash_in_torch_and_twice_in_numpy(values: list[int]) -> None:
    ours = random.mix(torch.tensor([random.lane(v) for v in values], dtype=torch.int32)).to(torch.int64) & 0xFFFFFFFF
    assert ours.tolist() == permutation.mix(np.array(values, dtype=np.uint64)).tolist()
    assert ours.tolist() == hashing.mix(np.array(values, dtype=np.int64)).tolist()


@given(st.text(max_size=20), WORDS, st.integers(0, 2**40), st.integers(0, 2), st.lists(WORDS, max_size=3))
def test_the_compiler_s_definition(text: str, seed: int, step: int, stream: int, starts: list[int]) -> None:
    coordinates = [np.arange(3, dtype=np.int64) + min(start, 2**63 - 4) for start in starts]
    words = hashing.key_words(text)
    assert random.key_words(text) == words
    grids = np.meshgrid(*coordinates[:-1], indexing="ij") if len(coordinates) > 1 else []
    keys = random.row_keys(words, seed, step, stream, [torch.from_numpy(grid)[..., None] for grid in grids])
    columns = torch.from_numpy(coordinates[-1]) if coordinates else torch.tensor([0])
    bits = random.row_bits(keys, columns)
    # its coordinates are below 2^32
    theirs = hashing.bits(words, seed, step, stream, [c & hashing.MASK for c in coordinates])
    assert (bits.to(torch.int64) & 0xFFFFFFFF).flatten().tolist() == theirs.reshape(-1).tolist()
    unit = random.unit(bits, torch.float64).flatten().tolist()
    assert (
        unit == hashing.uniform(words, seed, step, [c & hashing.MASK for c in coordinates], stream).reshape(-1).tolist()
    )


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 2**40))
def test_initial_values_are_its_draws_at_step_0(shape: list[int], seed: int) -> None:
    coordinates = [np.arange(size, dtype=np.int64) for size in shape]
    wanted = hashing.gaussian(hashing.key_words("a.w"), seed, 0, coordinates) * 0.5
    ours = initial_values(NORMAL, shape, seed, "a.w").double().numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-9)


@given(st.data(), st.sampled_from([NORMAL, Initializer("uniform", (0.1,)), Initializer("kaiming")]))
def test_a_block_alone_is_the_block_of_the_whole(data: st.DataObject, initializer: Initializer) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=0, max_size=4))
    offsets = [data.draw(st.integers(0, size - 1)) for size in shape]
    sizes = [data.draw(st.integers(0, size - offset)) for size, offset in zip(shape, offsets, strict=True)]
    whole = initial_values(initializer, shape, 3, "a.w")
    block = initial_values(initializer, shape, 3, "a.w", offsets=offsets, sizes=sizes)
    cut = tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))
    assert torch.equal(whole[cut], block)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    one = initial_values(NORMAL, (37, 11), 0, "w")
    monkeypatch.setattr(random, "CHUNK", 7)
    assert torch.equal(one, initial_values(NORMAL, (37, 11), 0, "w"))


def test_seed_and_path_matter() -> None:
    one, seeded, elsewhere = (initial_values(NORMAL, (1000,), s, p) for s, p in ((0, "w"), (1, "w"), (0, "v")))
    for other in (seeded, elsewhere):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.15


def test_rows_of_a_huge_tensor_differ() -> None:
    shape = (3, 2**32)
    rows = [initial_values(NORMAL, shape, 0, "w", offsets=(row, 5), sizes=(1, 100)) for row in range(3)]
    assert not any(torch.equal(a, b) for a, b in ((rows[0], rows[1]), (rows[1], rows[2]), (rows[0], rows[2])))


def test_distributions() -> None:
    count = 200_000
    z = initial_values(Initializer("normal", (1.0,)), (count,), 0, "w").double()
    for moment, wanted, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # spread: variance of z^moment
        assert abs(float((z**moment).mean()) - wanted) < 5 * math.sqrt(spread / count)
    u = initial_values(Initializer("uniform", (2.0,)), (count,), 0, "w").double()
    assert -2 <= float(u.min()) < -1.999 and 1.999 < float(u.max()) < 2
    counts = torch.histc(u, bins=50)
    assert float(((counts - count / 50) ** 2 / (count / 50)).sum()) < 49 + 5 * math.sqrt(2 * 49)  # χ² with 49 degrees
    assert float(initial_values(Initializer("kaiming"), (8, 4, 100), 0, "w").std()) == pytest.approx(0.25, rel=0.1)
    bound = math.sqrt(6 / 500)
    assert float(initial_values(Initializer("xavier"), (200, 300), 0, "w").max()) == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize(
    ("initializer", "value"),
    [(Initializer("zeros"), 0.0), (Initializer("ones"), 1.0), (Initializer("constant", (2.6592,)), 2.6592)],
)
def test_constants(initializer: Initializer, value: float) -> None:
    assert initial_values(initializer, (2, 3), 0, "w").tolist() == torch.full((2, 3), value).tolist()


@pytest.mark.parametrize("arguments", [("magic",), ("normal",), ("uniform", (1.0, 2.0))])
def test_an_unknown_initializer_is_a_fault(arguments: Any) -> None:
    with pytest.raises(RuntimeFault, match="no initializer"):
        initial_values(Initializer(*arguments), (2,), 0, "w")


def test_a_store_holds_every_tensor_in_its_type() -> None:
    builds = [
        Build(
            "m",
            (Parameter("a.w", (3, 4), ("D", "O"), dtype, NORMAL), Parameter("a.b", (4,), ("O",), dtype, NORMAL)),
            (State("adamw.m/a.w", (3, 4), "f32", Initializer("zeros")),),
            {},
        )
        for dtype in ("f32", "f64", "bf16")
    ]
    stores = [initial_store(build, seed=1) for build in builds]
    assert [store["a.w"].dtype for store in stores] == [torch.float32, torch.float64, torch.bfloat16]
    assert torch.equal(stores[0]["a.w"].double(), stores[1]["a.w"])
    assert torch.equal(stores[0]["a.w"].bfloat16(), stores[2]["a.w"])
    assert not torch.equal(stores[0]["a.w"][0], stores[0]["a.b"])
    assert not stores[0]["adamw.m/a.w"].any()
    assert {k: v.shape for k, v in empty_store(builds[0]).items()} == {k: v.shape for k, v in stores[0].items()}
    assert parameter_count(builds[0]) == 16
