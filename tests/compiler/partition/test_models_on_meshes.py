"""Small models as the solver lays them out: every device's own graph, in numpy and lowered, against one device."""

from __future__ import annotations

import pytest
from oracles.lowered import doubled
from oracles.meshes import assert_same_on_mesh
from oracles.virtual import assert_same_lowered
from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.partition.choices import Wishes
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
