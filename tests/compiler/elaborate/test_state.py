"""States of blocks: batch norm against PyTorch's, old values for all of a step, layers, evaluation, misuse."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from oracles.lowered import run_lowered
from oracles.probes import probed
from oracles.torch_graphs import torch_gradients
from oracles.values import Array, assert_close, leaf_values, run
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS, MODEL
from partita.compiler.ir.types import DType
from partita.compiler.lower.module import module
from partita.compiler.passes import run_passes
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.pipeline import forward_passes, gradient_graph
from samples.spec_texts import text_spec

NORM = "use std\nmodel M : x[batch, C, Y, X] -> y[batch, C, Y, X] {\n  f : BatchNorm[C]\n  return f(x)\n}\n"
# Each layer centres by its running mean of what came before, and the backward reads the mean too.
LAYERS = """use std
block Centre[C] : x[batch, C] -> [batch, C] {
  param w[C]  ~ ones
  state mu[C] = 1
  next mu = 0.9 * mu + 0.1 * mean[batch](x)
  return tanh(w * x * mu) - mu
}
model M : x[batch, C] -> y[batch, C] {
  sizes {
       L  C
    s  3  4
  }
  layers : chain L of Centre[C]
  return layers(x)
}
"""


def graph_of(text: str, training: bool = True, dims: Mapping[str, int] = MappingProxyType({})) -> Graph:
    return elaborate_model(text_spec(text), dims={"batch": 4, **dims}, dtype=DType.F64, training=training)[0]


def values_of(graph: Graph) -> dict[str, Array]:
    values = leaf_values(graph)
    return {**values, **{node.id: np.abs(values[node.id]) for node in graph.nodes("state")}}


SHAPE = {"C": 3, "Y": 2, "X": 5}


def test_batch_norm_while_training_and_after():
    graph = graph_of(NORM, dims=SHAPE)
    values = values_of(graph)
    theirs = torch.nn.BatchNorm2d(3, dtype=torch.float64)
    ours = {"weight": "f.gain", "bias": "f.b", "running_mean": "f.mu", "running_var": "f.var"}
    state = {name: torch.tensor(values[path]) for name, path in ours.items()}
    theirs.load_state_dict(state, strict=False)
    x = torch.tensor(values["x"])
    wanted = theirs(x).detach().numpy()
    found = run(graph, values)
    assert_close(found, {"y": wanted, "f.mu": theirs.get_buffer("running_mean").numpy()}, 1e-12)
    biased = 0.9 * values["f.var"] + 0.1 * x.var((0, 2, 3), unbiased=False).numpy()
    assert_close(found, {"f.var": biased}, 1e-12)
    theirs.load_state_dict(state, strict=False)
    theirs.eval()
    after = graph_of(NORM, training=False, dims=SHAPE)
    assert not after.nodes("assign")
    assert_close(run(after, values), {"y": theirs(x).detach().numpy()}, 1e-12)


def step(text: str, dims: Mapping[str, int] = MappingProxyType({})) -> tuple[Graph, dict[str, Array]]:
    graph = run_passes(probed(graph_of(text, dims=dims)), forward_passes(), LOSS)
    return gradient_graph(graph), values_of(graph)


@pytest.mark.parametrize(("text", "dims"), [(NORM, SHAPE), (LAYERS, {})], ids=["norm", "layers"])
def test_a_step_reads_the_old_state_and_leaves_the_new(text: str, dims: Mapping[str, int]):
    graph, values = step(text, dims)
    wanted = run(graph, values)
    outputs, store = run_lowered(graph, values)
    states = {node.id: wanted[node.id] for node in graph.nodes("state")}
    assert all(np.abs(states[name] - values[name]).max() > 1e-3 for name in states)
    assert_close(store, states, 1e-10)
    assert_close(outputs, {name: value for name, value in wanted.items() if name not in states}, 1e-10)


def test_every_layer_has_its_own():
    graph, values = step(LAYERS)
    assert [node.id for node in graph.nodes("state")] == [f"layers.{index}.mu" for index in range(3)]
    assert {str(node.attrs["target"]) for node in graph.nodes("assign")} == {n.id for n in graph.nodes("state")}
    one = 0.9 * values["layers.0.mu"] + 0.1 * values["x"].mean(0)
    assert_close(run(graph, values), {"layers.0.mu": one}, 1e-12)


def test_a_module_changes_its_buffers():
    graph = run_passes(graph_of(LAYERS), forward_passes(), MODEL)
    values = values_of(graph)
    net = module(graph)
    net.load_state_dict({name: torch.tensor(values[name]) for name in net.state_dict()})
    net(torch.tensor(values["x"])).sum().backward()
    wanted = run(graph, values)
    for node in graph.nodes("state"):
        buffer = net.get_buffer(node.id)
        assert not buffer.requires_grad
        np.testing.assert_allclose(buffer.numpy(), wanted[node.id], atol=1e-12)


def test_what_names_the_batch_is_not_microbatched():
    graph, _ = step(NORM, SHAPE)
    with pytest.raises(SpecError) as refused:
        Microbatch(2)(graph)
    assert refused.value.diagnostics[0].code == "E0912"


def test_a_state_is_no_parameter():
    _, facts = elaborate_model(text_spec(LAYERS))
    assert facts.parameters == 12
    assert set(facts.parameter_dims) == {f"layers.{index}.w" for index in range(3)}


def test_gradients_are_autograds():
    graph = run_passes(probed(graph_of(LAYERS, training=False)), forward_passes(), LOSS)
    values = values_of(graph)
    loss, gradients = torch_gradients(graph, values)
    found, _ = run_lowered(gradient_graph(graph), values)
    assert_close(found, {"loss": loss, **{f"grad/{name}": one for name, one in gradients.items()}}, 1e-10)


BLOCK = """block B[C] : x[batch, C] -> [batch, C] {{
  param w[C] ~ ones
  state mu[C] = 0
  {}
  return x - mu * w
}}
model M : x[batch, C] -> [batch, C] {{
  sizes {{
       C
    s  4
  }}
  f : B[C]
  return f(x)
}}
"""


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("next w = w", "E0318"),
        ("next nu = mu", "E0318"),
        ("next mu = x", "E0318"),
        ("next mu = mu\n  next mu = mu", "E0318"),
        ("state mu[C] = 1", "E0102"),
        ("state nu[K] = 1", "E0201"),
        ("next mu = q", "E0101"),
        ("scan c in C carry h = 0 {\n    next mu = mu\n    next h = h\n    emit y = h\n  }", "E0317"),
    ],
)
def test_misuse(statement: str, code: str):
    assert check_text(BLOCK.format(statement), "a.partita")[0].code == code
