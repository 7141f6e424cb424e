"""Whatever is made again, values stay: any set of any random graph's, and what policies and budgets name of the zoo."""

from __future__ import annotations

from itertools import product

import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.measures import AGAIN, OFFLOADS, Trained, assert_same_with_less
from oracles.properties import at_level
from oracles.values import assert_same_values, leaf_values
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT
from partita.compiler.ir.types import DType, Phase
from partita.compiler.passes import run_passes
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.precision import AssignPrecision
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.recompute.block import GIVEN
from samples.zoo import DIMS


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


LONG = settings().max_examples > 1000  # of `make fuzz`
BOTH = ("optimizer", "activations")
EVERY = [
    (Trained(file, model, types), again, offload)
    for (file, model), types in product(DIMS, ("f64", "bf16", "f16"))
    for again, offload in product(AGAIN, OFFLOADS)
]
SOME = [
    (Trained("gpt2", "GPT2", drop=0.3), "full", BOTH),
    (Trained("mixtral", "Mixtral", "bf16"), "selective", BOTH),
    (Trained("mamba", "Mamba", "f16"), "full", ("activations",)),
    (Trained("t5", "T5"), "selective", BOTH),
    (Trained("bloom", "BLOOM", "bf16"), "full", ()),
    (Trained("deepseek", "DeepSeek"), "full", BOTH),
    (Trained("lstm", "LSTMLanguageModel"), "least", ("optimizer",)),
    (Trained("llama3", "Llama3", "bf16"), "middle", BOTH),
]


@pytest.mark.parametrize(("what", "again", "offload"), EVERY if LONG else SOME, ids=str)
def test_models_of_the_zoo_with_less_memory(what: Trained, again: str, offload: tuple[str, ...]) -> None:
    """What has a name, and the least and a middle point of what a budget chooses from; what is dropped is the same."""
    assert_same_with_less(what, again, offload)
