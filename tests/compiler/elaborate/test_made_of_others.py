"""Models made of others: within another, derived with statements of their own, banks whose members differ.

Each is the same as a spec that says it plainly, number for number; one recipe with all of them trains as interpreted.
"""

from __future__ import annotations

import numpy as np
import pytest
from oracles.steps import interpreted_steps, lowered_steps
from oracles.values import Array, leaf_values, run
from partita.compiler.base.diagnostic import Diagnostic
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import DType
from partita.compiler.language.format import format as formatted
from partita.compiler.pipeline import step_graph
from samples.spec_texts import text_spec

ENCODER = """use std

block Layer[D, H](drop = 0.0) : x[T, D] -> [T, D] {
  attn : Attention[D, H](mask = causal)
  return dropout(x + attn(x), drop)
}

model Encoder(drop = 0.0) : tokens[T] in V -> h[T, D] {
  sizes {
           D   H  L  V
    small  8   2  2  16
    big    16  4  1  16
  }
  embed  : Embedding[V, D]
  layers : chain L of Layer[D, H](drop)
  return layers(embed(tokens))
}
"""
TWO = (
    ENCODER
    + """
model Normed(drop = 0.1, scale = 1.0) = Encoder.small[H = 1](drop) {
  norm : LayerNorm[D]
  return scale * norm(h)
}

model Two : tokens[T] in V, other[T] in V -> logits[T, V] {
  sizes {
       D   V
    s  12  16
  }
  dim E = 3
  enc   : Encoder.big[D = D, V = V]
  norm  : Normed[D = D, V = V](drop = 0, scale = 2)
  mixes : bank e in E of MLP[D, (e + 1) * D](act = if e == 0 then gelu else tanh)
  head  : Linear[D, V]
  h = enc(tokens) + norm(other)
  return head(sum[E](mixes(h)))
}

train t {
  model     = Two
  dims      = [T = 6]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens), other = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 4
  steps     = 3
  precision = f64
  optimizer = adamw()
  lr        = 0.01
}
"""
)
PLAIN = (
    ENCODER
    + """
block One[D, H, L, V] : tokens[T] in V -> [T, D] {
  embed  : Embedding[V, D]
  layers : chain L of Layer[D, H]
  return layers(embed(tokens))
}

model Two : tokens[T] in V, other[T] in V -> logits[T, V] {
  sizes {
       D   V
    s  12  16
  }
  dim A = 1, B = 2, C = 4
  enc  : One[D, C, A, V]
  norm : One[D, A, B, V]
  norm_norm : LayerNorm[D]
  mixes_0 : MLP[D, D](act = gelu)
  mixes_1 : MLP[D, 2 * D](act = tanh)
  mixes_2 : MLP[D, 3 * D](act = tanh)
  head : Linear[D, V]
  h = enc(tokens) + 2 * norm_norm(norm(other))
  return head(mixes_0(h) + mixes_1(h) + mixes_2(h))
}
"""
)


def plainly(name: str) -> str:
    return name.replace("norm.norm.", "norm_norm.").replace("mixes.", "mixes_")


def test_all_of_them_are_what_a_plain_spec_says():
    made, facts = elaborate_model(text_spec(TWO), "Two", dims={"T": 5, "batch": 2}, dtype=DType.F64)
    plain, _ = elaborate_model(text_spec(PLAIN), "Two", dims={"T": 5, "batch": 2}, dtype=DType.F64)
    values = leaf_values(made)
    assert {plainly(node.id) for node in made.nodes("parameter")} == {node.id for node in plain.nodes("parameter")}
    assert facts.parameters == sum(np.prod([d.size or 0 for d in n.outs[0].dims]) for n in plain.nodes("parameter"))
    wanted = run(plain, {plainly(name): value for name, value in values.items()})["logits"]
    np.testing.assert_allclose(run(made, values)["logits"], wanted, rtol=1e-12, atol=1e-12)


