"""Mutated and hostile specs: whatever the text, the answer is diagnostics, or a sound graph, in bounded time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from generators.hostile import GROWING, corpus, hostile, mutated
from oracles.answers import answer, beside
from partita.compiler.base.span import Source
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.levels import MODEL
from partita.compiler.ir.verify import verify
from partita.compiler.ops.check import check_node
from samples.spec_texts import ROOT

NAMES = ("gpt2", "llama3", "bert", "t5", "vit", "gemma2")
PATIENCE = 10.0  # CPU seconds: the limit proper is measured by `python -m oracles.answers`, on a machine at rest


@pytest.mark.parametrize("name", NAMES)
def test_what_is_clean_gives_a_sound_graph(name: str):
    rng = random.Random(name)
    text = (ROOT / f"specs/models/{name}.partita").read_text("utf-8")
    for _ in range(12):
        changed = mutated(rng, text)
        if check_text(changed, "mutated.partita"):
            continue
        spec, _ = load(Source("mutated.partita", changed))
        assert spec is not None
        for model in spec.models:
            graph, _ = elaborate_model(spec, model, training=True)
            assert list(verify(graph, MODEL, check_node)) == []


@pytest.mark.parametrize("seed", range(8))
def test_hostile_specs_are_answered(seed: int):
    rng = random.Random(seed)
    with beside() as folder:
        for _ in range(25):
            data = hostile(rng)
            found = answer(data, folder, PATIENCE)
            assert found.fault is None, f"{found.fault}\n{data[:2000]!r}"


@pytest.mark.parametrize("grown", GROWING, ids=[make.__name__.strip("_") for make in GROWING])
def test_specs_that_grow_are_answered(grown: Callable[[random.Random], str]):
    rng = random.Random(0)
    with beside() as folder:
        for _ in range(3):
            data = grown(rng).encode()
            found = answer(data, folder, PATIENCE)
            assert found.fault is None, f"{found.fault}\n{data[:2000]!r}"


def test_the_generator_breaks_specs_in_many_ways():
    """Else it would prove nothing: many codes, some specs still clean, most of them faulty, all of it repeatable."""
    assert len(corpus()) > 100
    with beside() as folder:
        answers = [answer(hostile(random.Random(seed)), folder) for seed in range(70)]
    codes = {code for found in answers for code in found.codes}
    assert len(codes) >= 12
    assert {code[:3] for code in codes} >= {"E00", "E01", "E02", "E03"}
    assert 0.01 < sum(not found.codes for found in answers) / len(answers) < 0.5
    assert hostile(random.Random(5)) == hostile(random.Random(5))
