"""Kernels of the reductions: sum and max."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Dim, Dims, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, meta, shape

aten = torch.ops.aten

# Below this many rows a matrix product with ones gains nothing over aten's sum.
ROWS_FOR_PRODUCT = 64


def over_of(node: Node) -> Dims:
    """The dims that a reduction removes."""
    return cast(tuple[Dim, ...], node.attrs["over"])


def sum_(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Sum over dims."""
    use, out = node.uses[0], node.outs[0]
    return [summed(e, e.tensor(values[0], use.dtype), use.dims, over_of(node), out.dims, TORCH_DTYPES[out.dtype])]


def summed(e: Emitter, x: fx.Node, dims: Dims, over: Dims, kept: Dims, wide: torch.dtype) -> fx.Node:
    """The sum of x[dims] over some, as [kept]. Column sums are a product, where that is faster than aten.sum."""
    if not over:
        return e.cast(x, wide)
    if meta(x).dtype != wide:
        if wide is torch.float32 and kept and e.viewable(x, dims, [over, kept]):
            return e.reshape(e.call(kernels.column_sums, e.flatten(x, dims, [over, kept])), shape(kept))
        x = e.cast(x, wide)
    if (product := by_product(e, x, dims, over, kept)) is not None:
        return e.reshape(e.call(aten.mm.default, *product), shape(kept))
    return e.call(aten.sum.dim_IntList, x, [dims.index(d) for d in over])


def by_product(e: Emitter, x: fx.Node, dims: Dims, over: Dims, kept: Dims) -> tuple[fx.Node, fx.Node] | None:
    """1ᵀ[1, over] and x[over, kept], whose product sums columns (a bias' gradient); None where aten.sum is as fast."""
    leading = e.device == "cpu" and meta(x).is_floating_point() and kept and count(over) >= ROWS_FOR_PRODUCT
    if not leading or dims[-1] in over or not e.viewable(x, dims, [over, kept]):
        return None
    kind = next(ours for ours, theirs in TORCH_DTYPES.items() if theirs == meta(x).dtype)
    return e.ones(count(over), kind), e.flatten(x, dims, [over, kept])


def reduction(op: Any) -> Rule:
    """max over dims."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        use = node.uses[0]
        x = e.tensor(values[0], use.dtype)
        axes = [use.dims.index(d) for d in over_of(node)]
        result: fx.Node = e.call(op, x, axes) if axes else x
        return [result]

    return rule


RULES: dict[str, Rule] = {
    "sum": sum_,
    "max": reduction(aten.amax.default),
}
