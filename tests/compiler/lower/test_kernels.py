"""Every operator, lowered, against its numpy reference in float64, with operands that it may overwrite or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from generators.operands import case_of
from oracles.lowered import doubled, run_lowered
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Node, Phase
from partita.compiler.lower.kernels import ARGUMENTS, FUSED, RULES
from partita.compiler.ops.build import Builder
from partita.compiler.ops.registry import REGISTRY

# `lower/fuse.py` turns them into `lower.*` nodes or into nothing, `lower/unroll.py` into steps.
REWRITTEN = {"accumulate", "assign", "scan"}
FOREIGN = {"foreign", "foreign_backward"}  # what they compute is known to a package alone
COMPUTED = sorted(set(RULES) - {"extent"} - FOREIGN)


def test_every_operator_has_a_kernel() -> None:
    assert set(RULES) | ARGUMENTS | REWRITTEN == set(REGISTRY)
    assert not set(RULES) & ARGUMENTS
    assert all(name.startswith("lower.") for name in FUSED)


def lowered_case(op: str, seed: int, fresh: bool) -> None:
    case = case_of(op, seed)
    b = Builder(GraphBuilder("case"))
    uses = [b.input(f"x{i}", t.dims, t.dtype) for i, t in enumerate(case.types)]
    if fresh:  # values that were made in the module and die at the operator
        uses = [b.one("neg", b.one("neg", u)) if u.dtype.is_float else u for u in uses]
    attrs: dict[str, Any] = dict(case.attrs)
    node = b.node(op, *uses, **attrs)
    for index in range(len(node.outs)):
        b.output(f"y{index}", node.out(index))
    graph = doubled(b.finish())
    if covered(graph[node.id]):
        found, _ = run_lowered(graph, {f"x{i}": a for i, a in enumerate(case.arrays)})
        for index, wanted in enumerate(REGISTRY[op].reference(node, case.arrays)):
            np.testing.assert_allclose(found[f"y{index}"], wanted, rtol=1e-9, atol=1e-10)


def covered(node: Node) -> bool:
    return REGISTRY[node.op].covers(node)


@pytest.mark.parametrize("op", COMPUTED)
def test_a_kernel_gives_what_its_reference_gives(op: str) -> None:
    for seed in range(6):
        lowered_case(op, seed, fresh=False)


@pytest.mark.parametrize("op", COMPUTED)
def test_a_kernel_may_write_over_what_dies(op: str) -> None:
    for seed in range(6):
        lowered_case(op, seed, fresh=True)


def test_leaves_run_once_a_step() -> None:
    b = Builder(GraphBuilder("leaf"))
    use = b.parameter("w", (), case_of("exp", 0).types[0].dtype)
    assert b.graph[use.node].phase is Phase.PREPARE
