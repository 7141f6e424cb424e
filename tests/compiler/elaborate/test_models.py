"""Models of the repository: exact parameter counts, sound graphs, readable names, repetition as a fact."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import ModelFacts, Request, elaborate_model, open_model
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import MODEL
from partita.compiler.ir.types import Layer, Phase
from partita.compiler.ir.verify import verify
from partita.compiler.ops.check import check_node
from partita.compiler.passes.inline import Inline
from samples.spec_texts import ROOT, model_spec, text_spec
from samples.zoo import DIMS


@pytest.mark.parametrize(("file", "model"), DIMS, ids=[model for _, model in DIMS])
def test_graphs_are_sound(file: str, model: str):
    graph, _ = elaborate_model(model_spec(file), model)
    assert list(verify(graph, MODEL, check_node)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "specs/models").glob("*.partita")), ids=lambda path: path.stem)
def test_nothing_is_wrong_with_a_file(path: Path):
    """All its models in all their sizes, its recipes and its weight maps."""
    assert render_all(check_text(path.read_text("utf-8"), str(path))) == ""


def test_gpt3_175b_by_its_dims():
    """Brown et al. 2020, table 2.1, with GPT-2's vocabulary and ties."""
    dims = {"L": 96, "D": 12288, "H": 96, "F": 49152, "N": 2048}
    graph, facts = elaborate_model(model_spec("gpt2"), dims=dims, training=True)
    assert facts.parameters == 174_604_259_328
    assert len(graph) > 96 * 30


@pytest.fixture(scope="module")
def llama() -> tuple[Graph, ModelFacts]:
    return elaborate_model(model_spec("llama3"), "Llama3", dims={"T": 16, "batch": 2})


def test_ids_are_paths_and_variables(llama: tuple[Graph, ModelFacts]):
    graph, _ = llama
    for name in ("layers.0.attn.q.w", "layers.31.attn.q.dot", "layers.3.attn.qs", "layers.3.h", "embed.gather"):
        assert name in graph
    assert graph["layers.3.attn.q.dot"].path == "layers.3.attn.q"
    assert graph["layers.3.h"].layer == Layer("layers", 3)
    assert graph["layers.3.attn.q.w"].phase is Phase.PREPARE


def test_origin_is_innermost_first_then_the_callers(llama: tuple[Graph, ModelFacts]):
    graph, _ = llama
    places = [origin.file.rsplit("/", 1)[-1] for origin in graph["layers.3.attn.q.dot"].origin]
    assert places[0] == "linear.partita"
    assert places[1] == "attention.partita"
    assert places[-1] == "llama3.partita"


def test_kernel_functions_are_nodes_with_bodies(llama: tuple[Graph, ModelFacts]):
    graph, _ = llama
    attention = graph["layers.0.attn.y"]
    assert attention.op == "attention"
    assert attention.attrs["mask"] == "causal"
    assert [use.node for use in attention.uses[3:]] == ["start.T", "start.S"]
    body = graph.bodies[attention.body or ""]
    assert [node.attrs["name"] for node in body.nodes("input")] == ["q", "k", "v", "start.T", "start.S"]
    assert len(graph.nodes("rotary")) == 64
    assert len(graph.bodies) == 5


def test_facts(llama: tuple[Graph, ModelFacts]):
    _, facts = llama
    assert (facts.model, facts.size) == ("Llama3", "8B")
    assert facts.options == {"rope": "rotary(base = 500000.0)", "tied": "false"}
    assert [(c.path, c.dim, c.count, c.block) for c in facts.chains] == [("layers", "L", 32, "Block")]
    assert facts.inputs[0].below == "V"
    assert facts.outputs[0].dims == ("batch", "T", "V")
    assert facts.parameter_dims["layers.0.attn.k.w"] == ("D", "G", "K")


def test_derived_model_scales_its_wavelengths():
    graph, facts = elaborate_model(model_spec("llama3"), "Llama31", dims={"T": 16})
    scale = graph["layers.0.attn.qs"].attrs["scale"]
    assert scale == "llama3_scale(factor = 8.0)"
    assert facts.model == "Llama31"


