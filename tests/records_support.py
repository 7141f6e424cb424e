"""A small recipe that tests of records change."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import Spec, load
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe

HEAD = """use std
model Bigram(drop = 0.1) : tokens[T] in V -> logits[T, V] {
  sizes {
           V    D
    small  256  16
  }
  table : Embedding[V, D]
  head  : Linear[D, V]
  return head(table(tokens))
}
fn lion(p, g, m, lr, beta1 = 0.9, beta2 = 0.99, decay = 0.0) {
  return p, m
}
"""
BASE = """train base {
  model = Bigram.small
  dims = [T = 128]
  data { read = text("a.txt", "b/*.txt"), rows = chunk(T), target = next(tokens) }
  loss = mean(cross_entropy[V](logits, target))
  batch = 12
  steps = 1000 steps
  optimizer = adamw(betas = (0.9, 0.95), decay = 0.1, no_decay = ["*.gain", "*.b"])
  lr = warmup(1e-3, 100 steps) |> cosine(to = 1e-4)
}
"""


def spec_of(records: str = "", base: str = BASE) -> Spec:
    spec, found = load(Source("folder/test.partita", HEAD + base + records))
    assert spec is not None, render_all(found)
    return spec


def recipe(records: str = "", name: str = "base", *sets: str, base: str = BASE) -> Recipe:
    return load_recipe(spec_of(records, base), name, sets)


def faults(*sets: str, records: str = "", name: str = "base", base: str = BASE) -> tuple[tuple[str, str], ...]:
    """Code and text of each error."""
    with pytest.raises(SpecError) as caught:
        recipe(records, name, *sets, base=base)
    return tuple((item.code, render_all([item])) for item in caught.value.diagnostics)
