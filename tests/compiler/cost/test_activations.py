"""What a GPT's layer keeps for the backward, against the published formula: s b h (34 + 5 a s / h) bytes.

Korthikanti et al. 2022, table 2: 16-bit activations, 1-byte dropout masks, nothing computed again, one device. With
attention taken apart the same tensors are kept, to which come the causal mask (one byte for T S) and the norms'
statistics (4 bytes a row each). The fused kernel keeps a log-sum-exp a row of scores in the place of 5 a s² b.
"""

from __future__ import annotations

from functools import cache

import pytest
from partita.compiler.base.span import Source
from partita.compiler.cost.memory import kept_for_backward
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS
from partita.compiler.passes import run_passes
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.pipeline import step_passes

S, B, H, A = 256, 2, 512, 8
SPEC = f"""use std

block GBlock[D, H, F](inside = 0.0) : x[T, D] -> [T, D] {{
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true, drop = inside)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)
  h = x + dropout(attn(ln1(x)), 0.1)
  return h + dropout(mlp(ln2(h)), 0.1)
}}

model GPT(inside = 0.1) : tokens[T] in V -> logits[T, V] {{
  sizes {{
           L  D    H  F     V    N
    small  3  {H}  {A}  {4 * H}  512  {S}
  }}
  wte    : Embedding[V, D]
  wpe    : Embedding[N, D]
  blocks : chain L of GBlock[D, H, F](inside)
  ln_f   : LayerNorm[D]
  return dot[D](ln_f(blocks(wte(tokens) + wpe(index[T]))), wte.table)
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
TOKENS = S * B * H  # s b h
SCORES = 5 * A * S * S * B
MASK = S * S
STATISTICS = 2 * 2 * 4 * S * B  # mean and 1 / deviation of two norms, float32
LSE = 4 * A * S * B


@cache
def kept(inside: float) -> dict[str, int]:
    """Bytes by instance within the middle layer."""
    spec, found = load(Source("run.partita", SPEC.replace("inside = 0.1", f"inside = {inside}")))
    assert spec is not None, found
    recipe = load_recipe(spec, "run")
    loss, _ = elaborate_loss(spec, recipe)
    passes = [Rematerialize("none") if isinstance(one, Rematerialize) else one for one in step_passes(spec, recipe)]
    step: Graph = run_passes(loss, passes, LOSS)
    own = {path: size for path, size in kept_for_backward(step).items() if f"{path}.".startswith("blocks.1.")}
    return {path.removeprefix("blocks.1").removeprefix("."): size for path, size in own.items()}


def test_a_layer_keeps_what_the_formula_says() -> None:
    total = sum(kept(0.1).values())
    assert total == pytest.approx(34 * TOKENS + SCORES, rel=0.02)
    assert total == 34 * TOKENS + SCORES + MASK + STATISTICS


def test_part_by_part() -> None:
    """Attention 11 s b h + 5 a s² b, MLP 19 s b h, norms 4 s b h; a norm's result is what the part behind it reads, and
    the sums of the residual stream with the masks of their dropout are the block's own."""
    parts = kept(0.1)
    projections = sum(parts[f"attn.{name}"] for name in "qkv")
    assert projections == 3 * 2 * TOKENS
    assert parts["attn"] == 2 * TOKENS + SCORES + MASK
    assert parts["ln1"] == parts["ln2"] == 2 * TOKENS + STATISTICS // 2
    assert sum(size for path, size in parts.items() if path.startswith("mlp")) == 16 * TOKENS
    assert parts[""] == (2 + 4) * TOKENS


def test_the_fused_kernel_keeps_no_scores() -> None:
    total = sum(kept(0.0).values())
    assert total == 34 * TOKENS + STATISTICS + LSE
    assert sum(kept(0.1).values()) - total == SCORES + MASK - LSE
