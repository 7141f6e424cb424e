"""Kernels of windows: padding and a strided view; the way back is the adjoint of that view, `unfold_backward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from ...ir.types import Dim, Node
from ..emit import Emitter, Rule, Value, size

aten = torch.ops.aten


def _number(node: Node, name: str) -> int:
    return cast(int, node.attrs[name])


def _pad(e: Emitter, x: fx.Node, axis: int, rank: int, before: int, after: int, fill: float) -> fx.Node:
    """Places before and behind an axis; negative numbers cut."""
    if before == after == 0:
        return x
    behind = [0, 0] * (rank - 1 - axis)
    return e.call(aten.constant_pad_nd.default, x, [*behind, before, after], fill)


def window(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Padded, then seen through a window at every stride: a view."""
    use, out = node.uses[0], node.outs[0].dims
    axis, width = use.dims.index(cast(Dim, node.attrs["dim"])), cast(Dim, node.attrs["size"])
    x = e.tensor(values[0], use.dtype)
    fill = cast(float, node.attrs["fill"])
    x = _pad(e, x, axis, len(use.dims), _number(node, "before"), _number(node, "after"), fill)
    seen = e.call(aten.unfold.default, x, axis, size(width), _number(node, "stride"))
    last = (*(d for d in out if d != width), width)
    return [e.permute(seen, last, out)]


def unwindow(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """Every place of every window added where it came from; what was padding is cut off."""
    use, out = node.uses[0], node.outs[0].dims
    dim, width = cast(Dim, node.attrs["dim"]), cast(Dim, node.attrs["size"])
    before, after, axis = _number(node, "before"), _number(node, "after"), out.index(dim)
    rest = tuple(cast(Dim, node.attrs["out"]) if d == dim else d for d in out)
    x = e.permute(e.tensor(values[0], use.dtype), use.dims, (*rest, width))
    padded = [size(d) + (before + after if d == dim else 0) for d in out]
    whole = e.call(aten.unfold_backward.default, x, padded, axis, size(width), _number(node, "stride"))
    return [whole if before == after == 0 else e.call(aten.slice.Tensor, whole, axis, before, before + size(dim))]


RULES: dict[str, Rule] = {"window": window, "unwindow": unwindow}
