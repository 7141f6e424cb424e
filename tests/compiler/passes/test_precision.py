"""What the precision pass gives every value: the rules by operator, where casts stand, overrides, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import DType, Node, Phase
from partita.compiler.ops.definition import Precision
from partita.compiler.ops.registry import REGISTRY
from partita.compiler.passes import check, run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.precision import AssignPrecision, unused
from partita.compiler.passes.simplify import Simplify
from partita.compiler.pipeline import elaborate_loss, step_graph, step_graphs
from partita.tools.casts import reasons
from samples.recipes import recipe_over

LANGUAGE = [
    ("bloom", "BLOOM"), ("gemma2", "Gemma2"), ("gpt2", "GPT2"), ("llama3", "Llama31"),
    ("lora", "LlamaLoRA"), ("lstm", "LSTMLanguageModel"), ("mixtral", "Mixtral"), ("palm", "PaLM"),
]  # fmt: skip
LOW = AssignPrecision(DType.BF16)


def gradients(file: str, model: str, transform: AssignPrecision = LOW) -> Graph:
    """A model's loss and gradients with types."""
    spec, recipe = recipe_over(file, model, "f32")
    loss, _ = elaborate_loss(spec, recipe)
    passes = [Inline(), Offsets(), Simplify(), Differentiate(), transform, Simplify()]
    return run_passes(loss, passes, LOSS)


def floats(node: Node) -> set[DType]:
    return {out.dtype for out in node.outs if out.dtype.is_float}


def holds_declared_types(graph: Graph) -> None:
    """Each operator reads and gives the types that its declaration asks for."""
    check(graph, GRADIENT, "the typed graph")
    for node in graph:
        rule = REGISTRY[node.op].precision
        reads = {use.dtype for use in node.uses if use.dtype.is_float}
        if rule is Precision.HIGH:
            assert DType.BF16 not in reads, f"{node.id} is sensitive"
        if rule is Precision.CONTRACTION and node.phase is Phase.BACKWARD:
            kept = REGISTRY[node.op].wide
            low = {use.dtype for place, use in enumerate(node.uses) if use.dtype.is_float and place not in kept}
            assert low <= {DType.BF16}, f"{node.id} contracts"
    for name, use in graph.outputs.items():
        assert use.dtype is DType.F32, f"{name} leaves the graph"
    assert {node.outs[0].dtype for node in graph.nodes("parameter")} == {DType.F32}


@pytest.mark.parametrize(("file", "model"), LANGUAGE)
def test_every_operator_has_the_type_that_it_declares(file: str, model: str) -> None:
    holds_declared_types(gradients(file, model))


def test_a_lost_cast_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(_typing: object, dtype: DType) -> DType:
        return dtype

    monkeypatch.setattr("partita.compiler.passes.precision._Typing._wide", narrow)
    with pytest.raises(AssertionError):
        holds_declared_types(gradients("gpt2", "GPT2"))


@pytest.mark.parametrize(("file", "model"), LANGUAGE)
def test_a_second_run_changes_nothing(file: str, model: str) -> None:
    graph = gradients(file, model)
    assert LOW(graph) == graph


def test_a_parameter_is_cast_once_a_step() -> None:
    spec, found = recipe_over("gpt2", "GPT2", "mixed(compute = bf16)", microbatches=2)
    graph = step_graph(spec, found)
    for node in graph.nodes("parameter"):
        casts = [graph[edge.consumer] for edge in graph.users(node.id) if graph[edge.consumer].op == "cast"]
        assert len(casts) <= 1, f"{node.id} is cast {len(casts)} times"
        assert all(cast.phase is Phase.PREPARE for cast in casts)
    assert graph["wte.table.bf16"].phase is Phase.PREPARE
    assert all(node.outs[0].dtype is DType.F32 for node in graph.nodes("state"))
    assert all(node.outs[0].dtype is DType.F32 for node in graph.nodes("accumulate"))


def test_statistics_and_losses_stay_wide() -> None:
    graph = gradients("gpt2", "GPT2")
    norm, loss = graph.nodes("layer_norm")[0], graph.nodes("cross_entropy")[0]
    assert [out.dtype for out in norm.outs] == [DType.BF16, DType.F32, DType.F32]
    assert [use.dtype for use in norm.uses] == [DType.BF16, DType.F32, DType.F32]
    assert loss.uses[0].dtype is DType.BF16
    assert floats(loss) == {DType.F32}
    assert gradients("llama3", "Llama3").nodes("attention")[0].outs[1].dtype is DType.F32


def test_an_override_holds_for_a_path_and_its_gradients() -> None:
    transform = AssignPrecision(DType.BF16, overrides=(("blocks.1.*", DType.F32), ("blocks.0.mlp.*", DType.F16)))
    graph = gradients("gpt2", "GPT2", transform)
    for node in graph.nodes("dot"):
        if node.path.startswith("blocks.1"):
            wanted = DType.F32
        else:
            wanted = DType.F16 if node.path.startswith("blocks.0.mlp") else DType.BF16
        assert floats(node) == {wanted}, node.id


def test_a_pattern_that_names_nothing_is_found() -> None:
    graph = gradients("gpt2", "GPT2")
    assert unused(graph, (("blocks.*", DType.F32), ("blocks.0.*", DType.F32), ("haed.*", DType.F32))) == (
        "blocks.0.*", "haed.*",
    )  # fmt: skip


def test_one_type_needs_no_cast() -> None:
    graph = gradients("gpt2", "GPT2", AssignPrecision())
    assert not [node for node in graph.nodes("cast") if node.uses[0].dtype.is_float]


def test_a_recipe_that_names_nothing_is_refused() -> None:
    spec, recipe = recipe_over("llama3", "Llama3", "f32")
    wrong = replace(recipe, precision=replace(recipe.precision, overrides=(("heda.*", DType.BF16),)))
    with pytest.raises(SpecError, match="E0916"):
        step_graphs(spec, wrong)


def test_every_cast_has_a_reason() -> None:
    spec, recipe = recipe_over("llama3", "Llama3", "mixed(compute = bf16)", microbatches=2)
    found = {one.value: one for one in reasons(step_graph(spec, recipe))}
    assert found["head.w"].why.startswith("head.dot")
    assert (found["head.w"].after, found["head.w"].often) == (DType.BF16, "a step")
    assert found["grad/head.w"].why == "gradients are added up in f32"
    assert found["grad/head.w"].often == "a microbatch"
