"""Every published parameter count of a model in specs/models, exactly, by what `partita show --json` prints.

counts.csv names the source of each figure. Where a paper gives only a rounded one, ours rounds to it.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from partita.compiler.elaborate.models import elaborate_model
from partita.tools.cli import main
from partita.tools.figures import figures
from partita.tools.probe import probe_step
from samples.spec_texts import ROOT, model_spec
from samples.zoo import DIMS, tiny_model

HERE = Path(__file__).parent


def table(name: str) -> list[dict[str, str]]:
    """A file's rows, without its comments."""
    lines = (HERE / name).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


COUNTS = table("counts.csv")


def rounded(count: int, digits: int) -> int:
    """To that many digits that count."""
    step = 10 ** (len(str(count)) - digits)
    return round(count / step) * step


@pytest.mark.parametrize("row", COUNTS, ids=lambda row: row["name"])
def test_parameters_are_as_published(row: dict[str, str]) -> None:
    _, facts = elaborate_model(model_spec(row["spec"]), row["model"], size=row["size"])
    exact = row["digits"] == "exact"
    found = facts.parameters if exact else rounded(facts.parameters, int(row["digits"]))
    assert found == int(row["count"])


@pytest.mark.parametrize("name", ["GPT-2 small", "GPT-3 175B", "PaLM 540B", "T5-11B"])
def test_show_prints_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = (row for row in COUNTS if row["name"] == name)
    path = ROOT / f"specs/models/{row['spec']}.partita"
    found = shown(capsys, str(path), "--model", row["model"], "--size", row["size"])
    assert found["parameters"] == int(row["count"])


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `partita show --json` prints."""
    assert main(["show", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("file", "model"), DIMS, ids=[model for _, model in DIMS])
def test_every_model_has_figures(file: str, model: str) -> None:
    graph = tiny_model(file, model, training=True)
    found = figures(graph, probe_step(graph))
    assert found.flops_per_token_step > found.flops_per_token > 0
    total = sum(one.flops_per_token for one in found.contractions)
    assert total == pytest.approx(found.flops_per_token)


# ---- part by part


def test_flops_and_parameters_of_gpt2_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of gpt2_124m.csv: GPT-2 124M without biases on a row of 1024 tokens."""
    found = shown(capsys, str(ROOT / "specs/models/gpt2.partita"), "--set", "bias=false", "--set", "dims.T=1024")
    blocks = {block["path"]: block for block in found["blocks"]}
    flops = {one["node"]: one["flops_per_token"] * 1024 / one["layers"] for one in found["contractions"]}
    params = {path: block["parameters"] / block["layers"] for path, block in blocks.items()}
    inside = {path: block["flops_per_token"] * 1024 / block["layers"] for path, block in blocks.items()}
    layer = "blocks.0"
    ours = {
        ("params", "position embedding"): params["wpe"],
        ("params", "token embedding"): params["wte"],
        ("params", "attention ln"): params[f"{layer}.ln1"],
        ("params", "attention kqv"): sum(params[f"{layer}.attn.{one}"] for one in "kqv"),
        ("params", "attention proj"): params[f"{layer}.attn.o"],
        ("params", "attention"): params[f"{layer}.ln1"] + params[f"{layer}.attn"],
        ("params", "mlp ln"): params[f"{layer}.ln2"],
        ("params", "mlp ffw"): params[f"{layer}.mlp.up"],
        ("params", "mlp proj"): params[f"{layer}.mlp.down"],
        ("params", "mlp"): params[f"{layer}.ln2"] + params[f"{layer}.mlp"],
        ("params", "block"): params[layer],
        ("params", "transformer"): blocks[layer]["parameters"],
        ("params", "ln_f"): params["ln_f"],
        ("params", "dense (tied)"): 0,
        ("params", "total"): found["parameters"],
        ("flops", "attention kqv"): sum(flops[f"{layer}.attn.{one}.dot"] for one in "kqv"),
        ("flops", "attention scores"): flops[f"{layer}.attn.y.dot"],
        ("flops", "attention reduce"): flops[f"{layer}.attn.y.dot.1"],
        ("flops", "attention proj"): flops[f"{layer}.attn.o.dot"],
        ("flops", "attention"): inside[f"{layer}.attn"],
        ("flops", "mlp ffw1"): flops[f"{layer}.mlp.up.dot"],
        ("flops", "mlp ffw2"): flops[f"{layer}.mlp.down.dot"],
        ("flops", "mlp"): inside[f"{layer}.mlp"],
        ("flops", "block"): inside[layer],
        ("flops", "transformer"): blocks[layer]["flops_per_token"] * 1024,
        ("flops", "dense (logits)"): flops["logits"],
        ("flops", "forward total"): found["flops_per_token"] * 1024,
        ("flops", "backward total"): (found["flops_per_token_step"] - found["flops_per_token"]) * 1024,
        ("flops", "total"): found["flops_per_token_step"] * 1024,
    }
    wanted = {(row["group"], row["item"]): int(row["value"]) for row in table("gpt2_124m.csv")}
    assert ours == wanted
