"""Gradients by finite differences in float64, against those that an operator's rule writes.

In: a node of inputs and its arrays. Out: for each float operand the gradient of sum(cotangent * result) by the rule,
interpreted, and by central differences of the operator's own reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from partita.compiler.interpret import interpret
from partita.compiler.ir.types import Node, Use
from partita.compiler.ops.build import Builder
from partita.compiler.ops.definition import Array, NotDifferentiable
from partita.compiler.ops.registry import op

STEP = 1e-6


def rule_gradients(
    builder: Builder, node: Node, arrays: Sequence[Array], cotangents: Sequence[Array | None], wanted: Sequence[bool]
) -> list[Array | None]:
    """What the operator's rule gives for the operands `x0`, `x1`, … of a node in the builder."""
    rule = op(node.op).gradient
    assert not isinstance(rule, NotDifferentiable), f"{node.op} has no gradient"
    given = [
        None if c is None else builder.input(f"c{i}", out.dims, out.dtype)
        for i, (c, out) in enumerate(zip(cotangents, node.outs, strict=True))
    ]
    found = rule(builder, node, given, wanted)
    assert len(found) == len(node.uses), f"{node.op} gives {len(found)} cotangents for {len(node.uses)} operands"
    for i, (use, cotangent) in enumerate(zip(node.uses, found, strict=True)):
        if cotangent is not None and wanted[i]:
            assert_fits(node, use, cotangent)
            builder.output(f"d{i}", cotangent)
    values = {f"x{i}": a for i, a in enumerate(arrays)} | {
        f"c{i}": c for i, c in enumerate(cotangents) if c is not None
    }
    results = interpret(builder.finish(), values)
    return [results.get(f"d{i}") for i in range(len(node.uses))]


def assert_fits(node: Node, use: Use, cotangent: Use) -> None:
    assert cotangent.type == use.type, f"{node.op}: a cotangent of {cotangent.type} for an operand of {use.type}"


def numeric_gradient(function: Callable[[Array], float], at: Array) -> Array:
    """(f(x + h) - f(x - h)) / 2h, element by element."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = [at.copy(), at.copy()]
        moved[0][index] += STEP
        moved[1][index] -= STEP
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * STEP)
    return gradient


def numeric_gradients(node: Node, arrays: Sequence[Array], cotangents: Sequence[Array | None]) -> list[Array | None]:
    """Central differences of the reference, for every float operand."""

    def of(operand: int) -> Callable[[Array], float]:
        def total(value: Array) -> float:
            moved = [*arrays[:operand], value, *arrays[operand + 1 :]]
            results = op(node.op).reference(node, moved)
            return float(sum(np.sum(c * y) for c, y in zip(cotangents, results, strict=True) if c is not None))

        return total

    return [
        numeric_gradient(of(i), np.asarray(a, dtype=np.float64)) if use.dtype.is_float else None
        for i, (a, use) in enumerate(zip(arrays, node.uses, strict=True))
    ]