def test_their_training_is_as_interpreted():
    spec = text_spec(TWO)
    graph = step_graph(spec, load_recipe(spec, "t"))
    rng = np.random.default_rng(0)
    weights = {n.id: rng.normal(0, 0.3, [d.size or 0 for d in n.outs[0].dims]) for n in graph.nodes("parameter")}
    batch: dict[str, Array] = {name: rng.integers(0, 16, (4, 6)) for name in ("tokens", "other", "target")}
    (ours,), (wanted,) = lowered_steps(graph, weights, [batch]), interpreted_steps(graph, weights, [batch])
    np.testing.assert_allclose(ours.outputs["loss"], wanted.outputs["loss"], rtol=1e-12)
    for name, array in wanted.store.items():
        np.testing.assert_allclose(ours.store[name], array, rtol=1e-8, atol=1e-12, err_msg=name)


# ---- banks

BANK = """use std

model M : x[D] -> y[D] {
  sizes {
       D  E
    s  4  3
  }
  router : Linear[D, E]
  own : bank e in E of Linear[D, D](bias = e > 0)
  y = own(x) * router(x)
  z = own(y)
  return sum[E](z)
}
"""


def test_a_member_reads_its_slice_of_what_carries_the_dim():
    graph, facts = elaborate_model(text_spec(BANK), dims={"batch": 2}, dtype=DType.F64)
    values = leaf_values(graph)
    assert [name for name in facts.parameter_dims if name.startswith("own")] == [
        "own.0.w", "own.1.w", "own.1.b", "own.2.w", "own.2.b",
    ]  # fmt: skip
    x, weights = values["x"], [values[f"own.{e}.w"] for e in range(3)]
    bias = [0.0, values["own.1.b"], values["own.2.b"]]
    gate = x @ values["router.w"] + values["router.b"]
    y = [(x @ w + b) * gate[:, [e]] for e, (w, b) in enumerate(zip(weights, bias, strict=True))]
    wanted = sum(part @ w + b for part, w, b in zip(y, weights, bias, strict=True))
    np.testing.assert_allclose(run(graph, values)["y"], wanted, rtol=1e-12)


def test_a_bank_within_a_chain_and_a_chain_within_a_bank():
    text = """use std
block Member[D](deep: int) : x[D] -> [D] {
  dim L = deep
  layers : chain L of Linear[D, D]
  return layers(x)
}
block Layer[D, E] : x[D] -> [D] {
  members : bank e in E of Member[D](deep = e + 1)
  return x + sum[E](members(x))
}
model M : x[D] -> y[D] {
  sizes {
       D  E  N
    s  4  2  3
  }
  layers : chain N of Layer[D, E]
  init layers.*.members.1.layers.*.w ~ zeros
  return layers(x)
}
"""
    graph, facts = elaborate_model(text_spec(text), dims={"batch": 2}, dtype=DType.F64)
    assert facts.parameters == 3 * 3 * (4 * 4 + 4)
    starts = {node.id: node.attrs["init"] for node in graph.nodes("parameter")}
    assert starts["layers.2.members.1.layers.1.w"] == ("zeros",) != starts["layers.2.members.0.layers.0.w"]
    assert np.isfinite(run(graph, leaf_values(graph))["y"]).all()


# ---- derived models


def derived(body: str, head: str = "Tuned = Base") -> str:
    base = """use std
model Base(gain = 1.0) : x[D] -> y[D] {
  sizes {
       D
    s  4
    m  6
  }
  f : Linear[D, D]
  h = f(x)
  return gain * h
}
"""
    return f"{base}model {head} {{\n{body}}}\n"


def outputs(text: str, name: str) -> dict[str, Array]:
    graph, _ = elaborate_model(text_spec(text), name, dims={"batch": 2}, dtype=DType.F64)
    return run(graph, leaf_values(graph))


def test_a_derived_body_sees_and_replaces_what_its_base_returns():
    text = derived('  param scale[D] ~ ones\n  check D > 2, "D is {D}"\n  tap before = h\n  return y * scale + x\n')
    graph, facts = elaborate_model(text_spec(text), "Tuned", dims={"batch": 2}, dtype=DType.F64)
    values = leaf_values(graph)
    found = run(graph, values)
    assert facts.model == graph.name == "Tuned" and facts.taps == ("before",)
    h = values["x"] @ values["f.w"] + values["f.b"]
    np.testing.assert_allclose(found["before"], h, rtol=1e-12)
    np.testing.assert_allclose(found["y"], h * values["scale"] + values["x"], rtol=1e-12)


