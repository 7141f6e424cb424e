"""token_slices: slices of any lengths give the row's values, gradients and steps; what looks ahead is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.properties import at_level
from oracles.steps import Batch, Done, interpreted_steps, lowered_steps
from oracles.values import assert_same_values, leaf_values
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.recipe import Plan, Recipe, Rows
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT, LOSS, MODEL
from partita.compiler.ir.slices import slice_of
from partita.compiler.ir.text import parse_graph, print_graph
from partita.compiler.ir.types import Dim, DType, Use
from partita.compiler.ops.build import Builder
from partita.compiler.passes import check, run_passes
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.token_slices import TokenSlices
from partita.compiler.pipeline import slice_passes, step_graph
from samples.recipes import recipe_over
from samples.zoo import DIMS, tiny_model

# Attention in its kernel and written out, causal and sliding masks, ALiBi, recurrences, mixtures, a decoder; dropout.
MODELS = [
    ("gpt2", "GPT2"), ("llama", "Llama"), ("palm", "PaLM"), ("gemma2", "Gemma2"), ("bloom", "BLOOM"),
    ("gopher", "Gopher"), ("deepseek", "DeepSeek"), ("mixtral", "Mixtral"), ("lstm", "LSTMLanguageModel"), ("t5", "T5"),
]  # fmt: skip
AHEAD = {
    ("bert", "BERT"): "every token sees all of S",
    ("bengio", "Bengio"): "needs all of T",
    ("lstm", "GRULanguageModel"): "nothing says",
    ("mixer", "Mixer"): "lasts beyond the step",
}


@cache
def with_loss(file: str, model: str) -> Graph:
    """The model as it is trained, with every output in a loss."""
    graph = Inline()(tiny_model(file, model, training=True))
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    b = Builder(builder)
    terms = [b.one("sum", b.one("tanh", use), over=use.dims) for use in graph.outputs.values() if use.dtype.is_float]
    b.output("loss", terms[0] if len(terms) == 1 else b.one("add", *terms))
    return b.finish()


def cuts(total: int) -> st.SearchStrategy[tuple[int, ...]]:
    """All ways to cut a row into slices."""
    ends = st.sets(st.integers(1, total - 1)).map(lambda found: [0, *sorted(found), total])
    return ends.map(lambda at: tuple(end - begin for begin, end in pairwise(at)))


@pytest.mark.parametrize(("file", "model"), MODELS)
def test_values_and_gradients_stay(file: str, model: str) -> None:
    graph = with_loss(file, model)
    size = graph.dims()["T"].size or 0
    values, wanted = leaf_values(graph), at_level(graph, GRADIENT)

    @settings(max_examples=2, deadline=None)
    @given(cuts(size))
    def holds(lengths: tuple[int, ...]) -> None:
        sliced = run_passes(graph, [TokenSlices(lengths)], LOSS)
        found = at_level(sliced, GRADIENT)
        check(found, GRADIENT, "the gradients of what is sliced")
        assert_same_values(wanted, found, values)

    holds()


def test_every_slice_has_its_own_nodes_and_reads_what_came_before() -> None:
    sliced = TokenSlices((3, 2, 1))(with_loss("gpt2", "GPT2"))
    assert parse_graph(print_graph(sliced)) == sliced
    attention = [node for node in sliced.nodes("attention") if node.path.startswith("blocks.0")] or sliced.nodes(
        "softmax"
    )
    assert {slice_of(node) for node in attention} == {0, 1, 2}
    assert slice_of(sliced["wte.table"]) is None
    keys = {node.outs[0].dims: slice_of(node) for node in sliced.nodes("concat") if "attn" in node.id}
    assert set(keys.values()) == {1, 2}
    assert {dim.size for dims in keys for dim in dims if "/slice.to" in dim.name} == {5, 6}


def test_one_slice_is_the_graph_itself() -> None:
    graph = with_loss("llama", "Llama")
    assert TokenSlices((6,))(graph) is graph
    assert TokenSlices()(graph) is graph


def test_outputs_with_tokens_come_whole() -> None:
    graph = Inline()(tiny_model("llama", "Llama"))
    sliced = run_passes(graph, [TokenSlices((4, 2))], MODEL)
    assert sliced.outputs["logits"].dims == graph.outputs["logits"].dims
    assert_same_values(graph, sliced, leaf_values(graph))


# ---- whole steps


def planned(recipe: Recipe, schedule: str) -> Recipe:
    return replace(recipe, plan=Plan(mesh=(("pipe", 1),), schedule=schedule))


def batches(dims: Mapping[str, int]) -> list[Batch]:
    rows = np.random.default_rng(1).integers(0, dims["V"], (2, 4, dims["T"] + 1))
    return [{"tokens": batch[:, :-1], "target": batch[:, 1:]} for batch in rows]


@pytest.mark.parametrize(
    ("file", "model", "schedule"),
    [("gemma2", "Gemma2", "token_slices(2, 1, 3)"), ("lstm", "LSTMLanguageModel", "token_slices(3)")],
)
def test_a_step_is_that_of_the_whole_rows(file: str, model: str, schedule: str) -> None:
    dims = DIMS[file, model]
    spec, recipe = recipe_over(file, model, batch=4, microbatches=2, clip=0.5)
    whole, sliced = step_graph(spec, recipe), step_graph(spec, planned(recipe, schedule))
    assert len(sliced) > len(whole)
    rng = np.random.default_rng(0)
    weights = {n.id: rng.normal(0.3, 0.3, [d.size or 0 for d in n.outs[0].dims]) for n in whole.nodes("parameter")}
    wanted = interpreted_steps(whole, weights, batches(dims))
    for found in (interpreted_steps(sliced, weights, batches(dims)), lowered_steps(sliced, weights, batches(dims))):
        for one, other in zip(wanted, found, strict=True):
            assert_equal(one, other)


def assert_equal(wanted: Done, found: Done) -> None:
    for mine, theirs in ((wanted.outputs, found.outputs), (wanted.store, found.store)):
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            assert np.allclose(theirs[name], array, rtol=1e-9, atol=1e-10), name


def test_a_plan_slices_where_there_is_a_pipeline() -> None:
    _, recipe = recipe_over("llama", "Llama")
    assert slice_passes(recipe) == []
    assert slice_passes(replace(recipe, plan=Plan(schedule="token_slices(2)"))) == []
    assert slice_passes(planned(recipe, "1f1b")) == []
    assert slice_passes(planned(recipe, "token_slices(4)"))[-1] == TokenSlices((2, 2, 1, 1))
    for rows in (None, Rows("pack", 6)):
        with pytest.raises(SpecError, match="token_slices"):
            slice_passes(replace(planned(recipe, "token_slices(2)"), rows=rows))


# ---- what looks ahead


@pytest.mark.parametrize(("file", "model"), AHEAD)
def test_models_that_look_ahead_are_refused(file: str, model: str) -> None:
    graph = Inline()(tiny_model(file, model))
    size = graph.dims()["T"].size or 0
    with pytest.raises(SpecError) as caught:
        TokenSlices((2, size - 2))(graph)
    (found,) = caught.value.diagnostics
    assert found.code == "E0917"
    assert AHEAD[file, model] in found.title


B, T, S = Dim("batch", 2), Dim("T", 4), Dim("S", 4)


def written(kind: str) -> Graph:
    """A score of each token with each, softmaxed over the keys and summed."""
    b = Builder(GraphBuilder("written"))
    x = b.input("x", (B, T), DType.F32)
    key = x.relabel({T: S})
    scores = b.one("mul", x, key)
    rows, columns = (b.one("index", b.one("start", dim=dim), dim=dim) for dim in (T, S))
    low = b.one("constant", value=float("-inf"), dims=(), dtype=DType.F32)
    compared = {"causal": ("ge", rows, columns), "ahead": ("le", rows, columns), "strict": ("lt", columns, rows)}
    result: Use
    if kind == "mean back":
        result = b.one("mul", x, b.one("sum", x, over=(T,)))
    elif kind == "unmasked":
        result = b.one("sum", scores, over=(S,))
    elif kind == "highest":
        result = b.one("max", x, over=(T,))
    else:
        op, *sides = compared[kind]
        masked = b.one("where", b.one(op, *sides), scores, low)
        result = b.one("dot", b("softmax", masked, S=(S,))[0], key, over=(S,))
    b.output("loss", b.one("sum", result, over=result.dims))
    return b.finish()


@pytest.mark.parametrize("kind", ["causal", "strict"])
def test_a_mask_of_ones_own_is_understood(kind: str) -> None:
    graph = written(kind)
    assert_same_values(graph, TokenSlices((1, 2, 1))(graph), leaf_values(graph))


@pytest.mark.parametrize("kind", ["ahead", "mean back", "unmasked", "highest"])
def test_what_mixes_tokens_is_refused(kind: str) -> None:
    with pytest.raises(SpecError, match="cannot be cut into token slices"):
        TokenSlices((1, 3))(written(kind))


def test_lengths_make_up_the_row() -> None:
    with pytest.raises(SpecError, match="do not make up T = 6"):
        TokenSlices((4, 3))(with_loss("llama", "Llama"))
