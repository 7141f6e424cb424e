"""What elaborated models compute: against a forward pass of GPT-2 and of Llama written by hand in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import DType
from samples.spec_texts import model_spec, text_spec

Arrays = dict[str, np.ndarray]
BATCH, TOKENS = 2, 7


def random_parameters(graph: Graph, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        node.id: rng.normal(0, 0.3, [dim.size or 0 for dim in node.outs[0].dims]) for node in graph.nodes("parameter")
    }


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def causal_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q, k, v [batch, T, H, K]"""
    scores = np.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
    t = np.arange(q.shape[1])
    weights = softmax(np.where(t[:, None] >= t[None, :], scores, -np.inf))
    return np.einsum("bhts,bshk->bthk", weights, v)


def gpt2_by_hand(p: Arrays, tokens: np.ndarray, layers: int) -> np.ndarray:
    def norm(name: str, x: np.ndarray) -> np.ndarray:
        c = x - x.mean(-1, keepdims=True)
        return p[f"{name}.gain"] * c / np.sqrt((c**2).mean(-1, keepdims=True) + 1e-5) + p[f"{name}.b"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    x = p["wte.table"][tokens] + p["wpe.table"][: tokens.shape[1]]
    for at in range(layers):
        b = f"blocks.{at}"
        n = norm(f"{b}.ln1", x)
        q, k, v = (
            np.einsum("btd,dhk->bthk", n, p[f"{b}.attn.{name}.w"]) + p[f"{b}.attn.{name}.b"] for name in ("q", "k", "v")
        )
        y = causal_attention(q, k, v)
        x = x + np.einsum("bthk,hkd->btd", y, p[f"{b}.attn.o.w"]) + p[f"{b}.attn.o.b"]
        h = gelu(norm(f"{b}.ln2", x) @ p[f"{b}.mlp.up.w"] + p[f"{b}.mlp.up.b"])
        x = x + h @ p[f"{b}.mlp.down.w"] + p[f"{b}.mlp.down.b"]
    return norm("ln_f", x) @ p["wte.table"].T


def llama_by_hand(p: Arrays, tokens: np.ndarray, layers: int, base: float) -> np.ndarray:
    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return p[f"{name}.gain"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    def rotary(x: np.ndarray) -> np.ndarray:
        half = x.shape[-1] // 2
        angle = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = p["embed.table"][tokens]
    for at in range(layers):
        b = f"layers.{at}"
        n = norm(f"{b}.norm1", x)
        q = rotary(np.einsum("btd,dhk->bthk", n, p[f"{b}.attn.q.w"]))
        k = rotary(np.einsum("btd,dgk->btgk", n, p[f"{b}.attn.k.w"]))
        v = np.einsum("btd,dgk->btgk", n, p[f"{b}.attn.v.w"])
        heads = q.shape[2] // k.shape[2]
        y = causal_attention(q, k.repeat(heads, 2), v.repeat(heads, 2))
        x = x + np.einsum("bthk,hkd->btd", y, p[f"{b}.attn.o.w"])
        n = norm(f"{b}.norm2", x)
        gate = n @ p[f"{b}.mlp.gate.w"]
        x = x + (gate / (1 + np.exp(-gate)) * (n @ p[f"{b}.mlp.up.w"])) @ p[f"{b}.mlp.down.w"]
    return norm("norm", x) @ p["head.w"]


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 13, (BATCH, TOKENS))


def test_gpt2(tokens: np.ndarray):
    dims = {"L": 2, "D": 8, "H": 2, "F": 12, "V": 13, "N": 9, "T": TOKENS, "batch": BATCH}
    graph, _ = elaborate_model(model_spec("gpt2"), dims=dims, dtype=DType.F64)
    p = random_parameters(graph)
    found = interpret(graph, {**p, "tokens": tokens})["logits"]
    np.testing.assert_allclose(found, gpt2_by_hand(p, tokens, 2), rtol=1e-11, atol=1e-11)


def test_llama(tokens: np.ndarray):
    dims = {"L": 2, "D": 12, "H": 6, "G": 3, "F": 10, "V": 13, "T": TOKENS, "batch": BATCH}
    graph, _ = elaborate_model(model_spec("llama3"), "Llama3", dims=dims, dtype=DType.F64)
    p = random_parameters(graph)
    found = interpret(graph, {**p, "tokens": tokens})["logits"]
    np.testing.assert_allclose(found, llama_by_hand(p, tokens, 2, 500000.0), rtol=1e-11, atol=1e-11)


def test_free_dims_take_their_sizes_from_the_data(tokens: np.ndarray):
    dims = {"L": 1, "D": 8, "H": 2, "F": 12, "V": 13, "N": 9}
    graph, _ = elaborate_model(model_spec("gpt2"), dims=dims, dtype=DType.F64)
    p = random_parameters(graph)
    found = interpret(graph, {**p, "tokens": tokens})["logits"]
    np.testing.assert_allclose(found, gpt2_by_hand(p, tokens, 1), rtol=1e-11, atol=1e-11)


X = np.random.default_rng(2).normal(0, 1, (BATCH, 3, 4))
SMALL = {
    "reverse[T](x)": X[:, ::-1],
    "x[T = 1]": X[:, 1],
    "last[T](x)": X[:, -1],
    "relu(-x + 1) * 2 - x / 4": np.maximum(1 - X, 0) * 2 - X / 4,
    "x ^ 2 + x ^ 3 + 2 ^ x": X**2 + X**3 + 2**X,
    "(x ^ 2) ^ 0.5 + (x ^ 2 + 1) ^ -0.5": np.abs(X) + 1 / np.sqrt(X**2 + 1),
    "clamp(x, -0.5, 0.5)": np.clip(X, -0.5, 0.5),
    "x[D -> (A B)][(A B) -> D]": X,
    "softcap(x)": 50 * np.tanh(X / 50),
    "min[T](x) + max[T](x)": X.min(1) + X.max(1),
    "mean[T, D](x)": X.mean((1, 2)),
    "where(index[T] % 2 == 0 and not (x > 0), x, 1)": np.where((np.arange(3)[:, None] % 2 == 0) & ~(X > 0), X, 1),
    "x |> relu |> softmax[D]": softmax(np.maximum(X, 0)),
    "length[T] * x + T": 3 * X + 3,
    "dot[D](x, x[T -> S])": np.einsum("btd,bsd->bts", X, X),
    "if D > 3 then x else -x": X,
    "stack[A](x, 2 * x)[A = 1]": 2 * X,
    "exp(x) - sqrt(exp(x)) * log(4)": np.exp(X) - np.exp(X / 2) * math.log(4),
    "floor(x)": np.floor(X),
}


@pytest.mark.parametrize(("text", "wanted"), SMALL.items(), ids=list(SMALL))
def test_expressions(text: str, wanted: np.ndarray):
    dims = "T, S" if "S]" in text else "D" if wanted.ndim == 2 else "" if wanted.ndim == 1 else "T, D"
    body = f"{{\n  dim A = 2, B = 2\n  y = {text}\n  return y\n}}\n"
    spec = text_spec(f"use std\nmodel M : x[T, D] -> y[{dims}] {body}")
    graph, _ = elaborate_model(spec, dims={"T": 3, "D": 4, "batch": BATCH}, dtype=DType.F64)
    found = interpret(graph, {"x": X})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_split_and_concat_are_inverse():
    text = """model M : x[T, D] -> y[T, D] {
  dim A = 1, B = 3
  a, b = split[D -> A + B](x)
  return concat[B + A -> D](2 * b, a)
}
"""
    graph, _ = elaborate_model(text_spec(text), dims={"T": 3, "D": 4, "batch": BATCH}, dtype=DType.F64)
    found = interpret(graph, {"x": X})["y"]
    np.testing.assert_allclose(found, np.concatenate([2 * X[..., 1:], X[..., :1]], -1))


def test_dims_bound_at_the_call_mix_another_axis():
    text = """use std
block Sum[D] : x[T, D] -> [D] {
  return sum[T](x)
}
model M : x[P, T, D] -> y[P, D], z[T, D] {
  s : Sum[D]
  return s(x), s[T = P](x)
}
"""
    graph, _ = elaborate_model(text_spec(text), dims={"P": 2, "T": 3, "D": 4, "batch": BATCH}, dtype=DType.F64)
    x = np.random.default_rng(3).normal(size=(BATCH, 2, 3, 4))
    found = interpret(graph, {"x": x})
    np.testing.assert_allclose(found["y"], x.sum(2))
    np.testing.assert_allclose(found["z"], x.sum(1))


def test_a_carried_axis_may_have_the_name_of_an_inner_dim():
    """x carries F, and MLP has an F of its own."""
    text = "use std\nmodel M : x[F, D] -> y[F, D] {\n  mlp : MLP[D, F](act = relu, bias = false)\n  return mlp(x)\n}\n"
    graph, _ = elaborate_model(text_spec(text), dims={"F": 3, "D": 4, "batch": BATCH}, dtype=DType.F64)
    p = random_parameters(graph)
    found = interpret(graph, {**p, "x": X})["y"]
    np.testing.assert_allclose(found, np.maximum(X @ p["mlp.up.w"], 0) @ p["mlp.down.w"], rtol=1e-12)


def test_a_square_matrix_is_applied_as_one():
    text = "use std\nmodel M : x[T, D] -> y[T, D] {\n  f : Linear[D, D]\n  return f(f(x))\n}\n"
    graph, _ = elaborate_model(text_spec(text), dims={"T": 3, "D": 4, "batch": BATCH}, dtype=DType.F64)
    p = random_parameters(graph)
    once = X @ p["f.w"] + p["f.b"]
    found = interpret(graph, {**p, "x": X})["y"]
    np.testing.assert_allclose(found, once @ p["f.w"] + p["f.b"], rtol=1e-12)


def test_a_bank_maps_its_members():
    text = "use std\nmodel M : x[T, D] -> y[E, T, D] {\n  e : bank E of GLU[D, F](act = relu)\n  return e(x)\n}\n"
    dims = {"T": 3, "D": 4, "E": 2, "F": 5, "batch": BATCH}
    graph, _ = elaborate_model(text_spec(text), dims=dims, dtype=DType.F64)
    p = random_parameters(graph)
    wanted = np.stack(
        [(np.maximum(X @ p["e.gate.w"][e], 0) * (X @ p["e.up.w"][e])) @ p["e.down.w"][e] for e in range(2)], axis=1
    )
    np.testing.assert_allclose(interpret(graph, {**p, "x": X})["y"], wanted, rtol=1e-12)
