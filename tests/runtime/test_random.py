"""Initial values: the same for the same seed, path and element, however they are cut; of the right distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime import random
from partita.runtime.fault import RuntimeFault
from partita.runtime.permutation import mix
from partita.runtime.program import Build, Initializer, Parameter, State
from partita.runtime.random import initial_values, mix32
from partita.runtime.state import empty_store, initial_store, parameter_count

NORMAL = Initializer("normal", (0.5,))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_the_torch_hash_is_the_numpy_hash(values: list[int]) -> None:
    lanes = torch.tensor([v - 2**32 if v >= 2**31 else v for v in values], dtype=torch.int32)
    ours = mix32(lanes).to(torch.int64) & 0xFFFFFFFF
    assert ours.tolist() == mix(np.array(values, dtype=np.uint64)).tolist()


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


def test_positions_beyond_32_bits_differ() -> None:
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