def test_without_a_return_the_base_s_holds():
    np.testing.assert_array_equal(
        outputs(derived("  tap twice = 2 * y\n"), "Tuned")["y"], outputs(derived(""), "Base")["y"]
    )


def test_what_is_derived_of_the_derived_goes_on_from_it():
    text = derived("  u = 2 * y\n  return u\n") + "model Third = Tuned {\n  return u + y\n}\n"
    np.testing.assert_allclose(outputs(text, "Third")["y"], 4 * outputs(text, "Base")["y"], rtol=1e-12)


def test_a_row_of_the_base_and_a_table_of_one_s_own():
    assert elaborate_model(text_spec(derived("", "Tuned = Base.m")), "Tuned")[1].size == "m"
    text = derived("  sizes {\n       D  k\n    x  8  3\n  }\n  return k * y\n", "Tuned(k = 1) = Base.m(gain = 2)")
    graph, facts = elaborate_model(text_spec(text), "Tuned", dims={"batch": 2}, dtype=DType.F64)
    assert facts.size == "x" and facts.parameters == 72 and facts.options == {"gain": "2"}
    values = leaf_values(graph)
    np.testing.assert_allclose(run(graph, values)["y"], 6 * (values["x"] @ values["f.w"] + values["f.b"]), rtol=1e-12)


# ---- misuse


def only(text: str) -> Diagnostic:
    (found,) = check_text(text, "spec.partita")
    return found


MISUSE = {
    "a model within itself": (
        "model M : x[D] -> [D] {\n  sizes {\n       D\n    s  4\n  }\n  m : M[D = D]\n  return m(x)\n}\n", "E0312",
    ),
    "a dim that the model lacks": (
        "model M : t[T] in V -> [T, D] {\n  sizes {\n       D  V\n    s  8  16\n  }\n  e : Encoder[D = D, Q = D]\n"
        "  return e(t)\n}\n", "E0308",
    ),
    "dims by place": (
        "model M : t[T] in V -> [T, D] {\n  sizes {\n       D  V\n    s  8  16\n  }\n  e : Encoder[D]\n"
        "  return e(t)\n}\n", "E0308",
    ),
    "an option that the model lacks": (
        "model M : t[T] in V -> [T, D] {\n  sizes {\n       D  V\n    s  8  16\n  }\n  e : Encoder[D = D](dorp = 0)\n"
        "  return e(t)\n}\n", "E0301",
    ),
    "a row that the model lacks": (
        "model M : t[T] in V -> [T, D] {\n  sizes {\n       D  V\n    s  8  16\n  }\n  e : Encoder.huge[D = D]\n"
        "  return e(t)\n}\n", "E0111",
    ),
    "an adapter that is a model": ("model M = Encoder {\n  adapt embed : Encoder\n}\n", "E0105"),
    "members that give different axes": (
        "block Wide[D, N = 2 * D] : x[D] -> [N] {\n  up : Linear[D, N]\n  return up(x)\n}\n"
        "model M : x[D] -> y[D] {\n  sizes {\n       D  E\n    s  4  2\n  }\n  b : bank e in E of Wide[D, e * D + D]\n"
        "  y = b(x)\n  return x\n}\n", "E0314",
    ),
    "a statement of another's": ("model M = Encoder {\n  return h + nothing\n}\n", "E0101"),
    "a name that the base has": ("model M = Encoder {\n  layers = h\n  return layers\n}\n", "E0102"),
    "other axes than the base's": ("model M = Encoder {\n  return sum[D](h)\n}\n", "E0212"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code"), MISUSE.values(), ids=MISUSE)
def test_misuse(text: str, code: str):
    assert only(ENCODER + "\n" + text).code == code


def test_a_bank_in_a_block_that_nothing_makes_is_checked():
    text = "use std\nblock B[D, E] : x[D] -> [D] {\n  b : bank e in E of MLP[D, e + D]\n  return sum[E](b(x)) / E\n}\n"
    assert check_text(text, "spec.partita") == ()


def test_they_are_formatted():
    assert formatted(formatted(TWO)) == formatted(TWO)
