"""Losses over whole documents: a balancing loss of a mixture counts real tokens, whatever row they lie in."""

from __future__ import annotations

import numpy as np
import pytest
from oracles.lowered import run_lowered
from oracles.values import Array, assert_close, leaf_values, run
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.simplify import Simplify
from partita.compiler.pipeline import forward_passes, rows_passes
from samples.spec_texts import text_spec

from .test_documents import LENGTHS, PACKED, laid_out

SPEC = """use std

block Layer[D, F, E] : x[T, D] -> [T, D] {{
  moe : MoE[D, F, E](k = 2)
  return x + moe(x)
}}

model Sparse : tokens[T] in V -> logits[T, V] {{
  dim L = 2, D = 4, F = 3, E = 5, V = 7
  embed  : Embedding[V, D]
  layers : chain L of Layer[D, F, E]
  head   : Linear[D, V]
  return head(layers(embed(tokens)))
}}

train sparse {{
  model = Sparse
  dims  = [T = {width}]
  data {{ read = text("a.txt"), rows = {rows}(T), target = next(tokens) }}
  loss      = {loss}
  batch     = {batch}
  steps     = 1
  optimizer = sgd()
  lr        = 0.1
  precision = f64
}}
"""
BALANCED = "mean(cross_entropy[V](logits, target)) + 0.7 * mean[batch](sum[L, E](E * mean[T](used) * mean[T](share)))"


def gradients(loss: str, rows: str, batch: int, width: int) -> Graph:
    spec = text_spec(SPEC.format(loss=loss, rows=rows, batch=batch, width=width))
    recipe = load_recipe(spec, "sparse")
    graph, _ = elaborate_loss(spec, recipe)
    return run_passes(graph, [*rows_passes(recipe), *forward_passes(), Differentiate(), Simplify()], LOSS)


def test_a_balancing_loss_counts_real_tokens() -> None:
    """Packed = padded = one by one, each document by how many tokens it has: the loss and every gradient."""
    packed = gradients(BALANCED, "pack", len(PACKED), 8)
    random = np.random.default_rng(4)
    parts = [{name: random.integers(0, 7, length) for name in ("tokens", "target")} for length in LENGTHS]
    weights = {node.id: leaf_values(packed)[node.id] for node in packed.nodes("parameter")}
    wanted: dict[str, Array] = {}
    for part, length in zip(parts, LENGTHS, strict=True):
        alone = gradients(BALANCED, "chunk", 1, length)
        found = run(alone, {**leaf_values(alone), **weights, **{name: one[None] for name, one in part.items()}})
        for name, value in found.items():
            wanted[name] = wanted.get(name, 0) + value * (length / sum(LENGTHS))
    rows = laid_out(parts, PACKED, 8)
    values = {**leaf_values(packed), **weights, **rows}
    assert_close(run(packed, values), wanted, 1e-10)
    assert_close(run_lowered(packed, values)[0], wanted, 1e-10)
    assert_close(run(Microbatch(2)(packed), values), wanted, 1e-10)
    padded = gradients(BALANCED, "pad", len(LENGTHS), max(LENGTHS))
    values = {**leaf_values(padded), **weights, **laid_out(parts, [[at] for at in range(5)], max(LENGTHS))}
    assert_close(run(padded, values), wanted, 1e-10)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ("mean(cross_entropy[V](logits, target)) + sum[batch](sum[L, E](mean[T](share)))", "by their tokens in a mean"),
        ("mean(cross_entropy[V](logits, target)) + mean[batch](max[T](sum[L, E](share)))", "whatever document"),
    ],
)
def test_what_has_no_meaning_is_refused(loss: str, why: str) -> None:
    with pytest.raises(SpecError) as error:
        gradients(loss, "pack", 2, 8)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E0915"
    assert why in diagnostic.title
