"""`import` and `export` as a user runs them, and that training and sampling go on from what was imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from partita.runtime import checkpoint
from partita.tools.cli import main
from safetensors.torch import load_file, save_file

SPEC = """use std

model Pair(drop = 0.0) : tokens[T] in V -> logits[T, V] {
  sizes {
           V    D
    small  256  8
  }
  embed : Embedding[V, D]
  head  : Linear[D, V]
  return head(dropout(embed(tokens), drop))
}

model Wide = Pair {
  adapt head : LoRA[R = 2]
}

weights Pair "org/pair" {
  config { model_type = "pair", width = D }
  "emb"[V, D]         = embed.table
  "head.weight"[V, D] = head.w
  "head.bias"[V]      = head.b
}

train pair {
  model     = Pair.small
  dims      = [T = 4]
  data { read = text("data/*.txt"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 2
  steps     = 3
  seed      = 5
  optimizer = adamw(decay = 0.1)
  lr        = 1e-3
}

train wide extends pair { model = Wide.small, start = "ck" }
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    names = {"emb": (256, 8), "head.weight": (256, 8), "head.bias": (256,)}
    (tmp_path / "theirs").mkdir()
    save_file({k: torch.randn(v, generator=generator) for k, v in names.items()}, tmp_path / "theirs/model.safetensors")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("what is said twice is said twice " * 20)
    (tmp_path / "pair.partita").write_text(SPEC)
    return "pair.partita"


def test_round_trip(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--recipe", "pair"]
    assert main(["import", spec, "theirs", "-o", "ck", *chosen]) == 0
    assert "Pair.small, 3 tensors, 4,352 parameters" in capsys.readouterr().out
    assert main(["export", spec, "ck", "-o", "again", *chosen]) == 0
    one, other = load_file("theirs/model.safetensors"), load_file("again/model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads(Path("again/config.json").read_text()) == {
        "model_type": "pair", "width": 8, "torch_dtype": "float32",
    }  # fmt: skip


def test_training_and_sampling_go_on(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", spec, "theirs", "-o", "out/pair/checkpoints", "--recipe", "pair"]) == 0
    assert main(["train", spec, "--recipe", "pair", "--resume", "--out", "out/pair"]) == 0
    assert main(["generate", "out/pair", "--tokens", "3"]) == 0
    first, last = checkpoint.checkpoints(Path("out/pair/checkpoints"))
    assert (checkpoint.read_scalars(first).step, checkpoint.read_scalars(last).step) == (0, 3)
    whole = torch.empty(256, 8)
    checkpoint.read_tensors(last, {"embed.table": whole})
    begun = load_file("theirs/model.safetensors")["emb"]
    assert 0 < float((whole - begun).abs().max()) < 0.01  # three small steps away from theirs


def test_an_adapter_starts_from_its_base(spec: str) -> None:
    assert main(["import", spec, "theirs", "-o", "ck", "--recipe", "wide"]) == 0
    assert checkpoint.read_scalars(checkpoint.latest(Path("ck"))).anew == ["head.adapter.a", "head.adapter.b"]
    assert main(["train", spec, "--recipe", "wide", "--out", "out/wide"]) == 0


COUNT = """block Counted[D] : x[D] -> [D] {
  state seen[D] = 0
  state other[D] = 5
  next seen = seen + 1
  return x + seen * other
}

model Pair"""
COUNTED = (
    SPEC.replace("model Pair", COUNT, 1)
    .replace("  head  :", "  count : Counted[D]\n  head  :")
    .replace("dropout(embed(tokens), drop)", "count(embed(tokens))")
    .replace('"head.bias"', '"seen"[D] = count.seen\n  "head.bias"')
)


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "started"])
def test_training_goes_on_from_an_imported_state(spec: str, resumed: bool) -> None:
    text = COUNTED if resumed else COUNTED.replace("  seed      = 5", '  seed      = 5\n  start     = "ck"')
    Path(spec).write_text(text)
    tensors = load_file("theirs/model.safetensors")
    save_file({**tensors, "seen": torch.arange(8.0)}, "theirs/model.safetensors")
    out = "out/pair/checkpoints" if resumed else "ck"
    assert main(["import", spec, "theirs", "-o", out, "--recipe", "pair"]) == 0
    assert main(["train", spec, "--recipe", "pair", "--out", "out/pair", *(["--resume"] if resumed else [])]) == 0
    found = {"count.seen": torch.empty(8), "count.other": torch.empty(8)}
    checkpoint.read_tensors(checkpoint.latest(Path("out/pair/checkpoints")), found)
    assert torch.equal(found["count.seen"], torch.arange(8.0) + 3)
    assert torch.equal(found["count.other"], torch.full((8,), 5.0))  # not in the map: as declared
    assert main(["export", spec, "out/pair/checkpoints", "-o", "again", "--recipe", "pair"]) == 0
    assert torch.equal(load_file("again/model.safetensors")["seen"], found["count.seen"])


def test_faults_are_said(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", spec, "nothing", "-o", "ck", "--recipe", "pair"]) == 1
    assert "E0550" in capsys.readouterr().err
    assert main(["import", spec, "theirs", "-o", "ck", "--model", "Pair", "--set", "dims.D=9"]) == 1
    assert "emb is [256, 8] in the file and [256, 9] by the map" in capsys.readouterr().err
    assert main(["import", spec, "theirs", "-o", "ck", "--model", "Pear"]) == 2
