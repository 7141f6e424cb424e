"""What a graph starts from: parameters, states, inputs, constants, and the scalars that the runtime gives.

Their values are given (by the interpreter's caller, by the runtime), so their references are never asked for, but for
`constant` and `extent`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, DType, Node, TensorType
from . import attributes, costs
from .arrays import align
from .common import Infer, Reference, primitive
from .definition import Array, NotDifferentiable, OpDef, Precision
from .numerics import np
from .shapes import SCALAR_I64, count, declared, elements, needs_dtype


def _declared(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 0)
    return (declared(attrs),)


def _scalar(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 0)
    return (SCALAR_I64,)


def _given(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    raise AssertionError(f"{node.id}: the value of a {node.op} is given, not computed")


def _leaf(name: str, attrs: Mapping[str, str], infer: Infer, reference: Reference = _given) -> OpDef:
    return primitive(
        name,
        attrs=attrs,
        infer=infer,
        reference=reference,
        gradient=NotDifferentiable("a leaf reads nothing"),
        cost=costs.free,
        precision=Precision.EXACT,
    )


_TYPE = {"dims": "the axes", "dtype": "the element type"}


def numpy_dtype(dtype: DType) -> type:
    """What a reference computes in: float64 for every float, int64 for every integer, bool."""
    if dtype.is_float:
        return np.float64
    return np.bool_ if dtype == DType.BOOL else np.int64


def _constant(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    out = node.outs[0]
    shape = [elements((d,)) for d in out.dims]
    return (np.full(shape, node.attrs["value"], dtype=numpy_dtype(out.dtype)),)


def _extent(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    return (np.asarray(elements(attributes.dims(node.attrs, "over")), dtype=np.int64),)


def _index_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    needs_dtype(operands[0], DType.I64)
    return (TensorType((attributes.dim(attrs, "dim"),), DType.I64),)


# index[d] = start + 0, 1, …: the global position along a dim, of which this may be a part.
def _index(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    (start,) = arrays
    dim = attributes.dim(node.attrs, "dim")
    return (align(start, node.uses[0].dims, node.outs[0].dims) + np.arange(elements((dim,)), dtype=np.int64),)


LEAVES = (
    _leaf("parameter", {"init": "how it starts", "trained": "whether it is updated", **_TYPE}, _declared),
    _leaf(
        "state", {"init": "how it starts", "of": "the parameter that it belongs to", "role": "m", **_TYPE}, _declared
    ),
    _leaf("input", {"name": "the port", "below": "the dim that ids are below", **_TYPE}, _declared),
    _leaf("constant", {"value": "the value of every element", **_TYPE}, _declared, _constant),
    _leaf("start", {"dim": "whose global offset"}, _scalar),
    _leaf("extent", {"over": "the dims whose global sizes are multiplied"}, _scalar, _extent),
    _leaf("step", {}, _scalar),
    _leaf("seed", {}, _scalar),
    primitive(
        "index",
        attrs={"dim": "the dim that is counted"},
        infer=_index_type,
        reference=_index,
        gradient=NotDifferentiable("positions are integers"),
        precision=Precision.EXACT,
    ),
)
