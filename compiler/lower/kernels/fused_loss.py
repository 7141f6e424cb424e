"""Kernel of linear_cross_entropy: a straight line over chunks of rows, one buffer of logits for all of them.

Log-probabilities, probabilities and dz lie in the logits' memory, one after another. dw gathers in place, by the matrix
product itself (beta = 1); a cotangent that is a number is folded into both products (alpha). Low logits go through the
kernels that are wide inside, a few rows at a time, and dw gathers wide, a few classes at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Dims, Node
from ...ops import attributes
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, shape

aten = torch.ops.aten


def linear_cross_entropy(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """hidden, weight, target, dloss -> loss, dhidden, dweight; without dweight where a fifth operand takes it in."""
    summed, classes = ((attributes.dim(node.attrs, name),) for name in "DV")
    rows: Dims = node.outs[0].dims
    tensors = [e.tensor(value, use.dtype) for value, use in zip(values, node.uses, strict=True)]
    hidden = e.flatten(tensors[0], node.uses[0].dims, [rows, summed])
    weight = e.flatten(tensors[1], node.uses[1].dims, [classes, summed])
    target = e.reshape(e.permute(tensors[2], node.uses[2].dims, rows), [count(rows), 1])
    dtype = node.uses[0].dtype
    low_logits = dtype is not node.outs[0].dtype
    dloss, scale = _cotangent(e, node, values, rows)
    if low_logits and dloss is None:
        kind = TORCH_DTYPES[node.outs[0].dtype]
        dloss, scale = e.call(aten.full.default, [count(rows), 1], scale, dtype=kind, device=e.device), 1.0
    loss = _empty(e, [count(rows), 1], node, 0)
    dhidden = _empty(e, [count(rows), count(summed)], node, 1)
    into = len(values) > OPERANDS
    # Laid out as the weight is, so that the optimizer meets like with like.
    order = node.uses[1].dims
    total = tensors[OPERANDS] if into else _empty(e, shape(order), node, 2)
    dweight = e.flatten(total, order, [classes, summed])
    at_once = int(attributes.number(node.attrs, "rows"))
    buffer = e.call(
        aten.empty.memory_format,
        [min(at_once, count(rows)), count(classes)],
        dtype=TORCH_DTYPES[dtype],
        device=e.device,
    )
    for low in range(0, count(rows), at_once):
        high = min(low + at_once, count(rows))

        def part(x: fx.Node, low: int = low, high: int = high) -> fx.Node:
            return _rows(e, x, low, high)

        h, ids = part(hidden), part(target)
        z = e.call(aten.mm.out, h, e.call(aten.t.default, weight), out=_rows(e, buffer, 0, high - low))
        if low_logits:
            assert dloss is not None, "it was made"
            column, lse = e.calls(aten.unbind.int, e.call(kernels.cross_entropy, z, ids))
            e.call(aten.copy_.default, part(loss), e.reshape(column, [high - low, 1]))
            lse = e.reshape(lse, [high - low, 1])
            z = e.call(kernels.cross_entropy_backward, part(dloss), z, ids, lse)
            e.call(aten.mm.out, z, weight, out=part(dhidden))
            e.call(kernels.gathered_product, dweight, z, h, 1 if low or into else 0)
            continue
        z = e.call(aten._log_softmax.out, z, 1, False, out=z)
        e.call(aten.neg.out, e.call(aten.gather.default, z, 1, ids), out=part(loss))
        z = e.call(aten.exp_.default, z)
        z = e.call(aten.scatter_.value_reduce, z, 1, ids, -1.0, reduce="add")
        if dloss is not None:
            z = e.call(aten.mul_.Tensor, z, part(dloss))
        e.call(aten.addmm_.default, part(dhidden), z, weight, beta=0, alpha=scale)
        beta = 1 if low or into else 0
        e.call(aten.addmm_.default, dweight, e.call(aten.t.default, z), h, beta=beta, alpha=scale)
    results = [
        e.reshape(loss, shape(rows)),
        e.permute(e.reshape(dhidden, shape((*rows, *summed))), (*rows, *summed), node.outs[1].dims),
    ]
    return results if into else [*results, total]


OPERANDS = 4  # a fifth is the accumulator of dweight


def _cotangent(e: Emitter, node: Node, values: Sequence[Value], rows: Dims) -> tuple[fx.Node | None, float]:
    """The loss's cotangent: a column of one number a row, or a number for all."""
    value, use = values[3], node.uses[3]
    if not isinstance(value, fx.Node):
        return None, float(value)
    column = e.expand(e.spread(value, use.dims, rows), shape(rows)) if use.dims else e.expand(value, shape(rows))
    return e.reshape(column, [count(rows), 1]), 1.0


def _empty(e: Emitter, sizes: Sequence[int], node: Node, output: int) -> fx.Node:
    dtype = TORCH_DTYPES[node.outs[0 if output == 2 else output].dtype]
    return e.call(aten.empty.memory_format, list(sizes), dtype=dtype, device=e.device)


def _rows(e: Emitter, x: fx.Node, low: int, high: int) -> fx.Node:
    return e.call(aten.slice.Tensor, x, 0, low, high)


RULES: dict[str, Rule] = {"linear_cross_entropy": linear_cross_entropy}
FUSED: dict[str, Rule] = {"lower.linear_cross_entropy": linear_cross_entropy}
