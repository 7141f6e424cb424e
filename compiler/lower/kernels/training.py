"""Kernels of what changes parameters: assign and AdamW.

`lower.assign` and `lower.adamw` are made by `lower/fuse.py`: all parameters that share an update go into one fused
multi-tensor call that writes parameters and moments in place. `lower.copy` is `lower/program.py`'s: what is a view of a
parameter, and is wanted when that is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ...ir.types import DType, Node
from ..emit import Emitter, Rule, Value, meta, storage
from ..listing import COPY, targets

aten = torch.ops.aten


def assign(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Write a value into a parameter or state, unless it was computed there."""
    target, uses = values[0], node.uses
    assert isinstance(target, fx.Node), f"{node.id}: its target is a number"
    if not _lies_in(e, node, values[1], target):
        e.displace(target)
        value = e.values[uses[1].value]
        if isinstance(value, fx.Node):
            value = e.call(aten.detach.default, value) if e.functional else value
            e.call(aten.copy_.default, target, e.permute(value, uses[1].dims, uses[0].dims))
        else:
            e.call(aten.fill_.Scalar, target, value)
    e.written(target)
    return []


def _lies_in(e: Emitter, node: Node, value: Value, target: fx.Node) -> bool:
    """Whether a value already fills its target's memory, element by element."""
    if not isinstance(value, fx.Node) or storage(meta(value)) != storage(meta(target)):
        return False
    order = [node.uses[1].dims.index(dim) for dim in node.uses[0].dims]
    found, wanted = meta(value).permute(order), meta(target)
    return found.stride() == wanted.stride() and found.storage_offset() == wanted.storage_offset()


def _update(
    e: Emitter,
    node: Node,
    groups: Sequence[Sequence[fx.Node]],
    step: Value,
    lr: Value,
    scale: Value | None,
    skip: Value | None = None,
) -> None:
    params, grads, means, squares = groups
    count = e.cast(e.tensor(step, DType.F32), torch.float32)
    # On CUDA the kernel reads the rate as float32; on CPU it may be as precise as it is.
    rate = e.tensor(lr, DType.F64 if e.device == "cpu" else DType.F32)
    rate = rate if e.device == "cpu" else e.cast(rate, torch.float32)
    attrs = {name: cast(float, node.attrs[name]) for name in ("beta1", "beta2", "eps", "decay")}
    grads = [_like(e, g, p) for g, p in zip(grads, params, strict=True)]
    e.call(
        aten._fused_adamw_.tensor_lr,
        list(params),
        grads,
        list(means),
        list(squares),
        [],
        [count] * len(params),
        lr=rate,
        beta1=attrs["beta1"],
        beta2=attrs["beta2"],
        weight_decay=attrs["decay"],
        eps=attrs["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=scale,
        found_inf=skip,
    )


def _like(e: Emitter, grad: fx.Node, param: fx.Node) -> fx.Node:
    """The fused kernel walks all its tensors as one flat run of elements of one type."""
    grad = e.cast(grad, meta(param).dtype)
    return grad if meta(grad).stride() == meta(param).stride() else e.contiguous(grad)


def adamw(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """New p, m and v beside the old ones, where something still reads those."""
    tensors = [e.tensor(v, u.dtype) for u, v in zip(node.uses[:4], values[:4], strict=True)]
    fresh = [t if e.dies(i) else e.call(aten.clone.default, t) for i, t in enumerate(tensors) if i != 1]
    p, m, v = fresh
    _update(e, node, [[p], [tensors[1]], [m], [v]], values[4], values[5], None)
    return [p, m, v]


def adamw_group(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Many parameters in one call, in place. A clip factor common to all gradients is applied inside it."""
    scaled, guarded = bool(node.attrs["scaled"]), bool(node.attrs["guarded"])
    tail = 2 + scaled + guarded
    values = _moved_out(e, node)
    tensors = [e.tensor(v, u.dtype) for u, v in zip(node.uses[:-tail], values[:-tail], strict=True)]
    scale: Value | None = None
    skip: Value | None = None
    if scaled:
        # The kernel divides by grad_scale.
        scale = e.call(aten.reciprocal.default, e.cast(e.tensor(values[-tail], DType.F32), torch.float32))
    if guarded:
        # It does nothing where found_inf is 1.
        skip = e.cast(e.call(aten.logical_not.default, e.tensor(values[-3], DType.BOOL)), torch.float32)
    _update(e, node, [tensors[i::4] for i in range(4)], values[-2], values[-1], scale, skip)
    return []


def _moved_out(e: Emitter, node: Node) -> list[Value]:
    """The operands, when whatever else lies where the call writes, and is read there or later, lies elsewhere."""
    written = targets(node)
    for key in written:
        e.displace(e.values[key], but=frozenset(written))
    found = [e.values[use.value] for use in node.uses]
    for at, use in enumerate(node.uses):
        if at % 4 == 1 and use.value in written:  # a parameter that is another's gradient
            found[at] = e.call(aten.clone.default, found[at])
    return found


def copy(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The same in memory of its own."""
    return [e.call(aten.clone.default, values[0])]


RULES: dict[str, Rule] = {"adamw": adamw}
FUSED: dict[str, Rule] = {"lower.adamw": adamw_group, "lower.assign": assign, COPY: copy}
