"""What the named choices keep of a transformer's layer."""

from __future__ import annotations

from functools import cache

import pytest
from partita.compiler.base.span import Source
from partita.compiler.cost.memory import kept_for_backward
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import Phase
from partita.compiler.passes import run_passes
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.pipeline import step_passes

S, B, H, A = 64, 2, 32, 4
SPEC = f"""use std

block GBlock[D, H, F] : x[T, D] -> [T, D] {{
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true, drop = 0.1)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)
  h = x + dropout(attn(ln1(x)), 0.1)
  return h + dropout(mlp(ln2(h)), 0.1)
}}

model GPT : tokens[T] in V -> logits[T, V] {{
  sizes {{
           L  D    H    F        V
    small  3  {H}  {A}  {4 * H}  512
  }}
  wte    : Embedding[V, D]
  blocks : chain L of GBlock[D, H, F]
  return dot[D](blocks(wte(tokens)), wte.table)
}}

train run {{
  model = GPT.small
  dims  = [T = {S}]
  data {{ read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }}
  loss      = mean(cross_entropy[V](logits, target))
  batch     = {B}
  steps     = 1
  optimizer = sgd
  lr        = 1e-2
  precision = mixed(compute = bf16)
}}
"""
TOKENS = S * B * H


@cache
def before() -> Graph:
    """The graph that the pass is given."""
    spec, found = load(Source("run.partita", SPEC))
    assert spec is not None, found
    recipe = load_recipe(spec, "run")
    loss, _ = elaborate_loss(spec, recipe)
    passes = step_passes(spec, recipe)
    return run_passes(loss, passes[: next(i for i, p in enumerate(passes) if isinstance(p, Rematerialize))], LOSS)


def kept(transform: Rematerialize) -> int:
    """Bytes that the middle layer keeps, each statistic of a norm among them."""
    graph = run_passes(before(), [transform], GRADIENT)
    return sum(size for path, size in kept_for_backward(graph).items() if f"{path}.".startswith("blocks.1."))


def test_full_keeps_a_layers_input() -> None:
    assert kept(Rematerialize("none", "full")) == 2 * TOKENS


def test_selective_keeps_34_bytes_a_token_and_channel() -> None:
    """Korthikanti et al. 2022, table 2: s b h 34, where 5 a s / h is made again; to it the norms' statistics and the
    dropout's two scalars."""
    statistics = 2 * 2 * 4 * S * B + 2 * 2
    assert kept(Rematerialize("none", "selective")) == 34 * TOKENS + statistics
    scores = 5 * A * S * S * B + S * S  # with the causal mask
    assert kept(Rematerialize("none")) == 34 * TOKENS + statistics + scores


def test_paths_keep_nothing_of_the_instances_that_they_name() -> None:
    graph = run_passes(before(), [Rematerialize("none", paths=("blocks.*.mlp*",))], GRADIENT)
    assert not [path for path in kept_for_backward(graph) if ".mlp" in path]
    assert [path for path in kept_for_backward(graph) if ".attn" in path]


@pytest.mark.parametrize("layers", ["full", "selective"])
def test_what_is_made_again_is_made_once(layers: str) -> None:
    graph = run_passes(before(), [Rematerialize("none", layers)], GRADIENT)
    again = [node for node in graph if node.id.startswith("again/")]
    assert again and all(node.phase is Phase.BACKWARD for node in again)
    assert len({node.id.removeprefix("again/") for node in again}) == len(again)
    assert not [node for node in again if not node.layer]
