"""Whatever is made again, values stay: any set of any random graph's, and what policies and budgets name of the zoo."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import called_by_ids, run_lowered
from oracles.measures import AGAIN, OFFLOADS, Trained, assert_same_with_less
from oracles.properties import at_level
from oracles.values import assert_same_values, leaf_values
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.precision import AssignPrecision
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.passes.simplify import Simplify
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


SUMS = ["add", "dot", "mul", "tanh", "parameter"]  # where the order of what is added decides how it rounds
TAKEN_IN = ["transpose", "sum", "scatter_add", "cast", "cross_entropy"]  # or what one kernel computes together


@pytest.mark.parametrize("beside", ["nothing", "dot", "scatter_add"])
def test_which_addend_dies_does_not_order_a_sum(beside: str) -> None:
    """tanh's backward reads its result: what is made again of three dies in the sum, each in turn and all."""
    b = Builder(GraphBuilder("sums"))
    rows, cols, inner = (Dim(name, size) for name, size in zip("RCI", (5, 7, 3), strict=True))
    whole = [b.one("tanh", b.parameter(f"x{at}", (rows, cols), DType.F32)) for at in range(3)]
    parts = list(whole)
    if beside == "dot":
        left, right = b.parameter("l", (rows, inner), DType.F32), b.parameter("r", (inner, cols), DType.F32)
        parts.append(b.one("dot", left, right, over=(inner,)))
    if beside == "scatter_add":
        ids = b("input", hint="ids", name="ids", below=rows, dims=(inner,), dtype=DType.I64)[0]
        parts.append(b.one("scatter_add", b.parameter("l", (inner, cols), DType.F32), ids, dim=rows, dims=(rows, cols)))
    total = b.one("add", *parts)
    b.output("total", total)
    b.output("loss", b.one("sum", total, over=(rows, cols)))
    before = Differentiate()(b.finish())
    values = leaf_values(before)
    wanted, _ = run_lowered(before, values)
    for chosen in [*([use.value] for use in whole), [use.value for use in whole]]:
        found, _ = run_lowered(Rematerialize("none", values=frozenset(chosen))(before), values)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@settings(max_examples=15)
@given(
    st.sampled_from(SUMS[:3]).flatmap(lambda theme: graphs(batch=4, only=[theme, *SUMS, *TAKEN_IN], most=16)),
    st.sampled_from([DType.BF16, DType.F32]),
    st.data(),
)
def test_what_is_made_again_rounds_as_what_is_kept(graph: Graph, dtype: DType, data: st.DataObject) -> None:
    """A step's lowered program gives the same bits, whatever of it dies sooner and whoever reads it no more."""
    typed = [Offsets(), Simplify(), Differentiate(), AssignPrecision(dtype), Simplify()]
    before = called_by_ids(run_passes(graph, typed, LOSS))
    every = [n for n in before if n.phase is Phase.FORWARD and n.op not in GIVEN]
    chosen = frozenset((node.id, at) for node in every for at in range(len(node.outs)) if data.draw(st.integers(0, 3)))
    values = leaf_values(before)
    wanted, _ = run_lowered(before, values)
    found, _ = run_lowered(Rematerialize("none", values=chosen)(before), values)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


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
