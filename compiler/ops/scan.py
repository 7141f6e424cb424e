"""scan: a body applied along a dim, step by step, each step reading what the last one left.

Operands are the carries as they start, then what each step reads its slice of (with the scan's dim), then what every
step reads whole. The body is a graph in `Graph.bodies` whose inputs are these in order, the steps' without the dim; its
outputs are the next carries, then what is emitted. Results: the last carries, what was emitted (the dim in front), and,
where the backward may want them, the carries before each step (the dim in front).

Whoever runs a graph runs the body: the interpreter as it stands, the lowering by writing the steps one after the other.
`differentiate` derives the gradient from the body: another scan, the other way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .common import primitive
from .definition import Array, Build, Role
from .shapes import agree, holds, lacks, mapped, named, refuse, without


def whole(attrs: Mapping[str, Attr], name: str) -> int:
    """A whole number among the attributes."""
    value = attrs[name]
    assert isinstance(value, int), f"attribute {name} must be a whole number, not {value!r}"
    return value


def emitted(attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    """What a step emits."""
    written = attrs["emits"]
    assert isinstance(written, tuple), "emits lists types"
    found: list[TensorType] = []
    for item in written:
        assert isinstance(item, tuple) and isinstance(item[1], DType), f"{item!r} is no type"
        found.append(TensorType(attributes.dims({"dims": item[0]}, "dims"), item[1]))
    return tuple(found)


def emits_attr(types: Sequence[TensorType]) -> Attr:
    """Types as the attribute `emits`."""
    return tuple((one.dims, one.dtype) for one in types)


def operands(node: Node) -> tuple[tuple[Use, ...], tuple[Use, ...], tuple[Use, ...]]:
    """Carries, steps, and what every step reads."""
    carries = whole(node.attrs, "carries")
    end = carries + whole(node.attrs, "steps")
    return node.uses[:carries], node.uses[carries:end], node.uses[end:]


def _scan_type(types: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    dim, carries, steps = attributes.dim(attrs, "dim"), whole(attrs, "carries"), whole(attrs, "steps")
    if len(types) < carries + steps:
        raise refuse(f"takes {carries} carries and {steps} steps, got {len(types)} operands")
    agree(types)
    for carry in types[:carries] if attrs["saves"] else ():
        lacks(carry.dims, (dim,))
    for step in types[carries : carries + steps]:
        holds(step.dims, (dim,))
    emits = emitted(attrs)
    for one in emits:
        lacks(one.dims, (dim,))
    saved = types[:carries] if attributes.flag(attrs, "saves") else ()
    along = [TensorType((dim, *one.dims), one.dtype) for one in (*emits, *saved)]
    return (*types[:carries], *along)


def _roles(node: Node) -> Mapping[Dim, Role]:
    """What the body keeps apart may be cut; of the rest nothing is known here."""
    rows = attributes.dims(node.attrs, "rows")
    return mapped(node, whole=without(named(node), rows))


def step_dims(use: Use, dim: Dim) -> Dims:
    """The axes of one step's slice."""
    return without(use.dims, (dim,))


def _given(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    raise AssertionError(f"{node.id}: whoever runs the graph runs the body of a scan")


def _derived(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    raise AssertionError(f"{node.id}: differentiate derives the gradient of a scan from its body")


SCAN = (
    primitive(
        "scan",
        attrs={
            "dim": "the dim that the steps follow",
            "reverse": "whether the last step comes first",
            "carries": "how many operands are carries",
            "steps": "how many of the next are read slice by slice",
            "emits": "the type of each value that a step emits: (dims, dtype)",
            "saves": "whether the carries before each step are results too",
            "rows": "the dims that the body keeps apart",
        },
        infer=_scan_type,
        reference=_given,
        gradient=_derived,
        roles=_roles,
        cost=costs.free,  # the body's, step by step: whoever counts knows it
    ),
)
