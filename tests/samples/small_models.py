"""Steps of small models in float64, and a mixture laid out so that its tokens go to their experts."""

from __future__ import annotations

from functools import cache

from oracles.lowered import doubled
from oracles.meshes import count_messages
from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.types import Node
from partita.compiler.partition.relayout import Paths
from partita.compiler.partition.rewrite import rewrite
from partita.compiler.partition.strategies import Strategy, is_legal, options

from .spec_texts import ROOT

SMALL = """use std
{block}
model Small : tokens[T] in V -> logits[T, V] {{
  sizes {{
        D
    xs  8
  }}
  embed  : Embedding[V, D]
  layers : chain {layers} of Block[D]
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


@cache
def small_step(block: str, length: int = 4, batch: int = 2, layers: int = 2) -> Graph:
    """A step of a small model in float64."""
    text = SMALL.format(block=block, length=length, batch=batch, layers=layers)
    spec, faults = load(Source(str(ROOT / "specs/recipes/small.partita"), text))
    assert spec is not None, faults
    return doubled(pipeline.step_graph(spec, load_recipe(spec)))


MIXTURE = """block Block[D] : x[T, D] -> [T, D] {{
  norm : RMSNorm[D]
  moe  : MoE[D, F = 6, E = {experts}](k = {k})
  return x + moe(norm(x))
}}"""


def sent_to_experts(step: Graph, mesh: Mesh) -> Graph:
    """What is an expert's lies with it over `expert`; all else is cut by rows of the batch."""
    return rewrite(step, mesh, with_experts(step, mesh), Paths(mesh, count_messages), frozenset())


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
