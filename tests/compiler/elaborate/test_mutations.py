"""Mutated specs: whatever the text, the answer is diagnostics, or a sound graph."""

from __future__ import annotations

import random
import re

import pytest
from partita.compiler.base.span import Source
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.levels import MODEL
from partita.compiler.ir.verify import verify
from partita.compiler.ops.check import check_node
from samples.spec_texts import ROOT

TOKEN = re.compile(r"[A-Za-z_0-9.]+|\n|\s+|->|\|>|.", re.S)
NAMES = ("gpt2", "llama3", "bert", "t5", "vit", "gemma2")
ODD = (
    "0",
    "1",
    "999999999999",
    "T",
    "D",
    "none",
    "true",
    "x",
    "std",
    "1e308",
    "inf",
    "random",
    "dot",
    "causal",
    "(G R)",
)


def mutated(rng: random.Random, text: str) -> str:
    """A few tokens deleted, repeated, exchanged or replaced."""
    parts = TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        here, there = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(4)
        if kind == 0:
            del parts[here]
        elif kind == 1:
            parts[here] = parts[there]
        elif kind == 2:
            parts[here], parts[there] = parts[there], parts[here]
        else:
            parts[here] = rng.choice(ODD)
    return "".join(parts)


@pytest.mark.parametrize("name", NAMES)
def test_mutated_specs(name: str):
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
