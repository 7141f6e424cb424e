"""Writes into parameters: early and in place, yet every value is what it was before anything was written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.lowered import run_lowered
from oracles.values import assert_close, leaf_values, run
from partita.compiler.cost.memory import Owner
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Phase, Use
from partita.compiler.lower.build import compile_graphs, graph_footprint
from partita.compiler.ops.build import Builder

D, E = Dim("D", 4), Dim("E", 4)
TARGETS = ("a", "b", "c")


class Writer:
    """A step whose update phase is written by hand over three parameters and an input."""

    def __init__(self) -> None:
        self.graph = GraphBuilder("update")
        self.b = Builder(self.graph)
        self.values = [self.b.parameter(name, (D, E), DType.F64) for name in TARGETS]
        self.values.append(self.b.input("x", (D, E), DType.F64))

    def apply(self, op: str, *operands: Use, **attrs: object) -> Use:
        with self.b.within(phase=Phase.UPDATE):
            return self.b.one(op, *operands, **attrs)  # pyright: ignore[reportArgumentType]

    def assign(self, target: str, value: Use) -> None:
        with self.b.within(phase=Phase.UPDATE):
            self.b("assign", value, target=target)

    def finish(self, **outputs: Use) -> Graph:
        for name, use in outputs.items():
            self.graph.output(name, use)
        return self.b.finish()


def check(graph: Graph) -> None:
    """Outputs and what is left in the parameters are the interpreter's."""
    values = {name: abs(value) if name.endswith(".v") else value for name, value in leaf_values(graph, seed=3).items()}
    found, store = run_lowered(graph, values)
    wanted = run(graph, values)
    assert_close({**found, **store}, {**{k: np.asarray(values[k]) for k in store}, **wanted}, 1e-12)


@st.composite
def updates(draw: st.DrawFn) -> Graph:
    """A few elementwise operators over old values and one another, then writes: swaps, copies, views, tails."""
    w = Writer()
    for _ in range(draw(st.integers(1, 8))):
        op = draw(st.sampled_from(["add", "sub", "mul", "neg", "stop", "turn"]))
        picked = [draw(st.sampled_from(w.values)) for _ in range(2)]
        if op == "turn":
            turned = w.apply("transpose", picked[0], dims=(E, D))
            w.values.append(w.apply("add", turned, picked[1]) if draw(st.booleans()) else turned.relabel({E: D, D: E}))
        else:
            w.values.append(w.apply(op, *(picked[:1] if op in ("neg", "stop") else picked)))
    same = [use for use in w.values if use.dims == (D, E)]
    for name in draw(st.sets(st.sampled_from(TARGETS), min_size=1)):
        w.assign(name, draw(st.sampled_from(same)))
    return w.finish(y=draw(st.sampled_from(w.values[len(TARGETS) :])))  # a parameter itself is what it is in the end


@given(updates())
def test_any_update_is_that_of_the_interpreter(graph: Graph) -> None:
    check(graph)


def test_two_parameters_swap() -> None:
    w = Writer()
    a, b, *_ = w.values
    w.assign("a", b)
    w.assign("b", a)
    check(w.finish(y=w.values[-1]))


def test_a_new_value_that_is_read_on_is_not_written_over() -> None:
    w = Writer()
    a, b, _, x = w.values
    new = w.apply("sub", a, x)
    w.assign("a", new)
    w.assign("b", w.apply("mul", w.apply("neg", new), b))
    check(w.finish(y=x))


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.FORWARD, Phase.UPDATE])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_view_of_a_parameter_is_as_it_was_before_the_write(phase: Phase, asked: bool, kind: str) -> None:
    """Whether it is asked for, or read by another parameter's write, which comes later."""
    w = Writer()
    a, b, c, x = w.values
    with w.b.within(phase=phase):
        view = w.b.one("transpose", a, dims=(E, D))
    if kind == "sgd":
        w.assign("a", w.apply("sub", a, x))
        w.assign("b", w.apply("add", w.apply("mul", b, view), w.apply("exp", c)))
    else:
        adam(w)
    check(w.finish(view=view) if asked else w.finish(y=w.apply("neg", w.apply("add", view, x))))


def adam(w: Writer) -> None:
    """Updates `a` by `b`, which is its gradient, and `b` by `a`."""
    with w.b.within(phase=Phase.UPDATE):
        count, rate = (
            w.b.one("constant", dims=(), dtype=dtype, value=value)
            for dtype, value in ((DType.F64, 1), (DType.F64, 0.1))
        )
        for target, gradient in (("a", w.values[1]), ("b", w.values[0])):
            moments = [w.b.state(f"{target}.{name}", (D, E), DType.F64) for name in ("m", "v")]
            place = w.values[TARGETS.index(target)]
            news = w.b("adamw", place, gradient, *moments, count, rate, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1)
            for name, new in zip((target, f"{target}.m", f"{target}.v"), news, strict=True):
                w.assign(name, new)


def momentum(parameters: int, width: int) -> Graph:
    """w - (m + g) and m + g for many parameters, whose gradients are made just before."""
    graph = GraphBuilder("momentum")
    b = Builder(graph)
    wide = Dim("W", width)
    for number in range(parameters):
        w, m = (b.parameter(f"{name}{number}", (wide,), DType.F32) for name in "wm")
        with b.within(phase=Phase.BACKWARD):
            gradient = b.one("exp", w)
        with b.within(phase=Phase.UPDATE):
            speed = b.one("add", m, gradient)
            b("assign", speed, target=f"m{number}")
            b("assign", b.one("sub", w, speed), target=f"w{number}")
    return b.finish()


def test_no_second_copy_of_the_parameters_lives() -> None:
    graph = momentum(6, 1000)
    found = graph_footprint(graph)
    assert found.memory.of(Owner.PARAMETER) == 2 * 6 * 4000
    assert found.memory.peak_bytes == 3 * 6 * 4000  # parameters, momenta, gradients
    _, sources = compile_graphs({"step": graph}, {}, {})
    assert "copy_" not in sources["update"]
    assert len(re.findall(r"\.(?:add|sub)_\(", sources["update"])) == 2 * 6


@pytest.mark.parametrize("name", TARGETS)
def test_a_literal_fills_a_parameter(name: str) -> None:
    w = Writer()
    a, *_ = w.values
    w.assign(name, w.apply("constant", dims=(D, E), dtype=DType.F64, value=2.0))
    check(w.finish(y=w.apply("exp", a)))
