"""Kernels of layer_norm and rms_norm, forward and backward, over matrices whose rows run along D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ....runtime import kernels
from ...ir.types import Dims, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, count, meta, shape
from .activation import rows

aten = torch.ops.aten


def _kept(dims: Dims, over: Dims) -> Dims:
    return tuple(d for d in dims if d not in over)


def _vector(e: Emitter, node: Node, values: Sequence[Value], operand: int) -> fx.Node:
    """A gain or bias as one axis, in D's order."""
    use, over = node.uses[operand], cast(Dims, node.attrs["D"])
    return e.flatten(e.tensor(values[operand], use.dtype), use.dims, [over])


def _result(e: Emitter, value: fx.Node, source: Dims, over: Dims, target: Dims) -> fx.Node:
    """A matrix of rows back as `target` dims."""
    order = (*_kept(source, over), *over)
    return e.permute(e.reshape(value, shape(order)), order, target)


def layer_norm(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """y = gain (x - mean) rstd + bias; saves mean and rstd."""
    use, over = node.uses[0], cast(Dims, node.attrs["D"])
    x = rows(e, values[0], use.dims, over)
    gain = _vector(e, node, values, 1)
    bias = _vector(e, node, values, 2) if len(node.uses) > 2 else None
    y, mean, rstd = e.calls(aten.native_layer_norm.default, x, [count(over)], gain, bias, node.attrs["eps"])
    kept = shape(_kept(use.dims, over))
    saved = [e.reshape(v, kept) if e.wanted(i) else None for i, v in ((1, mean), (2, rstd))]
    return [_result(e, y, use.dims, over, node.outs[0].dims), *saved]


def layer_norm_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """The gradients of x, gain and bias."""
    over, biased = cast(Dims, node.attrs["D"]), bool(node.attrs["bias"])
    x_use = node.uses[1]
    kept = _kept(x_use.dims, over)
    order = (*kept, *over)
    dy = e.flatten(e.permute(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, order), order, [kept, over])
    x = rows(e, values[1], x_use.dims, over)
    gain = _vector(e, node, values, 2)
    mean, rstd = (
        e.reshape(e.permute(e.tensor(values[i], node.uses[i].dtype), node.uses[i].dims, kept), [count(kept), 1])
        for i in (3, 4)
    )
    wanted = [e.wanted(0), e.wanted(1), biased and e.wanted(2)]
    bias = gain if biased else None
    sizes = [count(over)]
    found = e.calls(aten.native_layer_norm_backward.default, dy, x, sizes, mean, rstd, gain, bias, wanted)
    dx = _result(e, found[0], x_use.dims, over, node.outs[0].dims) if wanted[0] else None
    vectors = [e.reshape(v, shape(over)) if w else None for v, w in zip(found[1:], wanted[1:], strict=True)]
    return [dx, *vectors[: len(node.outs) - 1]]


def rms_norm(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """y = x rstd (offset + gain), rstd = (mean(x²) + eps)^-½; saves rstd."""
    use, over = node.uses[0], cast(Dims, node.attrs["D"])
    n, eps = count(over), cast(float, node.attrs["eps"])
    x = rows(e, values[0], use.dims, over)
    gain = _offset(e, node, _vector(e, node, values, 1))
    if meta(x).dtype.itemsize < 4:
        y, rstd = e.calls(kernels.rms_norm, x, gain, eps)
        saved = e.reshape(rstd, shape(_kept(use.dims, over))) if e.wanted(1) else None
        return [_result(e, y, use.dims, over, node.outs[0].dims), saved]
    # ‖x‖ in one pass over x; the square of a square root costs a rounding, no pass.
    norm = e.call(aten.linalg_vector_norm.default, x, 2, [1], True)
    square = e.call(aten.mul.Tensor, norm, norm)
    rstd = e.call(aten.rsqrt.default, e.call(aten.add.Tensor, e.call(aten.mul.Tensor, square, 1.0 / n), eps))
    y = e.call(aten.mul.Tensor, x, rstd)
    y = e.call(aten.mul.Tensor if e.functional else aten.mul_.Tensor, y, gain)
    saved = e.reshape(rstd, shape(_kept(use.dims, over))) if e.wanted(1) else None
    return [_result(e, y, use.dims, over, node.outs[0].dims), saved]


def _offset(e: Emitter, node: Node, gain: fx.Node) -> fx.Node:
    offset = cast(float, node.attrs["offset"])
    return e.call(aten.add.Tensor, gain, offset) if offset else gain


def rms_norm_backward(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value | None]:
    """With t = dy x and s = Σ_D t gain:  dgain = Σ_rows t rstd,  dx = dy gain rstd - x s rstd³ / n.

    Both sums are matrix-vector products over the one temporary t; dx is written over dy where it dies.
    """
    over = cast(Dims, node.attrs["D"])
    n = count(over)
    x_use, kept = node.uses[1], _kept(node.uses[1].dims, cast(Dims, node.attrs["D"]))
    order = (*kept, *over)
    dy = e.flatten(e.permute(e.tensor(values[0], node.uses[0].dtype), node.uses[0].dims, order), order, [kept, over])
    x = rows(e, values[1], x_use.dims, over)
    gain = _offset(e, node, _vector(e, node, values, 2))
    rstd = e.reshape(e.permute(e.tensor(values[3], node.uses[3].dtype), node.uses[3].dims, kept), [count(kept)])
    if meta(x).dtype.itemsize < 4:
        dx, dgain = e.calls(kernels.rms_norm_backward, dy, x, gain, e.reshape(rstd, [count(kept), 1]))
        return [_result(e, dx, x_use.dims, over, node.outs[0].dims), e.reshape(dgain, shape(over))]
    t = e.call(aten.mul.Tensor, dy, x)
    dgain = e.call(aten.mv.default, e.call(aten.t.default, t), rstd) if e.wanted(1) else None
    if not e.wanted(0):
        return [None, e.reshape(dgain, shape(over)) if dgain is not None else None]
    s = e.call(aten.mv.default, t, gain)
    cube = e.call(aten.mul.Tensor, e.call(aten.mul.Tensor, rstd, rstd), rstd)
    factor = e.call(aten.mul_.Tensor, e.call(aten.mul_.Tensor, cube, s), -1.0 / n)
    column = [count(kept), 1]
    # t is free now: it takes the place of the result unless dy does.
    if e.dies(0) and meta(dy).dtype == TORCH_DTYPES[node.outs[0].dtype]:
        dx = e.call(aten.mul_.Tensor, dy, gain)
    else:
        dx = e.call(aten.mul.out, dy, gain, out=t)
    dx = e.call(aten.mul_.Tensor, dx, e.reshape(rstd, column))
    dx = e.call(aten.addcmul_.default, dx, x, e.reshape(factor, column))
    found = _result(e, dx, x_use.dims, over, node.outs[0].dims)
    return [found, e.reshape(dgain, shape(over)) if dgain is not None else None]


RULES: dict[str, Rule] = {
    "layer_norm": layer_norm,
    "layer_norm_backward": layer_norm_backward,
    "rms_norm": rms_norm,
    "rms_norm_backward": rms_norm_backward,
}
