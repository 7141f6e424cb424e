"""random (uniform in [0, 1)) and gaussian: values that depend on seed, step, key and the logical element alone.

Operands are the seed, the step, and the global start of each dim; `hashing` says exactly which number comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir.types import Attr, DType, Node, TensorType
from . import attributes, costs
from .common import primitive
from .definition import Array, Cost, Effects, NotDifferentiable, OpDef, Precision
from .hashing import gaussian, key_words, uniform
from .numerics import np
from .shapes import count, declared, elements, needs_dtype

LANE_BYTES = 4


def _random_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    result = declared(attrs)
    count(operands, 2 + len(result.dims))
    for operand in operands:
        needs_dtype(operand, DType.I64)
    attributes.text(attrs, "key")
    return (result,)


# Inside are 32 bits an element, mixed with a copy of themselves, then beside what they become, at least float32; of two
# draws (gaussian) the first lies there meanwhile. See runtime/random.py.
def _cost(node: Node, draws: int, operations: int) -> Cost:
    count, each = elements(node.outs[0].dims), node.outs[0].dtype.itemsize_bytes
    exact = max(4, each)
    most = max(2 * LANE_BYTES, LANE_BYTES + exact) + (draws - 1) * exact
    return costs.streamed(node, operations * count, count * (most - each))


def _source(name: str, draw: Callable[..., Array], draws: int, operations: int) -> OpDef:
    def reference(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
        seed, step, *starts = (int(a) for a in arrays)
        dims = node.outs[0].dims
        coordinates = [np.arange(elements((d,)), dtype=np.int64) + s for d, s in zip(dims, starts, strict=True)]
        return (draw(key_words(attributes.text(node.attrs, "key")), seed, step, coordinates),)

    return primitive(
        name,
        attrs={"dims": "the axes", "dtype": "the element type", "key": "what tells this randomness from all other"},
        infer=_random_type,
        reference=reference,
        gradient=NotDifferentiable("random values depend on integers alone"),
        cost=lambda node: _cost(node, draws, operations),
        precision=Precision.EXACT,
        effects=Effects(random=True),
    )


RANDOMNESS = (_source("random", uniform, 1, 1), _source("gaussian", gaussian, 2, 4))
