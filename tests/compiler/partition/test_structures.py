"""What comes out for known models: the splits that people found by hand, found by the solver from roles alone.

With the batch and the sequence kept from the axis, a block of a transformer is split column-then-row (Shoeybi et al.
2019): heads in attention, F in the MLP, the vocabulary in embedding and loss, one all-reduce forward and one backward
per half block, or its halves, a reduce-scatter and an all-gather.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from partita.compiler import pipeline
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.base.span import Source
from partita.compiler.cost.cluster import H100_NODES, Cluster, Level
from partita.compiler.cost.memory import step_memory
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import LOCAL
from partita.compiler.ir.types import DType, Node, Phase
from partita.compiler.ops.collectives import COLLECTIVES
from partita.compiler.partition.decide import Decision
from partita.compiler.passes import check as check_graph
from partita.compiler.passes.localize import localize
from samples.spec_texts import ROOT

MESH = Mesh((("data", 4),))
ONE_NODE = replace(H100_NODES, levels=(Level(64, H100_NODES.levels[0].link),))  # NVLink to all
ALONE = (("batch", None), ("T", None))  # nothing but the model's own dims is left to the axis


# Llama 3 70B (Dubey et al. 2024, table 3), three of its layers.
LLAMA_70B = """
model Short : tokens[T] in V -> logits[T, V] {
  sizes {
         L  D     H   G  F      V
    70B  3  8192  64  8  28672  128256
  }
  embed  : Embedding[V, D]
  layers : chain L of Block[D, H, G, F](rope = rotary(base = 500000.0))
  head   : Linear[D, V](bias = false)
  return head(layers(embed(tokens)))
}
"""


# Mixtral 8x7B (Jiang et al. 2024, table 1), three of its layers.
MIXTRAL_8X7B = """
model Short : tokens[T] in V -> logits[T, V] {
  sizes {
          L  D     H   G  F      E  V
    8x7B  3  4096  32  8  14336  8  32000
  }
  embed  : Embedding[V, D]
  layers : chain L of Block[D, H, G, F, E]
  head   : Linear[D, V](bias = false)
  return head(layers(embed(tokens)))
}
"""


def decided(
    model: str, file: str, plan: Plan, *, length: int = 1024, batch: int = 1, cluster: Cluster = H100_NODES,
    inline: str = "", more: str = "", device: str = "cpu",
) -> Decision:  # fmt: skip
    """A model's training step laid out."""
    text = f"""use std
use models.{file}
{inline}
train r {{
  model = {model}
  dims = [T = {length}]
  data {{ read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }}
  loss = mean(cross_entropy[V](logits, target))
  batch = {batch}
  steps = 5
  optimizer = adamw()
  lr = 0.001
  {more}
}}
"""
    spec, faults = load(Source(str(ROOT / "specs/recipes/structure.partita"), text))
    assert spec is not None, faults
    return pipeline.partitioned_step(spec, load_recipe(spec), plan, cluster=cluster, device=device)


@cache
def over_tensor(model: str, file: str, size: int = 4) -> Graph:
    return decided(model, file, Plan((("tensor", size),), ALONE)).graph


def layout(graph: Graph, name: str) -> str:
    return graph[name].layouts[0].text(graph[name].outs[0].dims)


def large(graph: Graph, chain: str, phase: Phase) -> Counter[str]:
    """The collectives of a middle layer that move activations, an all-reduce counted as its two halves."""
    found: Counter[str] = Counter()
    for node in graph:
        layer = node.layer is not None and (node.layer.chain, node.layer.index) == (chain, 1)
        if layer and node.phase is phase and node.op in COLLECTIVES and _is_activation(node):
            halves = ("reduce_scatter", "all_gather") if node.op == "all_reduce" else (node.op,)
            found.update(halves)
    return found


def _is_activation(node: Node) -> bool:
    names = [dim.name for dim in node.outs[0].dims]
    return bool({"T", "S", "E.rows"} & {*names}) and "D" in names


