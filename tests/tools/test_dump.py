"""`--dump`: what a step computes, written down; also what nothing else asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from partita.tools.cli import main
from safetensors.torch import load_file

SPEC = """use std

model Tapped : tokens[T] in V -> logits[T, V] {
  sizes {
        D  V
    xs  8  256
  }
  embed : Embedding[V, D]
  head  : Linear[D, V]
  x = embed(tokens)
  tap far = exp(x)
  return head(x)
}

train tapped {
  model = Tapped.xs
  dims  = [T = 8]
  data { read = text("a.txt"), rows = chunk(T), target = next(tokens) }
  loss         = mean(cross_entropy[V](logits, target))
  batch        = 4
  microbatches = 2
  steps        = 1
  optimizer    = sgd()
  lr           = 0.1
}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("what a step computes " * 20, "utf-8")
    (tmp_path / "tapped.partita").write_text(SPEC, "utf-8")
    return tmp_path / "tapped.partita"


def test_a_tap_that_nothing_uses_is_dumped(spec: Path, tmp_path: Path) -> None:
    """Of the last microbatch, as all values of the forward."""
    words = ["--dump", "far", "--dump", "embed.gather", "--data-root", str(tmp_path)]
    assert main(["train", str(spec), "--out", str(tmp_path / "run"), *words]) == 0
    dumped = load_file(tmp_path / "run/dump/step-00000001.safetensors")
    assert dumped["dump/far"].shape == (2, 8, 8)
    torch.testing.assert_close(dumped["dump/far"], dumped["dump/embed.gather"].exp())


def test_what_is_not_there_is_looked_for_among_all_values(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(spec), "-o", str(tmp_path / "build"), "--dump", "fat"]) == 2
    assert "did you mean `far`?" in capsys.readouterr().err
