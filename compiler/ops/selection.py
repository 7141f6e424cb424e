"""top: which elements along a dim are among the k largest, as truth values; of equal ones the first count.

A mixture's router picks its experts with it. The mask has no gradient: what is picked gets its own through `where`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, DType, Node, TensorType
from . import attributes, costs
from .common import primitive
from .definition import Array, Cost, NotDifferentiable, Role
from .numerics import np
from .shapes import agree, count, elements, holds, mapped, refuse, show


def _top_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim, k = attributes.dim(attrs, "dim"), attrs["k"]
    holds(operands[0].dims, (dim,))
    assert isinstance(k, int), "k is a whole number"
    if k < 1 or (dim.size is not None and k > dim.size):
        raise refuse(f"{show((dim,))} has no {k} largest", operands[0].dims)
    return (TensorType(operands[0].dims, DType.BOOL),)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=(attributes.dim(node.attrs, "dim"),))


# A stable sort of -x: the first among equals stands first.
def _top(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    axis = node.uses[0].dims.index(attributes.dim(node.attrs, "dim"))
    order = np.argsort(-arrays[0], axis=axis, kind="stable")
    found = np.zeros(arrays[0].shape, dtype=np.bool_)
    largest = np.take(order, range(int(attributes.number(node.attrs, "k"))), axis=axis)
    np.put_along_axis(found, largest, True, axis=axis)
    return (found,)


# A comparison sort: n log2 n.
def _cost(node: Node) -> Cost:
    dim = attributes.dim(node.attrs, "dim")
    return costs.streamed(node, elements(node.uses[0].dims) * max(1, (elements((dim,)) - 1).bit_length()))


SELECTION = (
    primitive(
        "top",
        attrs={"dim": "the dim along which the largest are taken", "k": "how many"},
        infer=_top_type,
        reference=_top,
        gradient=NotDifferentiable("truth values have no gradient"),
        roles=_roles,
        cost=_cost,
    ),
)
