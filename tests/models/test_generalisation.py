"""Every model of specs/models in a tiny size: lowered, interpreted and by autograd, the same loss and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.lowered import run_lowered
from oracles.probes import probed
from oracles.steps import interpreted_steps, lowered_steps
from oracles.values import Array, assert_close, leaf_values, run
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS, MODEL
from partita.compiler.language import syntax
from partita.compiler.lower.module import module
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.pipeline import forward_passes, gradient_graph, step_graph
from samples.recipes import recipe_over
from samples.spec_texts import ROOT, model_spec
from samples.zoo import DIMS, FOREIGN, OTHER_SIZES, tiny_model

_STEPPED = ("BLOOM", "GPT2", "Gemma2", "Gopher", "Llama3", "Llama31", "Mixtral", "OPT", "PaLM")
NEXT_TOKEN = [one for one in DIMS if one[1] in _STEPPED]
CASES = [*((file, model, None) for file, model in DIMS), *OTHER_SIZES]


def ready(graph: Graph) -> Graph:
    """The loss, as the pipeline makes it ready to be differentiated."""
    return run_passes(graph, forward_passes(), LOSS)


def values_of(graph: Graph) -> dict[str, Array]:
    """Random leaves: no gain is 1 and no bias 0; the longer a sum, the smaller its terms, so that nothing saturates."""
    values = leaf_values(graph, seed=5)
    for node in graph.nodes("parameter"):
        drawn = values[node.id]
        values[node.id] = np.asarray(drawn / np.sqrt(max(1, np.prod(np.shape(drawn)[:-1]))))
    for node in graph.nodes("state"):  # a running variance is not negative
        values[node.id] = np.abs(values[node.id])
    return values


@pytest.mark.parametrize(("file", "model", "size"), CASES, ids=lambda word: word or "")
def test_loss_and_gradients(file: str, model: str, size: str | None) -> None:
    """The lowered program against the reference, PyTorch's autograd, and the graph before any pass."""
    graph = tiny_model(file, model, size=size)
    whole = probed(graph)
    values = values_of(whole)
    found, _ = run_lowered(gradient_graph(ready(whole)), values)
    gradients = {name for name in found if name.startswith("grad/")}
    assert gradients == {f"grad/{node.id}" for node in graph.nodes("parameter")}
    assert_close(found, run(Differentiate()(ready(whole)), values), 1e-10)
    assert_close(found, run(graph, values), 1e-10)  # nothing inlined, folded or fused
    assert_close(found, module_results(run_passes(graph, forward_passes(), MODEL), values), 1e-10)


@pytest.mark.parametrize(("file", "model"), [("gpt2", "GPT2"), ("bert", "BERT")])
def test_dropout_is_the_same_in_a_module(file: str, model: str) -> None:
    """A module and a program draw the same masks in a step, other ones in the next."""
    graph = tiny_model(file, model, training=True)
    values = values_of(probed(graph))
    losses: list[float] = []
    for step in (0, 1):
        values["step"] = np.asarray(step)
        found, _ = run_lowered(gradient_graph(ready(probed(graph))), values)
        assert_close(found, module_results(run_passes(graph, forward_passes(), MODEL), values), 1e-10)
        losses.append(float(found["loss"]))
    assert losses[0] != losses[1]


@pytest.mark.parametrize(("file", "model"), NEXT_TOKEN, ids=[model for _, model in NEXT_TOKEN])
def test_a_step_in_microbatches(file: str, model: str) -> None:
    """The whole step, cut in two: as interpreted, and as in one."""
    whole, parts = (step_of(file, model, count) for count in (1, 2))
    drawn = values_of(whole)
    weights = {node.id: drawn[node.id] for node in whole.nodes("parameter")}
    rows = np.random.default_rng(2).integers(0, DIMS[file, model]["V"], (2, DIMS[file, model]["T"] + 1))
    batch = {"tokens": rows[:, :-1], "target": rows[:, 1:]}
    (found,) = lowered_steps(parts, weights, [batch])
    for (wanted,) in (interpreted_steps(parts, weights, [batch]), lowered_steps(whole, weights, [batch])):
        assert_close(found.store, wanted.store, 1e-10)
        assert_close(found.outputs, wanted.outputs, 1e-10)


def step_of(file: str, model: str, count: int) -> Graph:
    spec, recipe = recipe_over(file, model, microbatches=count, clip=1.0)
    return step_graph(spec, recipe)


def test_every_model_has_a_tiny_size() -> None:
    files = sorted((ROOT / "specs/models").glob("*.partita"))
    own = {(f.stem, name) for f in files for name in own_models(f)}
    assert own == {*DIMS, *FOREIGN}


def own_models(path: Path) -> list[str]:
    """The models that a file declares itself."""
    declared = model_spec(path.stem).main.file.declarations
    return [one.name.text for one in declared if isinstance(one, syntax.Model | syntax.Derived)]


def module_results(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """The probed loss of a model as a torch module, and its gradients as PyTorch finds them."""
    net = module(graph)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.from_numpy(values[name]))
        for name, buffer in net.named_buffers():
            buffer.copy_(torch.as_tensor(values[name]))
    outputs = net(*(torch.from_numpy(values[node.id]) for node in graph.nodes("input")))
    if not isinstance(outputs, dict):
        outputs = {next(iter(graph.outputs)): outputs}
    loss = torch.zeros((), dtype=torch.float64)
    for name, out in outputs.items():
        loss = loss + (out * torch.from_numpy(values[f"probe/{name}"])).sum()
    loss.backward()
    gradients = {f"grad/{name}": p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    return {"loss": loss.detach().numpy(), **gradients}
