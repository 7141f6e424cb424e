"""fuse_loss: what the head's cotangent is made by moves in front of the loss; what is made once a step still is."""

from __future__ import annotations

import pytest
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import Phase
from partita.compiler.pipeline import open_spec, step_graph
from samples.spec_texts import ROOT

BENCH = open_spec(ROOT / "specs/recipes/bench_step.partita")


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_scaled_loss_is_fused_and_its_scale_stays_a_state_of_the_step(microbatches: int) -> None:
    sets = ["precision=mixed(compute = f16)", f"microbatches={microbatches}", "batch=16"]
    step = step_graph(BENCH, load_recipe(BENCH, "small", sets))
    (head,) = step.nodes("linear_cross_entropy")
    assert head.phase is Phase.FORWARD
    assert step["step.loss_scale"].phase is Phase.PREPARE
