"""Trainings whose optimizer lies on the host: the losses of all on the device, and less memory there, as foretold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe
from partita.runtime.begin import Options
from partita.runtime.metrics import Summary
from partita.runtime.train import train
from samples.spec_texts import text_spec

SPEC = """use std

block Layer[D, F] : x[T, D] -> [T, D] {
  ln : LayerNorm[D]
  up : Linear[D, F]
  down : Linear[F, D]
  return x + dropout(down(gelu(up(ln(x)))), 0.1)
}

model M : tokens[T] in V -> logits[T, V] {
  dim V = 256, D = 64, F = 256, L = 4
  embed  : Embedding[V, D]
  blocks : chain L of Layer[D, F]
  head   : Linear[D, V]
  return head(blocks(embed(tokens)))
}

train t {
  model = M
  dims = [T = 16]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss = mean(cross_entropy[V](logits, target))
  batch = 4
  steps = 4
  lr = 0.01
  clip = 1
  KEYS
}
"""


def trained(folder: Path, keys: str, offload: tuple[str, ...]) -> Summary:
    spec = text_spec(SPEC.replace("KEYS", keys))
    recipe = load_recipe(spec, "t")
    recipe = dataclasses.replace(recipe, plan=dataclasses.replace(recipe.plan or Plan(), offload=offload))
    compile_recipe(spec, recipe, folder / "build")
    return train(folder / "build", Options(folder / "run", device="cpu")).summary


@pytest.mark.parametrize(
    "keys",
    [
        "optimizer = adamw()",
        "optimizer = adamw()\n precision = mixed(compute = bf16)",
        "optimizer = sgd(momentum = 0.9)\n microbatches = 2",
        "optimizer = adamw()\n precision = mixed(compute = bf16)\n microbatches = 2\n plan { recompute = full }",
    ],
)
def test_the_same_losses_in_less_memory(tmp_path: Path, keys: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain, moved = trained(tmp_path / "a", keys, ()), trained(tmp_path / "b", keys, ("optimizer",))
    assert moved.loss == plain.loss
    assert moved.peak_bytes == pytest.approx(moved.predicted["peak_bytes"], rel=0.02)
    assert moved.predicted["peak_bytes.optimizer state"] == 0 < moved.predicted["host_bytes"]
    assert moved.peak_bytes is not None
    assert plain.peak_bytes is not None
    assert moved.peak_bytes < 0.8 * plain.peak_bytes
