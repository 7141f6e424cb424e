"""Collectives: what devices along one axis of a mesh tell each other, and two changes of layout without a message.

On the whole value every one of them is the identity: only the layout changes, so the dims of one device's part do.

    all_reduce      Partial -> Replicate      the terms joined
    reduce_scatter  Partial -> Shard          the terms joined, each device keeps its own part of `dim`
    all_gather      Shard -> Replicate        the parts put together in the order of ranks
    all_to_all      Shard(join) -> Shard(split)   `split` is cut, `join` put together
    shard           Replicate -> Shard        a device keeps its own part of what it has: no message
    partial         Replicate -> Partial      the first device keeps the value, the others owe nothing (0): no message
    spread          Shard -> Partial          a device's rows where they belong in the whole, else 0: no message
    mask            Shard -> Shard            what a device holds beside its rows becomes 0: no message

A dim of rows that are sorted (`Dim.runs`) is cut where the parts of what they are sorted by begin, which only the data
says. So beside the value they read what it is sorted by: `shard`, `spread` and `mask` one operand, whole (`mask`: cut
as the value is); `all_to_all` it whole and cut, or, to move what it is sorted by itself, nothing more.

`dim` and `into` are one dim before and after; a graph for all devices has the same dim twice. A cotangent has the
layout that is dual to its value's: whole where the value is whole or owed, cut where it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..ir.types import Attr, Dim, DType, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .common import Infer, Linear, in_first, nowhere, primitive
from .definition import Array, Build, Cost, GradientRule, OpDef, Role
from .derive import one, only
from .shapes import agree, count, holds, lacks, mapped, needs_dtype, refuse, replace, show, without

REDUCTIONS = ("sum", "max", "lse")
COLLECTIVES = frozenset({"all_reduce", "reduce_scatter", "all_gather", "all_to_all"})  # that send messages

_CHANGES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        **dict.fromkeys(("all_gather", "shard", "reduce_scatter", "spread"), (("dim", "into"),)),
        "all_to_all": (("split", "split_into"), ("join", "join_into")),
    }
)


def changes(node: Node) -> tuple[tuple[Dim, Dim], ...]:
    """The dims that a collective changes: (before, after)."""
    pairs = _CHANGES.get(node.op, ())
    return tuple((attributes.dim(node.attrs, old), attributes.dim(node.attrs, new)) for old, new in pairs)


def _infer(pairs: Sequence[tuple[str, str]]) -> Infer:
    def infer(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
        count(operands[:1], 1)
        agree(operands)
        for ids in operands[1:]:
            needs_dtype(ids, DType.I64)
        attributes.text(attrs, "axis")
        if "reduction" in attrs and attrs["reduction"] not in REDUCTIONS:
            raise refuse(f"no reduction {attrs['reduction']}")
        dims = operands[0].dims
        for old_name, new_name in pairs:
            old, new = attributes.dim(attrs, old_name), attributes.dim(attrs, new_name)
            holds(dims, (old,))
            lacks(without(dims, (old,)), (new,))
            if (old.size is None) != (new.size is None):
                raise refuse(f"{show((old, new))}: a part's size is known if the whole's is", (old,), (new,))
            dims = replace(dims, old, (new,))
        return (TensorType(dims, operands[0].dtype),)

    return infer


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=[d for pair in changes(node) for d in pair])


def _linear(node: Node) -> tuple[frozenset[int], ...]:
    return in_first(node) if node.attrs.get("reduction", "sum") == "sum" else nowhere(node)


# The whole value: nothing changes. Parts are joined by whoever runs all devices.
def _identity(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    assert all(old.size == new.size for old, new in changes(node)), f"{node.id}: a part is joined by the mesh"
    return (arrays[0],)


# Its message is priced by the machine's links, not here; what it moves in memory is.
def _cost(node: Node) -> Cost:
    return costs.streamed(node, 0)


# y = all_reduce(x)            dx = g
def _all_reduce_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [only(cotangents)]


# y = mask(x)                  dx = mask(g)
def _mask_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    rows = node.uses[1:]
    return [one(b, "mask", only(cotangents), *rows, **node.attrs), *(None for _ in rows)]


def _inverse(op: str) -> GradientRule:
    """The gradient of a collective that changes `dim` into `into`: another that changes it back."""

    def rule(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
        (old, new), axis, rows = changes(node)[0], node.attrs["axis"], node.uses[1:]
        back = "spread" if rows and op == "all_gather" else op
        return [one(b, back, only(cotangents), *rows, axis=axis, dim=new, into=old), *(None for _ in rows)]

    return rule


# y = all_to_all(x; split, join)    dx = all_to_all(g; join, split)
def _all_to_all_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    (split, split_into), (join, join_into) = changes(node)
    back: dict[str, Attr] = {"split": join_into, "split_into": join, "join": split_into, "join_into": split}
    rows = node.uses[:0:-1]
    moved = one(b, "all_to_all", only(cotangents), *rows, axis=node.attrs["axis"], **back)
    return [moved, *(None for _ in rows)]


_AXIS = {"axis": "the mesh axis along which devices speak"}
_DIM = {"dim": "the dim before", "into": "the dim after"}
_HOW = {"reduction": "how terms are joined: sum, max or lse"}


def _collective(
    name: str, attrs: Mapping[str, str], gradient: GradientRule, linear: Linear = in_first, free: bool = False
) -> OpDef:
    return primitive(
        name,
        attrs={**_AXIS, **attrs},
        infer=_infer(_CHANGES.get(name, ())),
        reference=_identity,
        gradient=gradient,
        roles=_roles,
        linear=linear,
        cost=costs.free if free else _cost,
    )


COLLECTIVE = (
    _collective("all_reduce", _HOW, _all_reduce_gradient, _linear),
    _collective("reduce_scatter", {**_DIM, **_HOW}, _inverse("all_gather"), _linear),
    _collective("all_gather", _DIM, _inverse("shard")),
    _collective(
        "all_to_all",
        {
            "split": "the dim that is cut, before",
            "split_into": "and after",
            "join": "the dim that is put together, before",
            "join_into": "and after",
        },
        _all_to_all_gradient,
    ),
    _collective("shard", _DIM, _inverse("all_gather"), free=True),
    _collective("partial", _HOW, _all_reduce_gradient, _linear),
    _collective("spread", _DIM, _inverse("shard"), free=True),
    _collective("mask", {"dim": "the rows"}, _mask_gradient, free=True),
)