@pytest.mark.parametrize(
    ("model", "file", "chain", "weights"),
    [
        ("GPT2.small", "gpt2", "blocks", ("attn.q.w [D H:tensor K]", "attn.o.w [H:tensor K D]", "mlp.up.w [D F:tensor]",
                                          "mlp.down.w [F:tensor D]")),
        ("Llama3.8B", "llama3", "layers", ("attn.q.w [D H:tensor K]", "attn.k.w [D G:tensor K]",
                                           "attn.o.w [H:tensor K D]", "mlp.gate.w [D F:tensor]",
                                           "mlp.down.w [F:tensor D]")),
    ],
)  # fmt: skip
def test_column_then_row(model: str, file: str, chain: str, weights: tuple[str, ...]) -> None:
    graph = over_tensor(model, file)
    found = [f"{name} {layout(graph, f'{chain}.1.{name}')}" for name in (text.partition(" ")[0] for text in weights)]
    assert found == list(weights)
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert large(graph, chain, phase) == {"reduce_scatter": 2, "all_gather": 2}


def test_the_vocabulary_is_cut_in_embedding_and_loss() -> None:
    graph = over_tensor("GPT2.small", "gpt2")
    assert layout(graph, "wte.table") == "[V:tensor D]"  # 50257 over 4: the last part is shorter
    assert layout(graph, "wte.gather") == "[batch T D]+sum(tensor)"
    assert layout(graph, "loss.cross_entropy.lse") == "[batch T]+lse(tensor)"
    wide = [n for n in graph.nodes() if n.op in COLLECTIVES and any(d.name == "V" and n.phase is not Phase.PREPARE
            and n.phase is not Phase.UPDATE and len(n.outs[0].dims) == 3 for d in n.outs[0].dims)]  # fmt: skip
    assert not wide, "the logits stay where they are"


def test_low_logits_are_cut_like_wide_ones() -> None:
    """Their log-sum-exp and loss are wide, their gradient is as low as they are."""
    mesh = Mesh((("tensor", 4),))
    graph = decided("GPT2.small", "gpt2", Plan(mesh.axes, ALONE), more="precision = mixed(compute = bf16)").graph
    local = localize(graph, mesh, (1,))
    assert local["all_reduce/loss.cross_entropy.hit"].outs[0].dtype is DType.BF16
    assert local["loss.cross_entropy.loss"].outs[0].dtype is DType.F32
    (backward,) = local.nodes("logsumexp_backward")
    assert backward.outs[0].dtype is DType.BF16
    check_graph(local, LOCAL, "one device's graph")


def test_a_parallel_block_has_one_all_reduce() -> None:
    graph = over_tensor("PaLM.8B", "palm")
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert large(graph, "layers", phase) == {"reduce_scatter": 1, "all_gather": 1}


def test_where_the_sequence_may_be_cut_it_is_between_the_halves() -> None:
    plan = Plan((("tensor", 4),), (("batch", None),))
    graph = decided("Llama3.8B", "llama3", plan, length=2048).graph
    assert layout(graph, "layers.1.h") == "[batch T:tensor D]"
    assert layout(graph, "layers.1.attn.y") == "[batch T G:tensor R K]"
    assert large(graph, "layers", Phase.FORWARD) == {"reduce_scatter": 2, "all_gather": 2}


def test_batch_over_data_and_heads_over_tensor() -> None:
    plan = Plan((("data", 2), ("tensor", 4)), (("batch", "data"), ("T", None)))
    graph = decided("GPT2.small", "gpt2", plan, batch=2).graph
    assert layout(graph, "blocks.1.attn.q.dot") == "[batch:data T H:tensor K]"
    summed = graph["sum/grad/blocks.1.mlp.up.w"]
    assert "F:tensor" in summed.layouts[0].text(summed.outs[0].dims)


