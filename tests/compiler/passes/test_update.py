"""The update pass: whole steps by the interpreter against torch's optimizers, clipping and schedules, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.base.span import Source
from partita.compiler.elaborate.apply import Functions
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipe import OptimizerGroup, Schedule, Segment
from partita.compiler.elaborate.schedule import rate_at
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import LOSS
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.passes.definition import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.update import Update, idle_groups

ROWS, WIDTH, HIDDEN = 6, 4, 3
WARMUP_COSINE = Schedule((Segment("warmup", 0, 0.0, 0.05, 2), Segment("cosine", 2, 0.05, 0.005, 5)))


def standard() -> Functions:
    spec, found = load(Source("test.partita", "use std\n"))
    assert spec is not None, found
    return Functions(spec)


def update(groups: Sequence[OptimizerGroup], clip: float | None = None) -> Update:
    """The pass with the optimizers of std."""
    return Update(tuple(groups), WARMUP_COSINE, standard(), clip)


def group(function: str, pattern: str = "*", **options: float) -> OptimizerGroup:
    if function == "sgd":
        return OptimizerGroup(pattern, "sgd", ("m",), {"momentum": 0.9, "decay": 0.0, **options}, counts=False)
    start = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1}
    return OptimizerGroup(pattern, function, ("m", "v"), {**start, **options})


def network(dtype: DType = DType.F64) -> Graph:
    """loss = Σ (tanh(x w + b) u)² / rows; u is used twice, and z not at all."""
    batch, i, h = Dim("batch", ROWS), Dim("I", WIDTH), Dim("H", HIDDEN)
    b = Builder(GraphBuilder("network"))
    w, u = b.parameter("w", (i, h), dtype), b.parameter("u", (h,), dtype)
    bias, idle = b.parameter("bias.b", (h,), dtype), b.parameter("z", (h,), dtype)
    assert idle.dims
    x = b.input("x", (batch, i), dtype)
    y = b.one("tanh", b.one("add", b.one("dot", x, w, over=(i,)), bias))
    z = b.one("mul", b.one("mul", y, u), u)
    share = b.constant(1 / ROWS, dtype)
    loss = b.one("mul", b.one("sum", b.one("mul", z, z), over=(batch, h)), share)
    b.output("loss", loss)
    return b.finish()


def step_graph(one: Update, parts: int = 1) -> Graph:
    passes = [Differentiate(), one, Microbatch(parts)] if parts > 1 else [Differentiate(), one]
    return run_passes(network(), passes, LOSS)


def values(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes = {"w": (WIDTH, HIDDEN), "u": (HIDDEN,), "bias.b": (HIDDEN,), "z": (HIDDEN,), "x": (ROWS, WIDTH)}
    return {name: draw.normal(size=shape) for name, shape in shapes.items()}


def ours(
    graph: Graph, start: Mapping[str, np.ndarray], steps: int
) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    now = dict(start)
    log: list[dict[str, float]] = []
    for step in range(steps):
        found = interpret(graph, {**now, "step": step})
        log.append({name: float(found[name]) for name in ("loss", "lr", "grad_norm")})
        now.update({name: array for name, array in found.items() if name not in log[-1]})
    return now, log


def theirs(
    groups: Sequence[tuple[type[Any], dict[str, Any], tuple[str, ...]]],
    start: Mapping[str, np.ndarray], schedule: Schedule, clip: float | None, steps: int,
) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:  # fmt: skip
    def rate_of(step: int) -> float:
        return rate_at(schedule, step)

    tensors = {name: torch.tensor(array, requires_grad=name != "x") for name, array in start.items()}
    trained = [tensor for name, tensor in tensors.items() if name != "x"]
    optimizers = [kind([tensors[name] for name in names], lr=1.0, **options) for kind, options, names in groups]
    rates = [torch.optim.lr_scheduler.LambdaLR(one, rate_of) for one in optimizers]
    log: list[dict[str, float]] = []
    for _ in range(steps):
        y = torch.tanh(tensors["x"] @ tensors["w"] + tensors["bias.b"]) * tensors["u"] * tensors["u"]
        loss = (y * y).sum() / ROWS
        for tensor in trained:
            tensor.grad = torch.zeros_like(tensor)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, math.inf if clip is None else clip)
        log.append({"loss": loss.item(), "lr": float(rates[0].get_last_lr()[0]), "grad_norm": norm.item()})
        for one, following in zip(optimizers, rates, strict=True):
            one.step()
            following.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}, log


ALL = ("w", "u", "bias.b", "z")
CASES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


def same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    for name in ALL:
        error = np.linalg.norm(found[name] - wanted[name]) / max(np.linalg.norm(wanted[name]), 1e-30)
        assert error <= 1e-12, f"{name} is off by {error}"


@pytest.mark.parametrize("function", CASES)
@given(seed=st.integers(0, 1000), clip=st.sampled_from([None, 0.5, 100.0]), steps=st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_steps_equal_torch(function: str, seed: int, clip: float | None, steps: int):
    kind, options = CASES[function]
    start = values(seed)
    graph = step_graph(update([group(function)], clip))
    found, log = ours(graph, start, steps)
    wanted, their_log = theirs([(kind, dict(options), ALL)], start, WARMUP_COSINE, clip, steps)
    same(found, wanted)
    for mine, other in zip(log, their_log, strict=True):
        assert mine == pytest.approx(other, rel=1e-12)


def test_groups_take_the_first_pattern_that_fits():
    start = values(3)
    groups = (group("adamw", "*.b", decay=0.0), group("sgd", "u"), group("adamw", "*"))
    found, _ = ours(step_graph(update(groups, 1.0)), start, 3)
    adamw, options = CASES["adamw"]
    wanted, _ = theirs(
        [
            (adamw, {**options, "weight_decay": 0.0}, ("bias.b",)),
            (torch.optim.SGD, {"momentum": 0.9}, ("u",)),
            (adamw, dict(options), ("w", "z")),
        ],
        start, WARMUP_COSINE, 1.0, 3,
    )  # fmt: skip
    same(found, wanted)


def test_microbatches_equal_one_batch():
    start = values(5)
    one = update([group("adamw")], 1.0)
    whole = interpret(step_graph(one), {**start, "step": 1})
    rows = start.pop("x")
    for parts in (2, 3, 6):
        graph = step_graph(one, parts)
        pieces = [{"x": piece} for piece in np.split(rows, parts)]
        found = interpret(graph, {**start, "step": 1}, microbatches=pieces)
        for name, array in whole.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-15)


def test_states_are_named_after_optimizer_role_and_parameter():
    graph = step_graph(update([group("adamw")]))
    assert [node.id for node in graph.nodes("state")] == [f"adamw.{role}/{name}" for name in ALL for role in "mv"]
    state = graph["adamw.v/bias.b"]
    assert (state.attrs["of"], state.attrs["role"], state.attrs["init"]) == ("bias.b", "v", ("zeros",))
    assert {node.attrs["target"] for node in graph.nodes("assign")} == {*ALL, *(n.id for n in graph.nodes("state"))}


def test_gradients_are_accumulated_where_they_are_made():
    graph = step_graph(update([group("adamw")], 1.0))
    order = [node.id for node in graph]
    for node in graph.nodes("accumulate"):
        assert order.index(node.id) - order.index(node.uses[0].node) == 1
        assert node.phase is (Phase.FORWARD if node.id == "sum/loss" else Phase.BACKWARD)
    assert set(graph.outputs) == {"loss", "lr", "grad_norm"}


def test_a_parameter_that_no_pattern_fits_is_an_error():
    with pytest.raises(SpecError) as caught:
        step_graph(update([group("adamw", "w")]))
    assert caught.value.diagnostics[0].code == "E0413"
    assert "`u`" in caught.value.diagnostics[0].title


def test_idle_groups():
    groups = (group("adamw", "*.bias"), group("adamw", "*"), group("sgd", "u"))
    assert [item.pattern for item in idle_groups(groups, ALL)] == ["*.bias", "u"]


def test_a_rate_of_its_own():
    start = values(7)
    slow = OptimizerGroup("u", "sgd", ("m",), {"momentum": 0.9, "decay": 0.0}, WARMUP_COSINE.scaled(0.005), False)
    found, _ = ours(step_graph(update([slow, group("sgd")])), start, 1)
    plain, _ = ours(step_graph(update([group("sgd")])), start, 1)
    np.testing.assert_allclose((found["u"] - start["u"]) * 10, plain["u"] - start["u"], rtol=1e-9)
    np.testing.assert_array_equal(found["w"], plain["w"])
