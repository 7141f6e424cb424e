"""The whole training step of a tiny GPT-2: against plain PyTorch with torch.optim.AdamW, and with dropout.

Loss, gradients and parameters over three steps with clipping and warm-up, in one microbatch or several. Where something
is dropped, masks follow the row, not the microbatch that it is computed in.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.steps import Batch, Done, interpreted_steps, lowered_steps
from oracles.torch_gpt import StepRecord, train
from oracles.values import Array
from partita.compiler.ir.graph import Graph
from partita.compiler.pipeline import step_graph
from samples.recipes import recipe_over
from samples.zoo import DIMS

ROWS, STEPS, CLIP = 8, 3, 0.5
DIM = DIMS["gpt2", "GPT2"]
COUNTS = pytest.mark.parametrize("count", [1, 2, 4])


def graph_of(count: int, drop: float = 0.0) -> Graph:
    spec, recipe = recipe_over(
        "gpt2", "GPT2", model=f"GPT2(drop = {drop})", batch=ROWS, microbatches=count, clip=CLIP,
        optimizer='adamw(betas = (0.9, 0.95), decay = 0.1, no_decay = ["*.gain", "*.b"])', lr="warmup(0.02, 4 steps)",
    )  # fmt: skip
    return step_graph(spec, recipe)


def rate(step: int) -> float:
    return 0.02 * min(step + 1, 4) / 4


def weights_of(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {node.id: [dim.size or 0 for dim in node.outs[0].dims] for node in graph.nodes("parameter")}
    return {
        name: rng.normal(1.0 if name.endswith("gain") else 0.0, 0.3, shape) for name, shape in sorted(shapes.items())
    }


def batches() -> list[Batch]:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, DIM["V"], (STEPS, ROWS, DIM["T"] + 1))
    return [{"tokens": batch[:, :-1], "target": batch[:, 1:]} for batch in rows]


@pytest.fixture(scope="module")
def theirs() -> list[StepRecord]:
    weights = {name: torch.tensor(array) for name, array in weights_of(graph_of(1)).items()}
    rows = [(torch.tensor(batch["tokens"]), torch.tensor(batch["target"])) for batch in batches()]
    return train(weights, rows, rate, CLIP, lambda name: not name.endswith((".gain", ".b")), 0.1, (0.9, 0.95))


def far(found: Array, wanted: Array, scale: float = 0.0) -> float:
    """The relative error, of what is at least `scale` large."""
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), scale)


@COUNTS
def test_three_steps_leave_the_parameters_that_torch_leaves(count: int, theirs: list[StepRecord]) -> None:
    graph = graph_of(count)
    assert graph.microbatches == count
    done = lowered_steps(graph, weights_of(graph), batches())
    for step, (ours, wanted) in enumerate(zip(done, theirs, strict=True)):
        assert ours.outputs["loss"] == pytest.approx(wanted.loss, rel=1e-10)
        assert ours.outputs["grad_norm"] == pytest.approx(wanted.norm, rel=1e-10)
        assert ours.outputs["lr"] == pytest.approx(rate(step), rel=1e-14)
        assert wanted.norm > CLIP, "the clipping does something"
        for name, parameter in wanted.parameters.items():
            assert far(ours.store[name], parameter.numpy()) <= 1e-10, f"{name} after step {step}"


@COUNTS
def test_gradients_are_those_of_torch(count: int, theirs: list[StepRecord]) -> None:
    graph = graph_of(count)
    names = {name: f"sum/grad/{name}" for name in weights_of(graph)}
    done = lowered_steps(graph, weights_of(graph), batches(), dump=list(names.values()))
    for step, (ours, wanted) in enumerate(zip(done, theirs, strict=True)):
        for name, gradient in wanted.gradients.items():
            found = ours.outputs[f"dump/{names[name]}"]
            assert far(found, gradient.numpy(), 1e-3 * wanted.norm) <= 1e-10, f"{name} in step {step}"


# ---- dropout


@pytest.fixture(scope="module")
def whole() -> list[Done]:
    """Dropped in one microbatch."""
    graph = graph_of(1, drop=0.3)
    return lowered_steps(graph, weights_of(graph), batches(), seed=5)


@COUNTS
def test_masks_do_not_depend_on_the_microbatches(count: int, whole: list[Done]) -> None:
    """The k-th microbatch draws for rows k · rows and on, as the whole batch does; and all is as interpreted."""
    graph = graph_of(count, drop=0.3)
    found = lowered_steps(graph, weights_of(graph), batches(), seed=5)
    assert_same(found, whole, 1e-10)
    assert_same(found[:1], interpreted_steps(graph, weights_of(graph), batches()[:1], seed=5), 1e-10)


def assert_same(found: list[Done], wanted: list[Done], most: float) -> None:
    for ours, other in zip(found, wanted, strict=True):
        assert far(ours.outputs["loss"], other.outputs["loss"]) <= most
        for name, array in other.store.items():
            assert far(ours.store[name], array, 1e-6) <= most, name


def masks(count: int) -> dict[str, list[Array]]:
    """What each source of randomness draws in each step, by its key; of several microbatches the last one's.

    Where a mask is drawn again for the backward phase, it is the same.
    """
    graph = graph_of(count, drop=0.3)
    sites = {node.id: str(node.attrs["key"]) for node in graph.nodes("random")}
    done = lowered_steps(graph, weights_of(graph), batches(), seed=5, dump=list(sites))
    found: dict[str, list[Array]] = {}
    for site, key in sites.items():
        drawn = [one.outputs[f"dump/{site}"] for one in done]
        np.testing.assert_array_equal(drawn, found.setdefault(key, drawn))
    return found


def test_masks_belong_to_rows_layers_and_steps() -> None:
    """All differ; and a microbatch draws what the whole batch draws for its rows."""
    drawn, last = masks(1), masks(4)
    assert len(drawn) == 1 + 3 * DIM["L"], "the embeddings', and each layer's weights and two branches"
    rows = [row.tobytes() for arrays in drawn.values() for array in arrays for row in array]
    assert len(set(rows)) == len(rows) == len(drawn) * STEPS * ROWS
    assert drawn.keys() == last.keys()
    for key, arrays in last.items():
        for array, every in zip(arrays, drawn[key], strict=True):
            np.testing.assert_array_equal(array, every[-ROWS // 4 :])


def test_another_seed_drops_others(whole: list[Done]) -> None:
    graph = graph_of(1, drop=0.3)
    (other,) = lowered_steps(graph, weights_of(graph), batches()[:1], seed=6)
    assert other.outputs["loss"] != whole[0].outputs["loss"]