def test_key_value_heads_over_more_devices_than_there_are() -> None:
    """Eight over sixteen: the axis is 8 × 2, queries are cut by both factors, keys by the first, gradients by a sum."""
    decision = decided("Short.70B", "llama", Plan((("tensor", 16),), ALONE), cluster=ONE_NODE, inline=LLAMA_70B)
    graph = decision.graph
    assert str(decision.mesh) == "tensor 16 (8 × 2)"
    both = "tensor.1.tensor.2"
    assert layout(graph, "layers.1.attn.q.w") == f"[D H:{both} K]"
    assert layout(graph, "layers.1.attn.o.w") == f"[H:{both} K D]"
    assert layout(graph, "layers.1.mlp.down.w") == f"[F:{both} D]"
    queries, keys, *_ = (graph[use.node].layouts[use.output].text(use.dims) for use in graph["layers.1.attn.y"].uses)
    assert (queries, keys) == ("[batch T G:tensor.1 R:tensor.2 K]", "[batch S G:tensor.1 K]")
    back = graph["grad/layers.1.attn.y.attention_backward"]
    assert back.layouts[1].text(back.outs[1].dims) == "[batch S G:tensor.1 K]+sum(tensor.2)"
    for phase in (Phase.FORWARD, Phase.BACKWARD):  # along the whole axis at once
        assert large(graph, "layers", phase) == {"reduce_scatter": 2, "all_gather": 2}


@pytest.mark.parametrize("devices", [4, 8])
def test_tokens_go_to_their_experts_and_back(devices: int) -> None:
    """Rows of the batch over the devices, and experts: an all-to-all there and one back, forward and backward."""
    plan = Plan((("expert", devices),))
    decision = decided(
        "Short.8x7B", "mixtral", plan, length=4096, batch=devices, cluster=ONE_NODE, inline=MIXTRAL_8X7B
    )  # fmt: skip
    graph = decision.graph
    assert layout(graph, "layers.1.moe.experts.gate.w") == "[E:expert D F]"
    assert layout(graph, "layers.1.moe.experts.mul") == "[batch E.rows:expert F]"
    assert layout(graph, "layers.1.h") == "[batch:expert T D]"
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert large(graph, "layers", phase) == {"all_to_all": 2}


def test_twice_the_layers_are_the_same_program() -> None:
    small, medium = (decided(f"GPT2.{size}", "gpt2", Plan((("tensor", 4),), ALONE)) for size in ("small", "medium"))
    assert len(medium.graph) > 1.8 * len(small.graph)
    assert medium.solution.variables == small.solution.variables
    assert max(small.solution.gap, medium.solution.gap) < 1e-3


@pytest.mark.parametrize(
    ("plan", "code", "words"),
    [
        (
            Plan((("tensor", 16),), (("H", "tensor"),)),
            "E0942",
            ["H = 12 cannot be cut over 16", "attn.q.dot` (dot) has 12", "an axis of 4 would do"],
        ),
        (Plan((("tensor", 4),), (("H", "tenser"),)), "E0941", ["no axis tenser", "did you mean `tensor`?"]),
        (Plan((("tensor", 4),), (("Q", "tensor"),)), "E0941", ["no dim Q", "there are batch, T, V, D"]),
        (Plan((("tensor", 2),), (("H", "tensor"), ("H", None))), "E0947", ["`H -> tensor` and `H -> none` exclude"]),
        (Plan((("tensor", 2),), (), 2), "E0947", ["ZeRO stage 2", "the mesh is tensor 2", "--mesh data=2,tensor=2"]),
        (
            Plan((("tensor", 2),), (), None, 1 << 28),
            "E0943",
            ["cannot hold the step", "parameters", "devices or more"],
        ),
    ],
)
def test_wishes_that_cannot_be(plan: Plan, code: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as fault:
        decided("GPT2.small", "gpt2", plan)
    (diagnostic,) = fault.value.diagnostics
    text = f"{diagnostic.title} {diagnostic.hint}"
    assert diagnostic.code == code
    assert all(word in text for word in words), text


def test_a_device_holds_no_more_than_it_may() -> None:
    budget = 3 << 30
    laid = decided("GPT2.small", "gpt2", Plan((("data", 4),), (), None, budget), batch=4).graph
    local = localize(laid, MESH, next(iter(MESH.coordinates())))
    assert step_memory(local).peak_bytes <= budget  # at any moment, what is gathered among it
