"""The algebra of dims that shape rules share, and its error texts.

In: operand types. Out: result dims, or a `TypeRuleError` that shows the dims that met with their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType
from . import attributes
from .definition import Role, TypeRuleError

SCALAR_I64 = TensorType((), DType.I64)


def show(dims: Sequence[Dim]) -> str:
    """`[T = 128, D]`: dims with the sizes that are known."""
    return "[" + ", ".join(d.name if d.size is None else f"{d.name} = {d.size}" for d in dims) + "]"


def refuse(message: str, *found: Dims) -> TypeRuleError:
    """The error for operands that do not fit, with the dims that met."""
    return TypeRuleError(message, found)


def count(operands: Sequence[TensorType], low: int, high: int | None = None) -> None:
    """There must be `low` operands, or between `low` and `high`."""
    high = low if high is None else high
    if not low <= len(operands) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise refuse(f"takes {wanted} operands, got {len(operands)}")


def agree(operands: Iterable[TensorType]) -> None:
    """A dim has one size, whichever operand it stands in, and no operand has it twice."""
    seen: dict[str, tuple[Dim, Dims]] = {}
    for operand in operands:
        distinct(operand.dims)
        for d in operand.dims:
            other, there = seen.setdefault(d.name, (d, operand.dims))
            if other != d:
                raise refuse(f"{show(there)} met {show(operand.dims)}: {d.name} has two sizes", there, operand.dims)


def distinct(dims: Dims) -> None:
    """No dim twice in one tensor."""
    names = [d.name for d in dims]
    for name in names:
        if names.count(name) > 1:
            raise refuse(f"{name} stands twice in {show(dims)}: rename one of the axes", dims)


def same_dtype(operands: Sequence[TensorType]) -> DType:
    """The one element type of all operands."""
    for operand in operands[1:]:
        if operand.dtype != operands[0].dtype:
            raise refuse(
                f"{operands[0].dtype.value} {show(operands[0].dims)} met {operand.dtype.value} {show(operand.dims)}: "
                "one dtype is needed",
                operands[0].dims,
                operand.dims,
            )
    return operands[0].dtype


def as_wide(operand: TensorType, other: TensorType) -> None:
    """What stands beside a low operand has its type, or that of statistics."""
    if other.dtype not in (operand.dtype, statistic(operand.dtype)):
        raise refuse(
            f"{other.dtype.value} {show(other.dims)} met {operand.dtype.value} {show(operand.dims)}: "
            f"{operand.dtype.value} or {statistic(operand.dtype).value} is needed",
            other.dims,
            operand.dims,
        )


def floating(operand: TensorType) -> DType:
    """The operand's type, which must be a float."""
    if not operand.dtype.is_float:
        raise refuse(f"needs a floating-point tensor, got {operand.dtype.value} {show(operand.dims)}", operand.dims)
    return operand.dtype


def needs_dtype(operand: TensorType, dtype: DType) -> None:
    """The operand must have this type."""
    if operand.dtype != dtype:
        raise refuse(f"needs {dtype.value}, got {operand.dtype.value} {show(operand.dims)}", operand.dims)


def holds(dims: Dims, wanted: Iterable[Dim]) -> None:
    """Every wanted dim must be among `dims`."""
    for d in wanted:
        if d not in dims:
            raise refuse(f"no {show((d,))[1:-1]} in {show(dims)}", dims)


def lacks(dims: Dims, unwanted: Iterable[Dim]) -> None:
    """No unwanted dim may be among `dims`."""
    for d in unwanted:
        if d.name in {have.name for have in dims}:
            raise refuse(f"{d.name} stands already in {show(dims)}", dims)


def union(operands: Sequence[Dims]) -> Dims:
    """Broadcasting by name: the dims of the first operand with most dims, then others' missing ones as they appear."""
    widest = max(operands, key=len) if operands else ()
    found = dict.fromkeys(widest)
    for dims in operands:
        found.update(dict.fromkeys(dims))
    return tuple(found)


def without(dims: Dims, gone: Iterable[Dim]) -> Dims:
    """Dims less some of them, in order."""
    left_out = set(gone)
    return tuple(d for d in dims if d not in left_out)


def replace(dims: Dims, old: Dim, new: Dims) -> Dims:
    """Dims with one axis replaced, in its place, by others."""
    at = dims.index(old)
    return dims[:at] + new + dims[at + 1 :]


def product(dims: Iterable[Dim]) -> int | None:
    """The product of the sizes; None while one is free."""
    sizes = [d.size for d in dims]
    return None if None in sizes else math.prod(s for s in sizes if s is not None)


def elements(dims: Iterable[Dim]) -> int:
    """The product of the sizes, which must be known."""
    found = product(dims := tuple(dims))
    assert found is not None, f"sizes must be bound here: {show(dims)}"
    return found


def named(node: Node) -> Dims:
    """Every dim of the node's operands and results, in order of first appearance."""
    found: dict[Dim, None] = {}
    for dims in [u.dims for u in node.uses] + [t.dims for t in node.outs]:
        found.update(dict.fromkeys(dims))
    return tuple(found)


def mapped(node: Node, **special: Iterable[Dim]) -> Mapping[Dim, Role]:
    """Every dim is MAP, but for those listed under another role: `mapped(node, sum=over)`."""
    roles = dict.fromkeys(named(node), Role.MAP)
    for role, dims in special.items():
        roles.update(dict.fromkeys(dims, Role(role)))
    return roles


def declared(attrs: Mapping[str, Attr]) -> TensorType:
    """The type that the attributes `dims` and `dtype` spell out."""
    dims = attributes.dims(attrs, "dims")
    distinct(dims)
    return TensorType(dims, attributes.dtype(attrs))


def statistic(dtype: DType) -> DType:
    """The type of saved statistics: float32 at least."""
    return DType.F32 if dtype.itemsize_bytes < 4 else dtype


def same_axes(operands: Sequence[TensorType], what: str) -> None:
    """All operands must have the very same axes in the same order."""
    for operand in operands[1:]:
        if operand.dims != operands[0].dims:
            first = operands[0].dims
            raise refuse(f"{what}: {show(first)} met {show(operand.dims)}", first, operand.dims)
