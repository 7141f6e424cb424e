"""accumulate and assign: what a training step adds up over its microbatches, and what it writes.

accumulate gives the sum over the microbatches to the update phase and to the graph's outputs. assign writes a parameter
or a state and has no result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents, elementwise_type
from .common import in_first, primitive
from .definition import Array, Build, Effects, NotDifferentiable, Precision
from .shapes import count


# One microbatch's share; whoever runs the graph adds the shares up.
def _accumulate(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (arrays[0],)


# y = sum over microbatches of x       dx = g in each of them
def _accumulate_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [cotangents[0]]


def _assign_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    attributes.text(attrs, "target")
    return ()


def _assign(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return ()


TRAINING = (
    primitive(
        "accumulate",
        infer=elementwise_type(1, 1),
        reference=_accumulate,
        gradient=_accumulate_gradient,
        linear=in_first,
        precision=Precision.HIGH,
        effects=Effects(writes=True),
    ),
    primitive(
        "assign",
        attrs={"target": "the id of the parameter or state that is written"},
        infer=_assign_type,
        reference=_assign,
        gradient=NotDifferentiable("assign has no result"),
        cost=costs.free,
        precision=Precision.EXACT,
        effects=Effects(writes=True),
    ),
)
