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
    """Sum over dims. Column sums (a bias' gradient) are the product 1ᵀ x, many times faster than aten.sum."""
    use, over = node.uses[0], over_of(node)
    x = e.tensor(values[0], use.dtype)
    kept = node.outs[0].dims
    wide = TORCH_DTYPES[node.outs[0].dtype]
    if not over:
        return [e.cast(x, wide)]
    if meta(x).dtype != wide:
        if wide is torch.float32 and kept and e.viewable(x, use.dims, [over, kept]):
            return [e.reshape(e.call(kernels.column_sums, e.flatten(x, use.dims, [over, kept])), shape(kept))]
        x = e.cast(x, wide)
    rows = count(over)
    leading = e.device == "cpu" and use.dtype.is_float and kept and rows >= ROWS_FOR_PRODUCT
    if leading and use.dims[-1] not in over and e.viewable(x, use.dims, [over, kept]):
        product = e.call(aten.mm.default, e.ones(rows, use.dtype), e.flatten(x, use.dims, [over, kept]))
        return [e.reshape(product, shape(kept))]
    return [e.call(aten.sum.dim_IntList, x, [use.dims.index(d) for d in over])]


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
