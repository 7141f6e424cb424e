"""Scans: std's recurrent blocks against PyTorch's, what bodies may hold, microbatches, misuse."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from oracles.lowered import run_lowered
from oracles.probes import probed
from oracles.torch_graphs import torch_gradients
from oracles.values import Array, assert_close, leaf_values, run
from partita.compiler.cost.flops import by_phase
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS, MODEL
from partita.compiler.ir.text import parse_graph, print_graph
from partita.compiler.ir.types import DType, Phase
from partita.compiler.ir.verify import verify
from partita.compiler.ops.check import check_node
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.pipeline import forward_passes, gradient_graph
from samples.spec_texts import text_spec

SIZES = {"batch": 2, "T": 5, "D": 3, "C": 4}


def model(body: str, ports: str = "x[T, D]", result: str = "y[T, C]", training: bool = False, **dims: int) -> Graph:
    text = f"use std\nmodel M : {ports} -> {result} {{\n{body}\n}}\n"
    known = {
        name: size for name, size in {**SIZES, **dims}.items() if name == "batch" or re.search(rf"\b{name}\b", text)
    }
    return elaborate_model(text_spec(text), dims=known, dtype=DType.F64, training=training)[0]


def tensors(values: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def set_to(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    module.get_parameter(name).copy_(value)


def test_lstm():
    graph = model("  f : LSTM[D, C]\n  return f(x)")
    values = leaf_values(graph)
    v = tensors(values)
    theirs = torch.nn.LSTM(3, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        set_to(theirs, "weight_ih_l0", v["f.wx"].permute(1, 2, 0).reshape(16, 3))
        set_to(theirs, "weight_hh_l0", v["f.wh"].permute(1, 2, 0).reshape(16, 4))
        set_to(theirs, "bias_ih_l0", v["f.b"].reshape(16))
        set_to(theirs, "bias_hh_l0", torch.zeros(16, dtype=torch.float64))
        wanted = theirs(v["x"])[0]
    np.testing.assert_allclose(run(graph, values)["y"], wanted.numpy(), atol=1e-12)


def test_gru():
    graph = model("  f : GRU[D, C]\n  return f(x)")
    values = leaf_values(graph)
    v = tensors(values)
    theirs = torch.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        set_to(theirs, "weight_ih_l0", v["f.wx"].permute(1, 2, 0).reshape(12, 3))
        set_to(theirs, "weight_hh_l0", v["f.wh"].permute(1, 2, 0).reshape(12, 4))
        set_to(theirs, "bias_ih_l0", v["f.bx"].reshape(12))
        set_to(theirs, "bias_hh_l0", v["f.bh"].reshape(12))
        wanted = theirs(v["x"])[0]
    np.testing.assert_allclose(run(graph, values)["y"], wanted.numpy(), atol=1e-12)


def test_helpers_along_a_dim():
    graph = model(
        "  return recurrence[T](x, x), shift[T](x), last[T](x), reverse[T](x)", "x[T]", "a[T], b[T], c[], d[T]"
    )
    x = np.asarray([[0.5, 2.0, 3.0, 1.0, 4.0]])
    found = run(graph, {"x": np.concatenate([x, 2 * x])})
    h, states = 0.0, list[float]()
    for value in x[0]:
        h = value * h + value
        states.append(h)
    np.testing.assert_allclose(found["a"][0], states)
    np.testing.assert_array_equal(found["b"][0], [0, 0.5, 2, 3, 1])
    np.testing.assert_array_equal(found["c"], [4, 8])
    np.testing.assert_array_equal(found["d"][0], x[0, ::-1])


# What a body may hold: the index as a number, another scan, a kernel function, blocks, whole tensors, several emits.
BODIES = {
    "index": """
  scan t in T carry h = 0 {
    n = h + x[T = t] * (t + 1)
    next h = n
    emit y = n
  }""",
    "whole": """
  scan t in T carry h = zeros[D] {
    n = tanh(h + mean[T](x) - x[T = t])
    next h = n
    emit y = n
  }""",
    "count": """
  scan t in T carry h = zeros[D], n = index[D] {
    next n = n + 1
    next h = h * 0.5 + x[T = t] * n
    emit y1 = h + x[T = t]
    emit z = h
  }
  y = y1 * z""",
    "block": """
  f : MLP[D, D](act = silu)
  scan t in T carry h = zeros[D] {
    n = f(h) + x[T = t]
    next h = n
    emit y = softmax[D](n)
  }""",
    "nested": """
  scan t in T carry h = zeros[D] {
    scan d in D carry g = 0 {
      m = tanh(g + x[T = t][D = d] + h[D = d])
      next g = m
      emit z = m
    }
    next h = z + 0.5 * h
    emit y = z * h
  }""",
    "constant": """
  scan t in T carry h = 0 {
    next h = 1
    emit y = h + x[T = t]
  }""",
}


@pytest.mark.parametrize("name", BODIES)
def test_gradients(name: str):
    head = "  first : Linear[E, D]\n  x = first(u)\n"
    graph = probed(model(f"{head}{BODIES[name]}\n  return y", "u[T, E]", "out[T, D]", E=2))
    values = leaf_values(graph)
    ready = run_passes(graph, forward_passes(), LOSS)
    found, _ = run_lowered(gradient_graph(ready), values)
    assert_close(found, run(Differentiate()(ready), values), 1e-10)
    assert_close(found, run(graph, values), 1e-10)
    if name != "nested":  # the oracle knows one level
        loss, gradients = torch_gradients(ready, values)
        assert_close(found, {"loss": loss, **{f"grad/{key}": one for key, one in gradients.items()}}, 1e-10)


def test_text_and_soundness():
    graph = gradient_graph(run_passes(probed(model("  f : GRU[D, C]\n  return f(x)")), forward_passes(), LOSS))
    assert parse_graph(print_graph(graph)) == graph
    assert not list(verify(model("  f : GRU[D, C]\n  return f(x)"), MODEL, check_node))


def test_work_is_that_of_the_steps():
    """Per step and row 2 · 4C · C forward (wx outside: 2 · 4C · D), twice that backward."""
    graph = gradient_graph(run_passes(probed(model("  f : LSTM[D, C]\n  return f(x)")), forward_passes(), LOSS))
    found = by_phase(graph)
    rows = SIZES["batch"] * SIZES["T"]
    forward = rows * 2 * 4 * 4 * (3 + 4)
    assert found[Phase.FORWARD].model_flops == forward
    assert found[Phase.BACKWARD].model_flops == 2 * forward - rows * 2 * 4 * 4 * 3  # x wants no gradient


def test_every_layer_of_a_chain_has_the_same_body():
    graph = model("  f : chain L of LSTM[D, D]\n  return f(x)", result="y[T, D]", L=3)
    assert {node.body for node in graph.nodes("scan")} == {"scan"}
    values = leaf_values(probed(graph))
    ready = run_passes(probed(graph), forward_passes(), LOSS)
    gradients = gradient_graph(ready)
    assert len({node.body for node in gradients.nodes("scan")}) == 2
    found, _ = run_lowered(gradients, values)
    assert_close(found, run(Differentiate()(ready), values), 1e-10)


def test_microbatches():
    graph = probed(model("  f : LSTM[D, C]\n  return f(x)", batch=4))
    values = leaf_values(graph)
    gradients = gradient_graph(run_passes(graph, forward_passes(), LOSS))
    parts = Microbatch(2)(gradients)
    wanted = {name: value for name, value in run(gradients, values).items() if name.startswith("grad/")}
    assert wanted
    assert_close(run(parts, values), wanted, 1e-10)
    rows = [{name: values[name][at : at + 2] for name in ("x", "probe/y")} for at in (0, 2)]
    found, _ = run_lowered(parts, values, [{**values, **row} for row in rows])
    assert_close(found, wanted, 1e-10)


def test_random_numbers_differ_from_step_to_step():
    body = "  scan t in T carry h = 0 {\n    next h = h\n    emit y = dropout(x[T = t], 0.5) + h\n  }\n  return y"
    graph = model(body, result="y[T, D]", training=True, T=40)
    (drawn,) = graph.nodes("random")
    assert drawn.outs[0].dims[0].name == "T"
    found = interpret(graph, {"x": np.ones((2, 40, 3))})["y"]
    assert len({row.tobytes() for row in found[0]}) > 4
    assert set(np.unique(found)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("carry h = 0 {\n    emit y = h + x[T = t]\n  }", "E0317"),
        ("carry h = 0 {\n    next h = x[T = t]\n  }", "E0317"),
        ("carry h = 0 {\n    next g = h\n    next h = h\n    emit y = h\n  }", "E0317"),
        ("carry h = 0 {\n    next h = h\n    next h = h\n    emit y = h\n  }", "E0317"),
        ("carry h = 0 {\n    next h = h\n    emit y = h\n    emit y = h\n  }", "E0317"),
        ("carry h = 0 {\n    next h = x\n    emit y = h\n  }", "E0317"),
        ("carry h = 0 {\n    next h = h\n    emit y = x\n  }", "E0317"),
        ("carry h = index[D] {\n    next h = h + 0.5\n    emit y = h + x[T = t]\n  }", "E0317"),
        ("carry x = 0 {\n    next x = x\n    emit y = x\n  }", "E0102"),
        ("carry h = 0 {\n    next h = h\n    emit y = h + x[T = t]\n    return h\n  }", "E0114"),
        ("carry h = 0 {\n    next h = h\n    tap k = h\n    emit y = h + x[T = t]\n  }", "E0114"),
        ("carry h = 0 {\n    next h = h + q\n    emit y = h\n  }", "E0101"),
        ("carry h = relu {\n    next h = h\n    emit y = h\n  }", "E0105"),
    ],
)
def test_misuse(body: str, code: str):
    sizes = "  sizes {\n       D\n    s  3\n  }\n"
    text = f"use std\nmodel M : x[T, D] -> [T, D] {{\n{sizes}  scan t in T {body}\n  return y\n}}\n"
    assert check_text(text, "a.partita")[0].code == code


def test_emit_and_next_outside_of_a_scan():
    text = "model M : x[T, D] -> [T, D] {{\n  sizes {{\n       D\n    s  3\n  }}\n  {}\n  return x\n}}\n"
    assert [item.code for item in check_text(text.format("emit y = x"), "a.partita")] == ["E0114"]
    assert [item.code for item in check_text(text.format("scan t in K carry h = 0 {\n  }"), "a.partita")] == ["E0201"]
