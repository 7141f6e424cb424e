"""Moves between a device and its host: the same value in the other's memory.

    offload   down: the result lies on the host
    fetch     up: the result lies on the device

A pass brings them in once gradients and layouts are settled, so they have no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Node, TensorType
from . import costs
from .common import in_first, primitive
from .definition import Array, Cost, NotDifferentiable, OpDef, Precision
from .shapes import count


def _same(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    return operands


def _identity(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (arrays[0],)


# Its copy is priced by the host's link, not here; what it moves in memory is.
def _cost(node: Node) -> Cost:
    return costs.streamed(node, 0)


def _move(name: str) -> OpDef:
    return primitive(
        name,
        infer=_same,
        reference=_identity,
        gradient=NotDifferentiable("values are moved once their gradients are taken"),
        linear=in_first,
        cost=_cost,
        precision=Precision.EXACT,
    )


MOVE = (_move("offload"), _move("fetch"))
