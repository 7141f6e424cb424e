"""Calls of kernels from outside, by `runtime.kernels.foreign`: operands as [n, dims as written], contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Attr, Dims, Node, Use
from ...ops.foreign import carried_of, groups
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, shape

aten = torch.ops.aten


def _flat(e: Emitter, use: Use, value: Value, own: Dims, carried: Dims) -> fx.Node:
    """[n, own dims]; n is 1 where the operand carries nothing."""
    x = e.tensor(value, use.dtype)
    mine = tuple(dim for dim in carried if dim in use.dims)
    front = carried if mine else ()
    x = e.spread(x, use.dims, (*front, *own))
    x = e.expand(x, shape((*front, *own)))
    return e.contiguous(e.reshape(x, [count(front), *shape(own)]))


def _call(e: Emitter, node: Node, operands: Sequence[fx.Node], shapes: Sequence[list[int]]) -> tuple[fx.Node, ...]:
    options = cast("tuple[tuple[str, Attr], ...]", node.attrs["options"])
    given: dict[str, Any] = dict(options)
    return e.calls(
        kernels.foreign, node.attrs["kernel"], list(operands), list(shapes), TORCH_DTYPES[node.outs[0].dtype], **given
    )


def foreign(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The kernel; its results with the carried axes apart again."""
    own, results = groups(node.attrs, "operands"), groups(node.attrs, "results")
    uses = node.uses[: len(own)]
    carried = carried_of(uses, own)
    operands = [_flat(e, use, x, dims, carried) for use, x, dims in zip(uses, values, own, strict=False)]
    found = _call(e, node, operands, [[count(carried), *shape(dims)] for dims in results])
    return [e.reshape(x, shape(out.dims)) for x, out in zip(found, node.outs, strict=True)]


def foreign_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The gradient's kernel; where an operand carries only some of the axes, the sum over the others."""
    own, results = groups(node.attrs, "operands"), groups(node.attrs, "results")
    uses = node.uses[len(results) : len(results) + len(own)]
    carried = carried_of(uses, own)
    written = (*results, *own, *results)
    tensors = [_flat(e, use, x, dims, carried) for use, x, dims in zip(node.uses, values, written, strict=True)]
    floats = [(use, dims) for use, dims in zip(uses, own, strict=True) if use.dtype.is_float]
    fronts = [carried if any(dim in carried for dim in use.dims) else () for use, _ in floats]
    shapes = [[count(front), *shape(dims)] for front, (_, dims) in zip(fronts, floats, strict=True)]
    found = _call(e, node, tensors, shapes)
    return [
        _gathered(e, x, front, dims, use) for x, front, (use, dims) in zip(found, fronts, floats, strict=True)
    ]  # fmt: skip


def _gathered(e: Emitter, gradient: fx.Node, front: Dims, own: Dims, use: Use) -> fx.Node:
    order = (*front, *own)
    x = e.reshape(gradient, shape(order))
    lost = [position for position, dim in enumerate(order) if dim not in use.dims]
    if lost:
        x = e.call(aten.sum.dim_IntList, x, lost)
    return e.permute(x, tuple(dim for dim in order if dim in use.dims), use.dims)


RULES: dict[str, Rule] = {"foreign": foreign, "foreign_backward": foreign_backward}
