"""Adapters of derived models: where their parameters stand, what they compute, misuse."""

from __future__ import annotations

import numpy as np
import pytest
from oracles.values import leaf_values, run
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.types import DType
from samples.spec_texts import model_spec, text_spec

BASE = """use std
block Layer[D, F] : x[D] -> [D] {
  mlp : MLP[D, F]
  out : Linear[D, D](bias = false)
  return x + out(mlp(x))
}
model Base : x[D] -> y[D] {
  sizes {
       L  D  F
    s  2  4  6
  }
  layers : chain L of Layer[D, F]
  head   : Linear[D, D]
  return head(layers(x))
}
"""


def test_llama_with_lora():
    """8,030,261,248 and, in each of 32 layers, 16 rows of q's and v's widths."""
    _, facts = elaborate_model(model_spec("lora"), "LlamaLoRA")
    assert facts.parameters == 8_030_261_248 + 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert facts.parameter_dims["layers.3.attn.q.adapter.a"][0] == "D"
    _, facts = elaborate_model(model_spec("lora"), "LlamaLoRA", options={"rank": 8})
    assert facts.parameters == 8_030_261_248 + 32 * 8 * (4096 + 4096 + 4096 + 1024)


def test_what_an_adapter_computes():
    text = BASE + "model Tuned = Base {\n  adapt head : LoRA[R = 2](alpha = 3.0)\n}\n"
    graph, _ = elaborate_model(text_spec(text), "Tuned", dims={"batch": 3}, dtype=DType.F64)
    base, _ = elaborate_model(text_spec(text), "Base", dims={"batch": 3}, dtype=DType.F64)
    values = leaf_values(graph)
    assert {n.id for n in graph.nodes("parameter")} - {n.id for n in base.nodes("parameter")} == {
        "head.adapter.a", "head.adapter.b",
    }  # fmt: skip
    before = run(base, values)["y"]
    w, b = values["head.w"], values["head.b"]
    inside = np.linalg.solve(w.T, (before - b).T).T  # what the head read
    wanted = before + 3.0 / 2 * inside @ values["head.adapter.a"] @ values["head.adapter.b"]
    np.testing.assert_allclose(run(graph, values)["y"], wanted, atol=1e-9)


def test_one_that_starts_at_zero_changes_nothing():
    text = BASE + "model Tuned = Base {\n  adapt layers.*.mlp.up, layers.*.out : LoRA[R = 2]\n}\n"
    graph, _ = elaborate_model(text_spec(text), "Tuned", dims={"batch": 3}, dtype=DType.F64)
    base, _ = elaborate_model(text_spec(text), "Base", dims={"batch": 3}, dtype=DType.F64)
    values = {name: 0 * v if name.endswith("adapter.b") else v for name, v in leaf_values(graph).items()}
    np.testing.assert_allclose(run(graph, values)["y"], run(base, values)["y"], atol=1e-12)
    assert [n.id for n in graph.nodes("parameter") if "adapter" in n.id and "layers.1" in n.id] == [
        f"layers.1.{place}.adapter.{name}" for place in ("mlp.up", "out") for name in "ab"
    ]


def test_a_derived_model_of_a_derived_model():
    text = BASE + (
        "model A = Base {\n  adapt head : LoRA[R = 2]\n}\n"
        "model B = A {\n  adapt layers.*.out : LoRA[R = 3]\n  init head.adapter.b ~ ones\n}\n"
    )
    graph, _ = elaborate_model(text_spec(text), "B")
    assert graph["head.adapter.b"].attrs["init"] == ("ones",)
    assert "layers.0.out.adapter.a" in graph


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("adapt heat : LoRA[R = 2]", "E0107"),
        ("adapt layers.*.nothing : LoRA[R = 2]", "E0107"),
        ("adapt layers.* : LoRA[R = 2]", "E0308"),
        ("adapt layers.out : LoRA[R = 2]", "E0107"),
        ("adapt head : LoRA", "E0308"),
        ("adapt head : LoRE[R = 2]", "E0101"),
        ("adapt head : LoRA[R = 2](beta = 1.0)", "E0301"),
        ("adapt head : LayerNorm[D]", "E0319"),
        ("adapt head : LoRA[R = 2]\n  adapt head : LoRA[R = 2]", "E0319"),
    ],
)
def test_misuse(body: str, code: str):
    found = check_text(f"{BASE}model Tuned = Base {{\n  {body}\n}}\n", "a.partita")
    assert found[0].code == code


def test_only_in_a_derived_model():
    found = check_text(BASE.replace("  return head", "  adapt head : LoRA[R = 2]\n  return head"), "a.partita")
    assert [item.code for item in found] == ["E0114"]
