"""Samples: the same for the same seed, drawn from the right distribution, read at the right position of the window."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from generators.bigram import T, V, bigram_build, write_build
from partita.runtime import checkpoint
from partita.runtime.begin import open_build
from partita.runtime.fault import RuntimeFault
from partita.runtime.feed import Executable
from partita.runtime.generate import Sampling, generate, load_weights, pick
from partita.runtime.program import Build, Input, Program
from partita.runtime.state import initial_store


@dataclass
class _Counting:
    """A causal "model" whose next id is the count of non-zero ids up to the position."""

    build: Build

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(
        self, name: str, store: Any, data: Any, step: int = 0, seed: int = 0, *, bound: float = 0.0
    ) -> dict[str, torch.Tensor]:
        counts = (data[0]["ids"] > 0).cumsum(1)
        return {"scores": torch.nn.functional.one_hot(counts, 32).float()}


def _counting(length: int) -> Executable:
    ids = Input("ids", (2, length), ("batch", "T"), "i64", below=32)
    return _Counting(Build("count", (), (), {"predict": Program((ids,), (), (), (), {"scores": "scores"})}))


GREEDY = Sampling(temperature=0)


def test_read_at_the_last_id_and_slid_when_full() -> None:
    assert list(generate(_counting(8), {}, [1, 1, 1], 3, GREEDY)) == [3, 4, 5]
    assert list(generate(_counting(4), {}, [1, 1, 1], 4, GREEDY)) == [3, 4, 4, 4]
    assert list(generate(_counting(4), {}, [1] * 9, 1, GREEDY)) == [4]


def test_the_same_seed_gives_the_same_ids() -> None:
    logits = torch.zeros(50)
    draws = [[pick(logits, Sampling(seed=seed), position) for position in range(40)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) > 15


def test_drawn_in_proportion_and_cut_to_the_likeliest() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, -1.0])
    shares = torch.softmax(logits.double() / 0.7, 0)
    count = 1000
    drawn = Counter(pick(logits, Sampling(temperature=0.7), position) for position in range(count))
    for value, share in enumerate(shares.tolist()):
        assert abs(drawn[value] - count * share) < 5 * (count * share * (1 - share)) ** 0.5 + 1
    assert {pick(logits, Sampling(top_k=2), position) for position in range(100)} == {1, 2}
    assert {pick(torch.zeros(5), Sampling(top_k=1), position) for position in range(20)} == {0}


def test_from_a_checkpoint_with_the_parameters_alone(tmp_path: Path) -> None:
    build = bigram_build()
    executable = open_build(write_build(tmp_path / "build", build), torch.device("cpu"))
    store = initial_store(build, seed=1)
    path = checkpoint.save(tmp_path / "c", build, store, step=3, seed=1)
    for place in (path, tmp_path / "c"):
        loaded = load_weights(executable, place)
        assert set(loaded) == {"w"} and torch.equal(loaded["w"], store["w"])
    wanted = [7]
    for _ in range(T + 3):
        wanted.append(int(store["w"][wanted[-1]].argmax()))
    assert list(generate(executable, loaded, [7], T + 3, GREEDY)) == wanted[1:]


@pytest.mark.parametrize(
    ("prompt", "sampling", "code"),
    [
        ([], GREEDY, "E0540"),
        ([1, 32], GREEDY, "E0503"),
        ([-1], GREEDY, "E0503"),
        ([1], Sampling(temperature=-1), "E0540"),
        ([1], Sampling(temperature=float("nan")), "E0540"),
    ],
)
def test_faults_at_once(prompt: list[int], sampling: Sampling, code: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        generate(_counting(4), {}, prompt, 1, sampling)
    assert caught.value.code == code


def test_what_cannot_generate_says_so(tmp_path: Path) -> None:
    build = bigram_build()
    step_only = Build("x", build.parameters, build.states, {"step": build.programs["step"]})
    two = Build("x", build.parameters, build.states, {"predict": build.programs["evaluate"]})
    for broken in (step_only, two):
        with pytest.raises(RuntimeFault) as caught:
            generate(_Counting(broken), {}, [1], 1)
        assert caught.value.code == "E0521"
    with pytest.raises(RuntimeFault, match="not finite"):
        pick(torch.full((V,), float("nan")), GREEDY, 0)
    with pytest.raises(RuntimeFault) as caught:
        load_weights(_Counting(build), tmp_path)
    assert caught.value.code == "E0510"
