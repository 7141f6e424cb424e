"""numpy arrays by dim name: what the references share.

In: arrays and the dims of their axes. Out: arrays whose axes stand as asked. References never look at positions.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from ..ir.types import Dim, Dims, Node
from .definition import Array
from .numerics import np


def axes(dims: Dims, wanted: Iterable[Dim]) -> tuple[int, ...]:
    """The positions of some dims."""
    return tuple(dims.index(d) for d in wanted)


def align(array: Array, dims: Dims, target: Dims) -> Array:
    """The array with its axes in the order of `target`, and axes of size one where it has none."""
    order = [dims.index(d) for d in target if d in dims]
    assert len(order) == len(dims), f"axes {[d.name for d in dims]} do not all stand in {[d.name for d in target]}"
    shape = [array.shape[dims.index(d)] if d in dims else 1 for d in target]
    return np.transpose(array, order).reshape(shape)


def aligned(node: Node, arrays: Sequence[Array], target: Dims | None = None) -> list[Array]:
    """All operands, aligned for broadcasting against the first result."""
    target = node.outs[0].dims if target is None else target
    return [align(a, u.dims, target) for a, u in zip(arrays, node.uses, strict=True)]


def einsum(target: Dims, *operands: tuple[Array, Dims]) -> Array:
    """Multiply, and sum over every dim that `target` lacks; every dim of `target` stands in some operand."""
    letters: dict[Dim, str] = {}
    for _, dims in operands:
        for d in dims:
            letters.setdefault(d, string.ascii_letters[len(letters)])
    terms = ",".join("".join(letters[d] for d in dims) for _, dims in operands)
    return np.asarray(np.einsum(f"{terms}->{''.join(letters[d] for d in target)}", *[a for a, _ in operands]))


def permute(array: Array, dims: Dims, target: Dims) -> Array:
    """The array with its axes in another order."""
    return np.transpose(array, axes(dims, target))
