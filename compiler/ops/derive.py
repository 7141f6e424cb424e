"""What gradient rules share: small constants, and cotangents brought to the shape of their operand.

A rule gets the cotangent of each result with the result's dims in the result's order, and gives the cotangent of each
operand with the operand's dims in the operand's order. `fit` does that last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.types import Attr, Dims, Node, Use
from .definition import Build
from .shapes import without


def one(build: Build, op: str, *operands: Use, **attrs: Attr) -> Use:
    """Apply an operator that has one result."""
    given: dict[str, Any] = attrs
    (result,) = build(op, *operands, **given)
    return result


def like(build: Build, value: float, use: Use, dims: Dims = ()) -> Use:
    """A constant in the dtype of `use`."""
    return one(build, "constant", value=value, dims=dims, dtype=use.dtype)


def fit(build: Build, cotangent: Use, operand: Use) -> Use:
    """Sum over the dims that the operand lacks (it was broadcast along them); put the axes in its order."""
    missing = without(cotangent.dims, operand.dims)
    if missing:
        cotangent = one(build, "sum", cotangent, over=missing)
    if cotangent.dims != operand.dims and set(cotangent.dims) == set(operand.dims):
        cotangent = one(build, "transpose", cotangent, dims=operand.dims)
    if cotangent.dims != operand.dims:
        cotangent = one(build, "expand", cotangent, dims=operand.dims)
    return cotangent


def backward(build: Build, node: Node, *operands: Use, **more: Attr) -> tuple[Use, ...]:
    """The gradient operator of a kernel function, with the same body and attributes (and `more`)."""
    attrs: dict[str, Any] = {**node.attrs, **more}
    return build(f"{node.op}_backward", *operands, body=node.body, **attrs)


def only(cotangents: Sequence[Use | None]) -> Use:
    """The cotangent of the first result, where the others are saved values that nothing differentiates."""
    first, *rest = cotangents
    assert first is not None, "a rule is asked for a gradient without a cotangent of the result"
    assert all(c is None for c in rest), "saved results (lse, mean, rstd) have no cotangent"
    return first
