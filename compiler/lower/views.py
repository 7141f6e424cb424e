"""How a module's tensors lie in memory, and the shortest way to see one of them otherwise.

In: fx nodes with their meta tensors, and the view that a kernel rule asks for. Out: a tensor that lies so already, or
the one call that makes it, from the tensor furthest back. A dispatch costs what adding up some thousand numbers does,
and what is asked for one after another (a layer's rows, their heads, their order) is often what was there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

aten = torch.ops.aten

Layout = tuple[object, ...]
Call = tuple[Any, fx.Node, list[int]]  # an operator of views, what it sees, and its numbers


def storage(tensor: torch.Tensor) -> int:
    """What two tensors share when one is a view of the other."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def has_view(tensor: torch.Tensor, sizes: Sequence[int]) -> bool:
    """Whether a tensor can be seen in other sizes without a copy."""
    try:
        tensor.view(list(sizes))
    except RuntimeError:
        return False
    return True


def overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may lie in one place: repeated along an axis, or seen through a window."""
    reach = 0
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1 and stride <= reach:
            return True
        reach += stride * (length - 1)
    return False


@dataclass(slots=True)
class Views:
    """What there is to see, by how it lies; the same but for the order of its axes."""

    exact: dict[Layout, fx.Node] = field(default_factory=dict[Layout, fx.Node])
    turned: dict[Layout, fx.Node] = field(default_factory=dict[Layout, fx.Node])

    def saw(self, node: fx.Node) -> None:
        """A tensor that is there from here on."""
        tensor = node.meta["val"]
        if isinstance(tensor, torch.Tensor):
            self.exact[_exact(tensor)] = self.turned[_turned(tensor)] = node

    def way(self, op: Any, value: fx.Node, numbers: list[int]) -> fx.Node | Call:
        """A node that is what is asked for, or the call that gives it."""
        wanted = _seen(op, value, numbers)
        if (found := self.exact.get(_exact(wanted))) is not None:
            return found
        other = self.turned.get(_turned(wanted))
        if op is aten.view.default and value.target is aten.permute.default and other is not None:
            return aten.permute.default, other, _order(other.meta["val"], wanted)
        while value.target is op and isinstance(before := value.args[0], fx.Node):
            shorter = _through(op, value, before, numbers)
            if shorter is None or _exact(_seen(op, before, shorter)) != _exact(wanted):
                break
            value, numbers = before, shorter
        return op, value, numbers


def _through(op: Any, value: fx.Node, before: fx.Node, numbers: list[int]) -> list[int] | None:
    """The numbers with which `before` is seen as `value`'s view is, if it can be."""
    if op is aten.permute.default:
        first = cast("list[int]", value.args[1])
        return [first[axis] for axis in numbers]
    return numbers if op is aten.view.default and has_view(before.meta["val"], numbers) else None


def _seen(op: Any, value: fx.Node, numbers: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return op(value.meta["val"], numbers)


def _order(there: torch.Tensor, wanted: torch.Tensor) -> list[int]:
    """The order of axes in which one lies as the other."""
    axes = sorted(range(there.dim()), key=lambda axis: _axis(there, axis))
    places = sorted(range(wanted.dim()), key=lambda axis: _axis(wanted, axis))
    return [axes[places.index(place)] for place in range(wanted.dim())]


def _axis(tensor: torch.Tensor, axis: int) -> tuple[int, int]:
    return tensor.stride(axis), tensor.shape[axis]


def _exact(tensor: torch.Tensor) -> Layout:
    return (storage(tensor), tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _turned(tensor: torch.Tensor) -> Layout:
    axes = sorted(_axis(tensor, axis) for axis in range(tensor.dim()))
    return (storage(tensor), tensor.dtype, tensor.storage_offset(), tuple(axes))
