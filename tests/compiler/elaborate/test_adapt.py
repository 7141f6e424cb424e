"""Adapters of derived models: where their parameters stand, what they compute, misuse."""

from __future__ import annotations

import numpy as np
import pytest
from oracles.values import leaf_values, run
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.elaborate.recipes import load_recipe
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


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_layer_alone(index: int):
    """Its adapter is read by it alone; the other layers stay alike."""
    base = BASE.replace("s  2  4  6", "s  3  4  6")
    text = base + f"model Tuned = Base {{\n  adapt layers.{index}.out : LoRA[R = 2]\n}}\n"
    graph, _ = elaborate_model(text_spec(text), "Tuned", dims={"batch": 3}, dtype=DType.F64)
    plain, _ = elaborate_model(text_spec(base), "Base", dims={"batch": 3}, dtype=DType.F64)
    more = {node.id for node in graph.nodes("parameter")} - {node.id for node in plain.nodes("parameter")}
    assert more == {f"layers.{index}.out.adapter.{name}" for name in "ab"}
    values = leaf_values(graph)
    x = values["x"]
    for layer in range(3):
        one = "model One : x[D] -> y[D] {\n  dim D = 4, F = 6\n  layer : Layer[D, F]\n  return layer(x)\n}\n"
        if layer == index:
            one += "model OneTuned = One {\n  adapt layer.out : LoRA[R = 2]\n}\n"
        name = "OneTuned" if layer == index else "One"
        single, _ = elaborate_model(text_spec(BASE + one), name, dims={"batch": 3}, dtype=DType.F64)
        own = {f"layer{key.removeprefix(f'layers.{layer}')}": value for key, value in values.items()}
        x = run(single, {**own, "x": x})["y"]
    np.testing.assert_allclose(run(graph, values)["y"], x @ values["head.w"] + values["head.b"], atol=1e-9)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("adapt layers.7.out : LoRA[R = 2]", "E0107"),
        ("adapt layers.1.5.out : LoRA[R = 2]", "E0107"),
        ("adapt layers.*.out : LoRA[R = 2]\n  adapt layers.1.mlp.up : LoRA[R = 2]", "E0319"),
    ],
)
def test_misuse_of_one_layer(body: str, code: str):
    found = check_text(f"{BASE}model Tuned = Base {{\n  {body}\n}}\n", "a.partita")
    assert found[0].code == code


def test_a_layer_of_its_own_and_then_all():
    body = "adapt layers.1.mlp.up : LoRA[R = 2]\n  adapt layers.*.out : LoRA[R = 3]"
    graph, _ = elaborate_model(text_spec(f"{BASE}model Tuned = Base {{\n  {body}\n}}\n"), "Tuned")
    assert [node.id for node in graph.nodes("parameter") if node.id.endswith("adapter.a")] == [
        "layers.0.out.adapter.a", "layers.1.mlp.up.adapter.a", "layers.1.out.adapter.a",
    ]  # fmt: skip


def test_a_derived_model_gives_its_base_dims():
    text = BASE + "model Wide = Base[D = 8, F = 2 * 8] {\n}\nmodel Wider = Wide {\n}\n"
    for name, dims, wanted in (("Wide", {}, [8, 16]), ("Wider", {"F": 4}, [8, 4])):
        graph, _ = elaborate_model(text_spec(text), name, dims=dims)
        assert [dim.size for dim in graph["layers.0.mlp.up.w"].outs[0].dims] == wanted
    for written, code in (("[Q = 8]", "E0201"), ("[8]", "E0308")):
        assert check_text(f"{BASE}model W = Base{written} {{\n}}\n", "a.partita")[0].code == code


MASKED = """use std
model M : x[T], keep[T] in bool = true -> y[T] {
  return where(keep, x, 0)
}
train t {
  model = M
  dims = [T = 3]
  data { x = tensors("x.npy")KEEP }
  loss = mean(y)
  batch = 2
  steps = 1
  optimizer = sgd(lr = 0.1)
}
"""


def test_an_input_with_a_default_is_there_if_the_data_brings_it():
    without, with_it = (text_spec(MASKED.replace("KEEP", text)) for text in ("", ', keep = tensors("k.npy")'))
    graph, facts = elaborate_model(without, "M", dims={"T": 3, "batch": 2})
    assert [port.name for port in facts.inputs] == ["x"] and [node.id for node in graph.nodes("input")] == ["x"]
    for spec, names in ((without, ["x"]), (with_it, ["x", "keep"])):
        loss, _ = elaborate_loss(spec, load_recipe(spec))
        assert [node.id for node in loss.nodes("input")] == names
