"""Every gradient rule against finite differences of the operator's own reference, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generators.operands import case_of, node_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.slopes import numeric_gradients, rule_gradients
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, DType
from partita.compiler.ops.build import Builder
from partita.compiler.ops.definition import Array, NotDifferentiable
from partita.compiler.ops.registry import REGISTRY

GIVEN = {"scan", "foreign"}  # whoever runs the graph has their values
SMOOTH = sorted(
    name for name, d in REGISTRY.items() if not isinstance(d.gradient, NotDifferentiable) and name not in GIVEN
)
# What is saved for the backward has no cotangent.
SAVES = {"cross_entropy", "layer_norm", "rms_norm", "attention"}


def cotangents_of(name: str, shapes: list[tuple[int, ...]], random: np.random.Generator) -> list[Array | None]:
    """One for every result, some left out; none for saved results."""
    drawn: list[Array | None] = [np.asarray(random.normal(size=s)) for s in shapes]
    if name in SAVES:
        return [drawn[0], *[None] * (len(drawn) - 1)]
    kept = int(random.integers(len(drawn)))
    return [c if i == kept or random.random() < 0.7 else None for i, c in enumerate(drawn)]


@pytest.mark.parametrize("name", [n for n in SMOOTH if n not in ("stop", "cast")])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_rules_agree_with_finite_differences(name: str, seed: int) -> None:
    case = case_of(name, seed)
    builder = Builder(GraphBuilder("case"))
    node = node_of(case, builder)
    random = np.random.default_rng(seed)
    cotangents = cotangents_of(name, [tuple(d.size or 0 for d in t.dims) for t in node.outs], random)
    floats = [t.dtype.is_float for t in case.types]
    found = rule_gradients(builder, node, case.arrays, cotangents, floats)
    for mine, wanted in zip(found, numeric_gradients(node, case.arrays, cotangents), strict=True):
        if wanted is None:
            assert mine is None
        else:
            zeros = np.zeros_like(wanted)
            np.testing.assert_allclose(zeros if mine is None else mine, wanted, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "div", "rem", "pow", "maximum", "where", "dot", "stack", "concat"]
)
def test_only_what_is_wanted_is_computed(name: str) -> None:
    case = case_of(name, 5)
    for alone in range(len(case.types)):
        if not case.types[alone].dtype.is_float:
            continue
        builder = Builder(GraphBuilder("case"))
        node = node_of(case, builder)
        cotangents = [np.ones([d.size or 0 for d in t.dims]) for t in node.outs]
        found = rule_gradients(builder, node, case.arrays, cotangents, [i == alone for i in range(len(case.types))])
        assert [g is not None for g in found] == [i == alone for i in range(len(case.types))]


def test_nothing_flows_through_stop() -> None:
    case = case_of("stop", 3)
    builder = Builder(GraphBuilder("case"))
    node = node_of(case, builder)
    assert rule_gradients(builder, node, case.arrays, [np.ones_like(case.arrays[0])], [True]) == [None]


def test_ties_of_max_share_equally() -> None:
    builder = Builder(GraphBuilder("case"))
    d = Dim("D", 4)
    x = builder.input("x0", (d,), DType.F64)
    node = builder.node("max", x, over=(d,))
    values = np.array([1.0, 3.0, 3.0, 2.0])
    (found,) = rule_gradients(builder, node, [values], [np.asarray(1.0)], [True])
    np.testing.assert_array_equal(found, [0, 0.5, 0.5, 0])


def test_kernel_gradients_keep_the_body() -> None:
    builder = Builder(GraphBuilder("case"))
    node = node_of(case_of("softmax", 1), builder)
    rule = REGISTRY["softmax"].gradient
    assert not isinstance(rule, NotDifferentiable)
    cotangent = builder.input("c", node.outs[0].dims, node.outs[0].dtype)
    (dx,) = rule(builder, replace(node, body="softmax@1"), [cotangent], [True])
    assert dx is not None
    assert builder.graph[dx.node].op == "softmax_backward"
    assert builder.graph[dx.node].body == "softmax@1"
