"""Named axes over torch tensors: what the rules of the torch oracle share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from partita.compiler.ir.types import Dim, Dims, Node
from torch import Tensor


def align(x: Tensor, dims: Dims, target: Dims) -> Tensor:
    """Axes in the order of `target`, of size one where x has none."""
    x = x.permute([dims.index(dim) for dim in target if dim in dims])
    for place, dim in enumerate(target):
        if dim not in dims:
            x = x.unsqueeze(place)
    return x


def sizes_of(dims: Sequence[Dim]) -> list[int]:
    return [dim.size or 0 for dim in dims]


def axes_of(node: Node, attr: str, operand: int = 0) -> tuple[int, ...]:
    return tuple(node.uses[operand].dims.index(dim) for dim in dims_of(node, attr))


def dims_of(node: Node, attr: str) -> Dims:
    value: Any = node.attrs[attr]
    return (value,) if isinstance(value, Dim) else tuple(value)


def contract(a: tuple[Tensor, Dims], b: tuple[Tensor, Dims], out: Dims) -> Tensor:
    letters: dict[Dim, str] = {}
    for dim in (*a[1], *b[1]):
        letters.setdefault(dim, chr(ord("a") + len(letters)))
    left, right, to = ("".join(letters[dim] for dim in dims) for dims in (a[1], b[1], out))
    return torch.einsum(f"{left},{right}->{to}", a[0], b[0])
