"""Properties of every operator: shape rules, roles and linearity against the reference; costs; declarations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generators.operands import MAKERS, Case, case_of, node_of, shape
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.cuts import joined
from partita.compiler.ir.types import Node
from partita.compiler.ops.definition import Array, NotDifferentiable, Role, TypeRuleError
from partita.compiler.ops.leaves import numpy_dtype
from partita.compiler.ops.registry import REGISTRY, op
from partita.compiler.ops.structure import axis_pair

# Leaves whose values somebody else has, and what runs a body that a node alone does not know.
GIVEN = {"parameter", "state", "input", "start", "step", "seed", "scan", "foreign", "foreign_backward"}
COMPUTED = sorted(set(REGISTRY) - GIVEN)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25)


def results_of(node: Node, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return op(node.op).reference(node, arrays)


def test_every_operator_has_operands() -> None:
    assert set(MAKERS) == set(REGISTRY)


@pytest.mark.parametrize("name", COMPUTED)
@few
@given(seed=seeds)
def test_results_have_the_inferred_shape_and_kind(name: str, seed: int) -> None:
    case = case_of(name, seed)
    node = node_of(case)
    results = results_of(node, case.arrays)
    assert len(results) == len(node.outs)
    for result, out in zip(results, node.outs, strict=True):
        assert result.shape == shape(out.dims)
        assert result.dtype == numpy_dtype(out.dtype)


@pytest.mark.parametrize("name", sorted(REGISTRY))
@few
@given(seed=seeds)
def test_every_dim_has_a_role(name: str, seed: int) -> None:
    node = node_of(case_of(name, seed))
    dims = {d for u in node.uses for d in u.dims} | {d for t in node.outs for d in t.dims}
    roles = op(name).roles(node)
    assert set(roles) == dims
    kept = {d for t in node.outs for d in t.dims}
    for dim, role in roles.items():
        if role is Role.MAP:
            assert dim in kept or dim in (axis_pair(node) or ()) or not node.outs
        if role in (Role.SUM, Role.MAX):
            assert dim not in kept


@pytest.mark.parametrize("name", COMPUTED)
@few
@given(seed=seeds)
def test_parts_join_as_the_roles_say(name: str, seed: int) -> None:
    case = case_of(name, seed)
    node = node_of(case)
    whole = results_of(node, case.arrays)
    for dim, role in op(name).roles(node).items():
        if role is Role.WHOLE or dim.size == 1:
            continue
        if name in ("split_dim", "merge_dims") and _least(node) < 2:
            continue
        for found, wanted in zip(joined(node, case.arrays, dim, role), whole, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11, err_msg=f"{name} cut along {dim.name}")


def _least(node: Node) -> int:
    """The number of places where the first part of a split or a merge can be cut."""
    parts = node.attrs["into" if node.op == "split_dim" else "dims"]
    assert isinstance(parts, tuple)
    return getattr(parts[0], "size", 0)


@pytest.mark.parametrize("name", COMPUTED)
@few
@given(seed=seeds)
def test_it_is_linear_where_it_says(name: str, seed: int) -> None:
    case = case_of(name, seed)
    if name == "cast" and not node_of(case).outs[0].dtype.is_float:
        return
    node = node_of(case)
    random = np.random.default_rng(seed)
    for operands in op(name).linear(node):
        assert operands <= set(range(len(node.uses)))
        other = [random.normal(size=a.shape) if i in operands else a for i, a in enumerate(case.arrays)]
        mixed = [2 * a - 3 * o if i in operands else a for i, (a, o) in enumerate(zip(case.arrays, other, strict=True))]
        terms = [results_of(node, tuple(arrays)) for arrays in (mixed, case.arrays, other)]
        for found, first, second in zip(*terms, strict=True):
            np.testing.assert_allclose(found, 2 * first - 3 * second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(COMPUTED) - {"assign", "cast"}))
def test_where_it_is_linear_it_says_so(name: str) -> None:
    """An operand in which twelve cases are all linear is linear (a case may be so by its sizes)."""
    looks: dict[int, bool] = {}
    for seed in range(12):
        case = case_of(name, seed)
        node = node_of(case)
        declared = {i for group in op(name).linear(node) for i in group}
        for i, kind in enumerate(case.types):
            if kind.dtype.is_float and i not in declared:
                arrays = list(case.arrays)
                scaled = (*arrays[:i], 3 * arrays[i], *arrays[i + 1 :])
                pairs = zip(results_of(node, scaled), results_of(node, case.arrays), strict=True)
                looks[i] = looks.get(i, True) and all(np.allclose(a, 3 * b, atol=1e-12) for a, b in pairs)
    # abs(3 x) = 3 abs(x) and max(3 x) = 3 max(x), but neither is additive
    assert not [i for i, linear in looks.items() if linear] or name in ("abs", "max")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_costs_are_counts(name: str) -> None:
    node = node_of(case_of(name, 1))
    cost = op(name).cost(node)
    assert min(cost.flops, cost.bytes_read, cost.bytes_written, cost.workspace_bytes) >= 0


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_wrong_number_of_operands_is_refused(name: str) -> None:
    case = case_of(name, 1)
    open_end = name in ("add", "scan")  # they take any number above some
    types = () if open_end else case.types + case_of("neg", 1).types * 20
    with pytest.raises(TypeRuleError) as fault:
        node_of(Case(name, types, case.arrays, case.attrs))
    assert fault.value.message.startswith(f"{name}: ")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_declarations_hold_together(name: str) -> None:
    definition = REGISTRY[name]
    node = node_of(case_of(name, 2))
    assert definition.name == name
    assert all(definition.attrs.values()), "every attribute says what it means"
    assert definition.effects.overwrites <= set(range(len(node.uses)))
    assert definition.kernel is None or definition.kernel in REGISTRY
    if definition.kernel is None:
        assert definition.covers(node)
    if isinstance(definition.gradient, NotDifferentiable):
        assert definition.gradient.reason
    with pytest.raises(TypeError):
        replace(definition, surprise=1)  # pyright: ignore[reportCallIssue]
