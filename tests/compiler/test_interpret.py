"""The interpreter: phases, microbatches, free dims, bodies, initial values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.passes.inline import Inline
from samples.spec_texts import model_spec

BATCH, T, D, F = Dim("batch", 2), Dim("T", 3), Dim("D", 4), Dim("F", 5)


def fresh(microbatches: int = 1) -> Builder:
    return Builder(GraphBuilder("g", microbatches))


def step_graph() -> Graph:
    """loss = sum(w x), accumulated; w' = w - 0.1 dw; the state counts steps; noise tells rows apart."""
    b = fresh(2)
    w = b.parameter("w", (D,), DType.F32, ("ones",))
    count = b.state("count", (), DType.F32)
    x = b.input("x", (BATCH, D), DType.F32)
    loss = b.one("accumulate", b.one("sum", b.one("mul", w, x), over=(BATCH, D)), hint="loss")
    rows = b.one("index", b.one("start", dim=BATCH), dim=BATCH, hint="rows")
    last = b.one("accumulate", b.one("sum", rows, over=(BATCH,)), hint="last")
    with b.within(phase=Phase.BACKWARD):
        dw = b.one("accumulate", b.one("sum", x, over=(BATCH,)), hint="dw")
    with b.within(phase=Phase.UPDATE):
        rate = b.constant(0.1, DType.F32)
        b("assign", b.one("sub", w, b.one("mul", rate, dw)), target="w")
        b("assign", b.one("add", count, b.constant(1.0, DType.F32)), target="count")
    b.output("loss", loss)
    b.output("rows", last)
    return b.finish()


def test_a_step_adds_up_its_microbatches_and_updates_once() -> None:
    x = np.random.default_rng(0).normal(size=(4, 4))
    found = interpret(step_graph(), {"count": 7.0}, microbatches=[{"x": x[:2]}, {"x": x[2:]}])
    assert found["loss"] == pytest.approx(x.sum())
    np.testing.assert_allclose(found["w"], 1 - 0.1 * x.sum(0))
    assert found["count"] == 8
    assert found["rows"] == 0 + 1 + 2 + 3, "the start of the batch advances"


def test_state_written_in_the_forward_is_seen_by_the_next_microbatch() -> None:
    b = fresh(2)
    mean = b.state("mean", (), DType.F32)
    x = b.input("x", (), DType.F32)
    b("assign", b.one("add", mean, x), target="mean")
    b.output("seen", b.one("neg", mean))
    found = interpret(b.finish(), {}, microbatches=[{"x": 1.0}, {"x": 10.0}])
    assert (found["mean"], found["seen"]) == (11.0, -1.0)


def test_free_dims_take_their_sizes_from_the_arrays() -> None:
    b = fresh()
    batch, rows = Dim("batch", None), Dim("rows", None)
    x = b.input("x", (batch, D), DType.F32)
    flat = b.one("merge_dims", x, dims=(batch, D), into=rows)
    back = b.one("split_dim", flat, dim=rows, into=(batch, D))
    n = b.one("cast", b.one("extent", over=(batch, D)), to=DType.F32)
    b.output("mean", b.one("div", b.one("sum", back, over=(batch, D)), n))
    values = np.arange(12.0).reshape(3, 4)
    graph = b.finish()
    assert interpret(graph, {"x": values})["mean"] == values.mean()
    halves = interpret(graph, {}, microbatches=[{"x": values}, {"x": values}])
    assert halves["mean"] == values.mean() / 2, "the extent of the batch is that of all microbatches"


def test_a_kernel_that_is_not_covered_runs_as_its_body() -> None:
    body = fresh()
    x = body.input("x", (T, D), DType.F32)
    start = body.input("start.T", (), DType.I64)
    position = body.one("cast", body.one("index", start, dim=T), to=DType.F32)
    body.output("0", body.one("mul", x, position))
    b = fresh()
    b.graph.body("rotary@scaled", body.finish())
    y = b.one(
        "rotary",
        b.input("x", (T, D), DType.F32),
        b.one("start", dim=T),
        body="rotary@scaled",
        T=(T,),
        K=(D,),
        base=10.0,
        half=True,
        scale="doubled",
    )
    b.output("y", y)
    found = interpret(b.finish(), {"x": np.ones((3, 4)), "start.T": 5})["y"]
    np.testing.assert_array_equal(found, np.array([[5.0], [6.0], [7.0]]) * np.ones((3, 4)))


def test_parameters_start_as_declared() -> None:
    b = fresh()
    for name, init in (("n", ("normal", 0.02)), ("u", ("uniform", 0.5)), ("k", ("kaiming",)), ("x", ("xavier",))):
        b.output(name, b.parameter(f"p.{name}", (Dim("I", 60), Dim("O", 40)), DType.F32, init))
    b.output("c", b.parameter("p.c", (), DType.F32, ("constant", 3.0)))
    graph = b.finish()
    found, other = interpret(graph, {}), interpret(graph, {"seed": 1})
    assert found["n"].std() == pytest.approx(0.02, rel=0.05)
    assert 0.49 < np.abs(found["u"]).max() < 0.5
    assert found["k"].std() == pytest.approx(math.sqrt(2 / 60), rel=0.05)
    assert np.abs(found["x"]).max() == pytest.approx(math.sqrt(6 / 100), rel=0.02)
    assert found["c"] == 3
    assert not np.array_equal(found["n"], other["n"])
    np.testing.assert_array_equal(found["n"], interpret(graph, {})["n"])


def test_wrong_shapes_and_missing_inputs_are_said() -> None:
    graph = step_graph()
    with pytest.raises(AssertionError, match="x has shape"):
        interpret(graph, {"x": np.zeros((2, 3))})
    with pytest.raises(AssertionError, match="input x is not given"):
        interpret(graph, {})


def test_a_bodys_draws_are_each_callers_own() -> None:
    """As where the body is inlined: by its place, the run's seed and the step."""
    sizes = {"T": 4, "batch": 2, "L": 2, "D": 8, "H": 2, "F": 8, "V": 8, "N": 4}
    graph, _ = elaborate_model(model_spec("gpt2"), dims=sizes, training=True)
    given = {"tokens": np.arange(8).reshape(2, 4), "seed": 5, "step": 3}
    found = interpret(graph, given)["logits"]
    assert np.array_equal(found, interpret(Inline()(graph), given)["logits"])
    assert not np.array_equal(found, interpret(graph, {**given, "step": 4})["logits"])
