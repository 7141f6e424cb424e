"""Whatever is made again, values stay: any set of any random graph's, and what policies and budgets name of the zoo."""

from __future__ import annotations

import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.properties import at_level
from oracles.values import assert_same_values, leaf_values
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.roofline import node_time
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import DType, Phase
from partita.compiler.passes import run_passes
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.precision import AssignPrecision
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.pipeline import step_passes
from partita.compiler.recompute.block import GIVEN, blocks_of
from partita.compiler.recompute.chain import chain_of
from samples.recipes import recipe_over


@settings(max_examples=40)
@given(graphs(batch=4), st.data())
def test_any_values_may_be_made_again(graph: Graph, data: st.DataObject) -> None:
    """In low precision and in microbatches too: the same bits, because the same is computed."""
    before = at_level(graph, GRADIENT)
    if data.draw(st.booleans()):
        before = AssignPrecision(DType.BF16)(before)
    made = [n for n in before if n.phase is Phase.FORWARD and n.op not in GIVEN]
    values = [(node.id, output) for node in made for output in range(len(node.outs))]
    chosen = (
        frozenset(data.draw(st.lists(st.sampled_from(values), unique=True))) if values else frozenset[tuple[str, int]]()
    )
    parts = [Microbatch(data.draw(st.sampled_from([1, 2])))]
    after = run_passes(before, [Rematerialize("none", values=chosen), *parts], GRADIENT)
    whole = run_passes(before, parts, GRADIENT)
    assert_same_values(whole, after, leaf_values(before))


@pytest.mark.parametrize(
    ("file", "model", "keys"),
    [
        ("gpt2", "GPT2", {"model": "GPT2(drop = 0.3)"}),
        ("llama3", "Llama3", {"precision": "mixed(compute = bf16)"}),
        ("lstm", "LSTMLanguageModel", {}),
    ],
)
def test_a_model_of_the_zoo_makes_again_what_it_is_told(file: str, model: str, keys: dict[str, str]) -> None:
    """The names, and the least and a middle point of what a budget chooses from; two microbatches, a whole step."""
    spec, recipe = recipe_over(file, model, "f64", microbatches=2, batch=4, optimizer="sgd()", **keys)
    loss, _ = elaborate_loss(spec, recipe)
    passes = step_passes(spec, recipe)
    at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
    kept = run_passes(loss, passes[:at], LOSS)
    chain = chain_of(blocks_of(kept, lambda node: node_time(node, H100_NODES.machine).seconds))
    whole = run_passes(kept, [Rematerialize("none"), *passes[at + 1 :]], GRADIENT)
    values = leaf_values(whole) | {node.id: leaf_values(kept)[node.id] for node in kept.nodes("input")}
    for policy in (
        Rematerialize("none", "full"),
        Rematerialize("none", "selective"),
        Rematerialize("none", values=chain.values(0)),
        Rematerialize("none", values=chain.values(len(chain) // 2)),
    ):
        again = run_passes(kept, [policy, *passes[at + 1 :]], GRADIENT)
        assert_same_values(whole, again, values)
