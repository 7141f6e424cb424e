"""What kernels give: tensors of the meta device, found by running a kernel there.

In: a kernel with its operands on the meta device. Out: its result there. A new tensor's shape, strides and type are
known by its operands' for good: modules of steps that are compared ask for the same ones over and over, and a kernel
that torch has in Python takes a hundred times as long there as to look it up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .views import storage

_New = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # shape, strides and type


@dataclass
class Outcomes:
    """Of kernels that were run, what is new each time; what shares memory with an operand is run again."""

    known: dict[object, _New] = field(default_factory=dict[object, _New])

    def of(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a kernel."""
        key = (op, _key(args), _key(tuple(kwargs.items())))
        if key in self.known:
            shape, stride, dtype = self.known[key]
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        with torch.no_grad():
            found = op(*args, **kwargs)
        if isinstance(found, Tensor) and storage(found) not in set(_storages((args, tuple(kwargs.values())))):
            self.known[key] = tuple(found.shape), found.stride(), found.dtype
        return found


def _key(value: Any) -> object:
    """What a result depends on; numbers with their type, because 1 and 1.0 make different ones."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple(map(_key, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return type(value), value


def _storages(value: Any) -> list[int]:
    """The memories of all tensors."""
    if isinstance(value, Tensor):
        return [storage(value)]
    return [one for part in value for one in _storages(part)] if isinstance(value, tuple | list) else []  # pyright: ignore[reportUnknownVariableType]
