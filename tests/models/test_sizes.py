"""Any dim of a model that its text leaves open or puts into a table of sizes can be given from outside."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.pipeline import evaluate_graph, predict_graph, step_graph
from samples.recipes import recipe_over
from samples.spec_texts import model_spec


def shape(graph: Graph, name: str) -> list[int | None]:
    return [dim.size for dim in graph[name].outs[0].dims]


def test_dims_of_a_recipe_are_changed_by_settings() -> None:
    spec, _ = recipe_over("gpt2", "GPT2")
    recipe = load_recipe(spec, settings=["dims.D=32", "dims.L=3", "dims.T=5", "batch=4", "microbatches=2"])
    for graph in (step_graph(spec, recipe), evaluate_graph(spec, recipe), predict_graph(spec, recipe)):
        assert shape(graph, "blocks.2.mlp.up.w") == [32, 10]
        assert shape(graph, "blocks.0.attn.q.w") == [32, 2, 16]
        assert "blocks.3.mlp.up.w" not in graph
    assert shape(step_graph(spec, recipe), "tokens") == [2, 5]
    assert shape(predict_graph(spec, recipe), "tokens") == [1, 5]


def test_dims_over_a_row_of_sizes() -> None:
    graph, facts = elaborate_model(model_spec("gpt2"), size="medium", dims={"L": 1, "V": 100})
    assert shape(graph, "wte.table") == [100, 1024]
    assert [chain.count for chain in facts.chains] == [1]


@pytest.mark.parametrize(("dims", "title"), [({"M": 4}, "ViT fixes M itself"), ({"Z": 4}, "ViT has no dim `Z`")])
def test_dims_that_cannot_be_given(dims: dict[str, int], title: str) -> None:
    with pytest.raises(SpecError, match="E0201") as fault:
        elaborate_model(model_spec("vit"), dims=dims)
    assert fault.value.diagnostics[0].title == title


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpecError):
        elaborate_model(model_spec("llama3"), dims={"H": 6, "G": 4})
    with pytest.raises(SpecError):
        elaborate_model(model_spec("gpt2"), dims={"D": 10, "H": 4})
