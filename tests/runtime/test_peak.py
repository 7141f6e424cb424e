"""The peak that a training measures is the one that was foretold: of several updates the highest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe
from partita.runtime.begin import Options
from partita.runtime.train import train
from samples.spec_texts import text_spec

SPEC = """use std
model M : x[batch, I], z[batch, Z] -> a[batch], b[batch] {
  dim I = 64, Z = 48, F = 512, One = 1
  up   : Linear[I, F]
  down : Linear[F, One]
  gen  : Linear[Z, I]
  return down(gelu(up(x)))[One = 0], down(gelu(up(gen(z))))[One = 0]
}
train t {
  model = M
  data { x = tensors("x.npy"), z = noise(Z) }
  batch = 128
  steps = 3
  lr = 0.01
  optimizer = OPTIMIZER
  microbatches = PARTS
  update judge { params = ["up.*", "down.*"], loss = mean(softplus(-a)) + mean(softplus(b)), repeat = 2 }
  update maker { params = ["gen.*"], loss = mean(softplus(-b)) }
}
"""


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("optimizer", ["adam()", "sgd(momentum = 0.9)"])
def test_of_several_updates_the_highest_counts(tmp_path: Path, optimizer: str, parts: int) -> None:
    np.save(tmp_path / "x.npy", np.ones((600, 64), np.float32))
    spec = text_spec(SPEC.replace("OPTIMIZER", optimizer).replace("PARTS", str(parts)))
    recipe = load_recipe(spec, "t")
    folder = str(tmp_path)
    columns = tuple(replace(c, source=replace(c.source, folder=folder)) if c.source else c for c in recipe.columns)
    build = compile_recipe(spec, replace(recipe, folder=folder, columns=columns), tmp_path / "build")
    summary = train(tmp_path / "build", Options(tmp_path / "run", device="cpu")).summary
    assert summary.peak_bytes == pytest.approx(build.predictions["peak_bytes"], rel=0.01)
