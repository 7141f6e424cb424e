"""Kernels of cross_entropy. A training step holds one buffer of logits: forward and backward are written over it.

`lower.log_softmax_loss` and its backward (made by `lower/fuse.py` where nothing else reads the logits) hand the
log-probabilities from one to the other in the logits' own memory. Rows run along the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Dims, Node, Use
from ..emit import Emitter, Rule, Value, count, meta, shape

aten = torch.ops.aten


def _kept(node: Node, operand: int) -> Dims:
    over = cast(Dims, node.attrs["V"])
    return tuple(d for d in node.uses[operand].dims if d not in over)


def _matrix(e: Emitter, node: Node, use: Use, value: Value) -> fx.Node:
    """Logits as [rows, V]."""
    over = cast(Dims, node.attrs["V"])
    kept = tuple(d for d in use.dims if d not in over)
    return e.flatten(e.tensor(value, use.dtype), use.dims, [kept, over])


def _column(e: Emitter, use: Use, value: Value, kept: Dims) -> fx.Node:
    """A tensor over the rows (perhaps fewer dims) as [rows, 1]."""
    x = e.spread(e.tensor(value, use.dtype), use.dims, kept)
    if set(use.dims) != set(kept):
        x = e.expand(x, shape(kept))
    return e.reshape(x, [count(kept), 1])


def _picked(e: Emitter, matrix: fx.Node, target: fx.Node) -> fx.Node:
    return e.call(aten.gather.default, matrix, 1, target)


def is_low(use: Use) -> bool:
    """Whether sums over the operand must be wider than it is."""
    return use.dtype.itemsize_bytes < 4


def _log_softmax(e: Emitter, matrix: fx.Node, in_place: bool) -> fx.Node:
    # aten writes a result that is not contiguous in several passes, so it must not be the operand too.
    if in_place and meta(matrix).is_contiguous():
        return e.call(aten._log_softmax.out, matrix, 1, False, out=matrix)
    return e.call(aten._log_softmax.default, matrix, 1, False)


def cross_entropy(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """loss = lse - logits[target]; lse is had without another pass as logits[target] - log_softmax[target]."""
    kept = _kept(node, 0)
    z = _matrix(e, node, node.uses[0], values[0])
    target = _column(e, node.uses[1], values[1], kept)
    if is_low(node.uses[0]):
        loss, lse = e.calls(aten.unbind.int, e.call(kernels.cross_entropy, z, target))
        return [_rows(e, loss, kept, node, 0), _rows(e, lse, kept, node, 1)]
    chosen = _picked(e, z, target) if e.wanted(1) else None
    in_place = e.dies(0) and e.viewable(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, [kept, _over(node)])
    loss = e.call(aten.neg.default, _picked(e, _log_softmax(e, z, in_place), target))
    lse = e.call(aten.add.Tensor, chosen, loss) if chosen is not None else None
    return [_rows(e, loss, kept, node, 0), _rows(e, lse, kept, node, 1) if lse is not None else None]


def _over(node: Node) -> Dims:
    return cast(Dims, node.attrs["V"])


def _rows(e: Emitter, value: fx.Node, kept: Dims, node: Node, output: int) -> fx.Node:
    return e.permute(e.reshape(value, shape(kept)), kept, node.outs[output].dims)


def cross_entropy_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """dlogits = dloss (exp(logits - lse) - [V = target])."""
    kept = _kept(node, 1)
    z = _matrix(e, node, node.uses[1], values[1])
    dloss, target, lse = (_column(e, node.uses[i], values[i], kept) for i in (0, 2, 3))
    over_logits = e.dies(1) and e.viewable(
        e.tensor(values[1], node.uses[1].dtype), node.uses[1].dims, [kept, _over(node)]
    )
    if is_low(node.uses[1]):
        z = z if over_logits else e.call(aten.clone.default, z)
        dz = e.call(kernels.cross_entropy_backward, dloss, z, target, lse)
        order = (*kept, *_over(node))
        return [e.permute(e.reshape(dz, shape(order)), order, node.outs[0].dims)]
    p = e.call(aten.sub_.Tensor if over_logits else aten.sub.Tensor, z, lse)
    return [_gradient(e, node, p, target, dloss, kept)]


def _gradient(e: Emitter, node: Node, logp: fx.Node, target: fx.Node, dloss: fx.Node, kept: Dims) -> fx.Node:
    """dloss (exp(logp) - [V = target]), over the memory of `logp`."""
    p = e.call(aten.exp_.default, logp)
    p = e.call(aten.scatter_.value_reduce, p, 1, target, -1.0, reduce="add")
    p = e.call(aten.mul_.Tensor, p, dloss)
    order = (*kept, *_over(node))
    return e.permute(e.reshape(p, shape(order)), order, node.outs[0].dims)


def log_softmax_loss(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """logits, target -> loss, log_softmax(logits) in the memory of the logits."""
    kept = _kept(node, 0)
    z = _matrix(e, node, node.uses[0], values[0])
    logp = _log_softmax(e, z, e.dies(0))
    loss = e.call(aten.neg.default, _picked(e, logp, _column(e, node.uses[1], values[1], kept)))
    order = (*kept, *_over(node))
    return [_rows(e, loss, kept, node, 0), e.permute(e.reshape(logp, shape(order)), order, node.outs[1].dims)]


def log_softmax_loss_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """dloss, log-probabilities (or logits, to be made into such `again`), target -> dlogits in their memory."""
    kept = _kept(node, 1)
    logp = _matrix(e, node, node.uses[1], values[1])
    if node.attrs["again"]:
        logp = _log_softmax(e, logp, e.dies(1))
    elif not e.dies(1):
        logp = e.call(aten.clone.default, logp)
    dloss, target = (_column(e, node.uses[i], values[i], kept) for i in (0, 2))
    return [_gradient(e, node, logp, target, dloss, kept)]


RULES: dict[str, Rule] = {"cross_entropy": cross_entropy, "cross_entropy_backward": cross_entropy_backward}
FUSED: dict[str, Rule] = {
    "lower.log_softmax_loss": log_softmax_loss,
    "lower.log_softmax_loss_backward": log_softmax_loss_backward,
}
