"""Which models go on with a row of ids, and which would look at what is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.base.span import Source
from partita.compiler.elaborate.causality import foresight
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe, predict_graph
from partita.runtime.fault import RuntimeFault
from partita.runtime.folder import load
from partita.runtime.generate import generate
from partita.runtime.state import initial_store
from samples.spec_texts import opened, text_spec

MODEL = """use std
model M(seen: fn = causal) : tokens[T] in V -> logits[T, V] {
  dim V = 8, D = 4, H = 2
  embed : Embedding[V, D]
  attn  : Attention[D, H](mask = seen)
  head  : Linear[D, V]
  return head(attn(embed(tokens)))
}
train t {
  model = M(seen = MASK)
  dims = [T = 6]
  data { read = text("none.txt"), rows = chunk(T) }
  loss = mean(logits ^ 2)
  batch = 2
  steps = 1
  optimizer = sgd(lr = 0.1)
}
"""


@pytest.mark.parametrize(("mask", "sees"), [("causal", False), ("full", True), ("sliding(width = 2)", False)])
def test_a_mask_decides(mask: str, sees: bool) -> None:
    spec = text_spec(MODEL.replace("MASK", mask))
    found = foresight(predict_graph(spec, load_recipe(spec)))
    assert (found is not None) == sees
    assert found is None or found.startswith("attn.y mixes T without a causal mask (")


def test_generating_is_refused_with_the_reason(tmp_path: Path) -> None:
    spec = opened(Source(str(tmp_path / "m.partita"), MODEL.replace("MASK", "full")))
    build = compile_recipe(spec, load_recipe(spec), tmp_path / "build")
    with pytest.raises(RuntimeFault, match=r"E0541.*attn\.y mixes T"):
        generate(load(tmp_path / "build"), initial_store(build, 0), [1, 2], 3)
