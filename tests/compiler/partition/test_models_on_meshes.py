"""Small models as the solver lays them out: every device's own graph, in numpy and lowered, against one device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import doubled
from oracles.meshes import assert_same_on_mesh, laid_at_random
from oracles.virtual import assert_same_lowered
from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.types import Node
from partita.compiler.partition.choices import Wishes
from partita.compiler.partition.relayout import Paths, count_messages
from partita.compiler.partition.rewrite import rewrite
from partita.compiler.partition.strategies import Strategy, is_legal, options
from samples.spec_texts import ROOT

SMALL = """use std
{block}
model Small : tokens[T] in V -> logits[T, V] {{
  sizes {{
        D
    xs  8
  }}
  embed  : Embedding[V, D]
  layers : chain 2 of Block[D]
  norm   : RMSNorm[D]
  head   : Linear[D, V](bias = false)

  return head(norm(layers(embed(tokens))))
}}
train r {{
  model = Small.xs
  dims = [T = {length}, V = 11]
  data {{ read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }}
  loss = mean(cross_entropy[V](logits, target))
  batch = {batch}
  steps = 1
  optimizer = sgd()
  lr = 0.1
}}
"""
# Heads, key-value heads: 4 in 2 groups, 6 in 2.
GROUPED = """block Block[D] : x[T, D] -> [T, D] {{
  norm : RMSNorm[D]
  attn : Attention[D, H = {heads}, G = {groups}, K = 2](mask = causal, rope = rotary())
  return x + attn(norm(x))
}}"""


def small_step(block: str, length: int = 4, batch: int = 2) -> Graph:
    """A step of a small model in float64."""
    text = SMALL.format(block=block, length=length, batch=batch)
    spec, faults = load(Source(str(ROOT / "specs/recipes/small.partita"), text))
    assert spec is not None, faults
    return doubled(pipeline.step_graph(spec, load_recipe(spec)))


def assert_same(step: Graph, mesh: Mesh, wishes: Wishes) -> Graph:
    """As the solver lays it out, all devices compute what one does."""
    decision = pipeline.partitioned([step], mesh, wishes)
    assert_same_on_mesh(step, decision.graph, decision.mesh)
    assert_same_lowered(step, decision.graph, decision.mesh)
    return decision.graph


ALONE = {"batch": (), "T": ()}


@pytest.mark.parametrize(
    ("heads", "groups", "axes"),
    [(4, 2, (("tensor", 4),)), (6, 2, (("tensor", 6),)), (4, 2, (("data", 2), ("tensor", 4)))],
)
def test_fewer_key_value_heads_than_devices(heads: int, groups: int, axes: tuple[tuple[str, int], ...]) -> None:
    step = small_step(GROUPED.format(heads=heads, groups=groups))
    pins = {"T": (), "H": ("tensor",), "G": ("tensor",)} | ({"batch": ()} if len(axes) == 1 else {})
    mesh, wishes = pipeline.factored(step, Mesh(axes), Wishes(pins))
    assert wishes.pins["H"] == ("tensor.1", "tensor.2") and wishes.pins["G"] == ("tensor.1",)
    wishes = Wishes({**wishes.pins, "R": ("tensor.2",)})  # so few heads are hardly worth it otherwise
    graph = assert_same(step, mesh, wishes)
    layer = graph["layers.1.attn.y"]
    queries, keys, *_ = (graph[use.node].layouts[use.output].text(use.dims) for use in layer.uses)
    assert "T G:tensor.1 R:tensor.2 K" in queries and "S G:tensor.1 K]" in keys


MIXTURE = """block Block[D] : x[T, D] -> [T, D] {{
  norm : RMSNorm[D]
  moe  : MoE[D, F = 6, E = {experts}](k = {k})
  return x + moe(norm(x))
}}"""


@pytest.mark.parametrize(
    ("experts", "k", "axes", "batch"),
    [
        (4, 2, (("expert", 2),), 2),
        (5, 2, (("expert", 2),), 4),
        (4, 1, (("expert", 4),), 4),
        (5, 3, (("data", 2), ("expert", 3)), 6),
        (4, 2, (("expert", 2),), 1),
    ],
)
def test_tokens_go_to_their_experts(experts: int, k: int, axes: tuple[tuple[str, int], ...], batch: int) -> None:
    step, mesh = small_step(MIXTURE.format(experts=experts, k=k), batch=batch), Mesh(axes)
    laid = rewrite(step, mesh, with_experts(step, mesh), Paths(mesh, count_messages), frozenset())
    sent = [node for node in laid.nodes("all_to_all") if len(node.outs[0].dims) == 3]
    assert len(sent) == 8  # out and back, forward and backward, in two layers
    assert_same_on_mesh(step, laid, mesh)
    assert_same_lowered(step, laid, mesh)


def _of_experts(node: Node) -> bool:
    return "experts" in node.id or (node.op == "add" and node.id.endswith("norm.gather"))


def with_experts(step: Graph, mesh: Mesh) -> dict[str, Strategy]:
    """What is an expert's lies with it over `expert`; all else is cut by rows of the batch."""
    found: dict[str, Strategy] = {}
    for node in step:
        every = options(node)
        batch = next((one for one in every if any(d.name == "batch" for d in one.cut)), every[0])
        own = [one for one in every if any(d.name.startswith("E") for d in one.cut)] if _of_experts(node) else []
        rows = next((one for one in own if any(d.runs for d in one.cut)), own[0] if own else batch)
        wanted = tuple(rows if axis == "expert" else batch for axis in mesh.names)
        found[node.id] = wanted if is_legal(node, wanted, mesh) else (every[0],) * len(mesh.axes)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.sampled_from(((2,), (3,), (2, 2))),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_layout_of_experts(experts: int, k: int, batch: int, sizes: tuple[int, ...], seed: int) -> None:
    step = small_step(MIXTURE.format(experts=experts, k=min(k, experts - 1)), batch=batch)
    mesh = Mesh(tuple(zip(("expert", "data"), sizes, strict=False)))
    laid = laid_at_random(step, mesh, seed)
    assert_same_on_mesh(step, laid, mesh)
