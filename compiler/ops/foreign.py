"""Kernels from outside: `fn f[D](x[D]) -> [D] kernel "package:f" backward "package:f_backward"`.

A kernel is given each operand as [n, dims as written], contiguous: the axes that the operands carry are one axis in
front, of size 1 for an operand that carries none. It gives each result as [n, dims as written]. The backward is given
the results' cotangents, the operands and the results, and gives the gradient of each floating operand in that operand's
shape. The compiler knows no more: carried axes may be cut, those that are written may not.

A node with a body has a meaning, and is computed by it until somebody allows the package (`passes/inline.py` then takes
the body away). A node without one cannot be interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use
from . import attributes, costs
from .arithmetic import Cotangents
from .common import fused, second_order
from .definition import Array, Build, Cost, Precision, Role
from .shapes import agree, holds, mapped, refuse

FOREIGN, BACKWARD = "foreign", "foreign_backward"


def groups(attrs: Mapping[str, Attr], name: str) -> tuple[Dims, ...]:
    """The dims of each operand or result, as written."""
    written = attrs[name]
    assert isinstance(written, tuple), f"attribute {name} lists dims"
    return tuple(attributes.dims({"dims": one}, "dims") for one in written)


def carried_of(types: Sequence[TensorType | Use], own: Sequence[Dims]) -> Dims:
    """The axes that operands bring along, in the order in which they come."""
    return tuple(dict.fromkeys(d for one, dims in zip(types, own, strict=True) for d in one.dims if d not in dims))


def package_of(node: Node) -> str:
    """The package that the user must allow."""
    return attributes.text(node.attrs, "kernel").partition(":")[0].partition(".")[0]


def _type(types: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    own, results = groups(attrs, "operands"), groups(attrs, "results")
    tensors, scalars = types[: len(own)], types[len(own) :]
    if len(tensors) < len(own) or any(one != TensorType((), DType.I64) for one in scalars):
        raise refuse(f"takes {len(own)} operands, then starts and keys, got {len(types)}")
    agree(tensors)
    for one, dims in zip(tensors, own, strict=True):
        holds(one.dims, dims)
    carried = carried_of(tensors, own)
    written = {dim for dims in own for dim in dims}
    if written & set(carried):
        raise refuse("an axis that is written for one operand is carried by another", carried)
    return tuple(TensorType((*carried, *dims), _float(tensors)) for dims in results)


def _float(types: Sequence[TensorType]) -> DType:
    """The one floating type among operands."""
    found = list(dict.fromkeys(one.dtype for one in types if one.dtype.is_float))
    if len(found) != 1:
        raise refuse("takes floating operands of one type")
    return found[0]


def _parts(node: Node) -> tuple[tuple[Use, ...], tuple[Use, ...], tuple[Use, ...]]:
    """Of a backward: the cotangents, the operands, the results."""
    count, operands = len(groups(node.attrs, "results")), len(groups(node.attrs, "operands"))
    return node.uses[:count], node.uses[count : count + operands], node.uses[count + operands :]


def _backward_type(types: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    own, results = groups(attrs, "operands"), groups(attrs, "results")
    count = len(results)
    if len(types) != 2 * count + len(own):
        raise refuse(f"takes {count} cotangents, {len(own)} operands and {count} results, got {len(types)}")
    operands = types[count : count + len(own)]
    wanted = _type(operands, attrs)
    if types[:count] != wanted or types[count + len(own) :] != wanted:
        raise refuse("cotangents and results are as the forward gives them")
    return tuple(one for one in operands if one.dtype.is_float)


def _roles(node: Node) -> Mapping[Dim, Role]:
    written = {d for name in ("operands", "results") for dims in groups(node.attrs, name) for d in dims}
    return mapped(node, whole=tuple(written))


def _cost(node: Node) -> Cost:
    """What it moves; what it computes is not known."""
    return costs.streamed(node, 0)


def _reference(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    raise AssertionError(f"{node.id}: what {node.attrs['kernel']} computes is known to it alone")


def _gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    if node.attrs["backward"] is None:
        title = (
            f"`{attributes.text(node.attrs, 'kernel')}` has no `backward`, so that nothing through it can be trained"
        )
        raise SpecError(Diagnostic("E0320", title, hint='write `backward "package:function"` behind its name'))
    own = groups(node.attrs, "operands")
    given = [
        b("constant", hint="zero", value=0.0, dims=out.dims, dtype=out.dtype)[0] if one is None else one
        for one, out in zip(cotangents, node.outs, strict=True)
    ]
    operands = node.uses[: len(own)]
    results = [node.out(index) for index in range(len(node.outs))]
    found = iter(
        b(
            BACKWARD, *given, *operands, *results, kernel=node.attrs["backward"], operands=node.attrs["operands"],
            results=node.attrs["results"], options=node.attrs["options"],
        )
    )  # fmt: skip
    gradients: list[Use | None] = [next(found) if use.dtype.is_float else None for use in operands]
    return [*gradients, *(None for _ in node.uses[len(own) :])]


def _linear(node: Node) -> tuple[frozenset[int], ...]:
    """A backward is linear in all its cotangents together."""
    return (frozenset(range(len(_parts(node)[0]))),)


def _opaque(node: Node) -> bool:
    return node.body is None


_ATTRS = {
    "kernel": "`package:function`",
    "operands": "the dims of each tensor that it takes, as written",
    "results": "the dims of each that it gives",
    "options": "(name, value) of each option",
}
FOREIGN_OPS = (
    fused(
        FOREIGN, FOREIGN, attrs={**_ATTRS, "backward": "`package:function` of its gradient, or none"}, infer=_type,
        reference=_reference, gradient=_gradient, cost=_cost, precision=Precision.FOLLOW, roles=_roles, covers=_opaque,
    ),
    fused(
        BACKWARD, FOREIGN, attrs=_ATTRS, infer=_backward_type, reference=_reference,
        gradient=second_order("a foreign kernel"), cost=_cost, precision=Precision.FOLLOW, roles=_roles, linear=_linear,
    ),
)  # fmt: skip