def test_init_paths_decide():
    graph, _ = elaborate_model(model_spec("gpt2"))
    assert graph["blocks.5.attn.o.w"].attrs["init"] == ("normal", pytest.approx(0.02 / 24**0.5))
    assert graph["blocks.5.attn.q.w"].attrs["init"] == ("normal", 0.02)
    assert graph["blocks.5.ln1.gain"].attrs["init"] == ("ones",)


def test_ties_are_one_parameter_used_twice():
    graph, _ = elaborate_model(model_spec("gpt2"))
    assert sorted(edge.consumer for edge in graph.users("wte.table")) == ["logits", "wte.gather"]


def test_dropout_vanishes_unless_it_is_wanted():
    spec = model_spec("gpt2")
    assert elaborate_model(spec, training=False)[0].nodes("random") == []
    assert elaborate_model(spec, training=True, options={"drop": 0})[0].nodes("random") == []
    graph, _ = elaborate_model(spec, training=True)
    keys = [node.attrs["key"] for node in graph.nodes("random")]
    assert len(keys) == len(set(keys)) == 1 + 2 * 12
    assert graph["blocks.0.attn.y"].attrs["drop"] == 0.1


def test_bodies_that_are_shared_draw_apart():
    graph, _ = elaborate_model(model_spec("gpt2"), dims={"T": 4, "batch": 2}, training=True)
    nodes = Inline()(graph).nodes("random")
    keys = {node.attrs["key"] for node in nodes}
    assert len(keys) == len(nodes) == 1 + 3 * 12


def test_free_dims_stay_free():
    graph, _ = elaborate_model(model_spec("gpt2"))
    assert graph.dims()["T"].size is None
    assert graph.dims()["batch"].size is None


def test_square_matrix_is_no_trace():
    spec = text_spec("use std\nmodel M : x[T, D] -> [T, D] {\n  a : Linear[D, D](bias = false)\n  return a(x)\n}\n")
    graph, facts = elaborate_model(spec, dims={"D": 8})
    assert facts.parameters == 64
    assert [dim.name for dim in graph["a.w"].outs[0].dims] == ["D", "O"]
    assert [dim.name for dim in graph.outputs["out"].dims] == ["batch", "T", "D"]


def test_applying_shares_and_making_does_not():
    text = "use std\nmodel M : x[D] -> [D] {{\n  a : Linear[D, D]\n{made}  return {result}\n}}\n"
    shared = text_spec(text.format(made="", result="a(a(x))"))
    apart = text_spec(text.format(made="  b : Linear[D, D]\n", result="b(a(x))"))
    assert elaborate_model(shared, dims={"D": 4})[1].parameters == 20
    assert elaborate_model(apart, dims={"D": 4})[1].parameters == 40


def test_bank_puts_its_dim_in_front():
    text = """use std
model M : x[T, D] -> [T, D] {
  experts : bank E of GLU[D, F]
  return mean[E](experts(x))
}
"""
    graph, facts = elaborate_model(text_spec(text), dims={"E": 3, "D": 4, "F": 5})
    assert facts.parameters == 3 * 3 * 4 * 5
    assert [dim.name for dim in graph["experts.up.w"].outs[0].dims] == ["E", "D", "F"]
    assert list(verify(graph, MODEL, check_node)) == []


def test_taps_are_stacked_over_the_chain():
    text = """block B[D] : x[D] -> [D] {
  param w[D] ~ ones
  tap seen = x * w
  return x + seen
}
model M : x[T, D] -> [T, D] {
  sizes {
       L  D
    s  3  4
  }
  layers : chain L of B[D]
  return layers(x)
}
"""
    graph, _ = elaborate_model(text_spec(text), dims={"T": 2})
    assert [dim.name for dim in graph.outputs["seen"].dims] == ["L", "batch", "T", "D"]


def test_layers_that_differ_by_their_index():
    graph, _ = elaborate_model(model_spec("gemma2"), dims={"T": 4})
    masks = [graph[f"layers.{index}.attn.y"].attrs["mask"] for index in range(3)]
    assert masks == ["sliding(width = 4096)", "causal", "sliding(width = 4096)"]


def test_unknown_names_from_outside():
    spec = model_spec("gpt2")
    for request in (Request(size="tiny"), Request(dims={"Q": 3}), Request(options={"dorp": 0})):
        with pytest.raises(SpecError):
            open_model(spec, "GPT2", request)
    with pytest.raises(SpecError, match="there is no model `GPT3`"):
        elaborate_model(spec, "GPT3")
