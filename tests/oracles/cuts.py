"""What a role claims, as an experiment: cut a dim in two, compute the parts, join them as the role says.

In: a node with its arrays and a dim. Out: the results joined, to be compared with those of the whole. Knows the roles'
meaning (`ops.definition.Role`) and nothing of single operators but where attention's saved lse stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from partita.compiler.ir.types import Dim, Node, with_dims
from partita.compiler.ops.definition import Array, Role
from partita.compiler.ops.offsets import start_operands
from partita.compiler.ops.registry import op
from partita.compiler.ops.structure import axis_pair


@dataclass(frozen=True)
class Part:
    """Half of a node along one dim (and its partner, for a split or a merge)."""

    node: Node
    arrays: tuple[Array, ...]
    low: int
    high: int

    def results(self) -> tuple[Array, ...]:
        return op(self.node.op).reference(self.node, self.arrays)


def cut(node: Node, arrays: Sequence[Array], dim: Dim) -> list[Part]:
    """The node in two parts along a dim of at least two elements."""
    together = axis_pair(node) or (dim,)
    together = together if dim in together else (dim,)
    least = min(_size(d) for d in together)
    middle = (least + 1) // 2
    return [_part(node, arrays, dim, together, least, low, high) for low, high in ((0, middle), (middle, least))]


def _part(
    node: Node, arrays: Sequence[Array], dim: Dim, together: tuple[Dim, ...], least: int, low: int, high: int
) -> Part:
    sizes = {d: Dim(d.name, _size(d) // least * (high - low)) for d in together}
    pieces = [np.asarray(a) for a in arrays]
    for d in together:
        each = _size(d) // least
        for i, use in enumerate(node.uses):
            if d in use.dims:
                pieces[i] = pieces[i].take(range(low * each, high * each), axis=use.dims.index(d))
    starts = start_operands(node)
    if dim in starts:
        pieces[starts[dim]] = pieces[starts[dim]] + low
    uses = tuple(use.relabel(sizes) for use in node.uses)
    attrs = {name: with_dims(value, sizes) for name, value in node.attrs.items()}
    outs = op(node.op).infer(tuple(use.type for use in uses), attrs)
    return Part(replace(node, uses=uses, outs=outs, attrs=attrs), tuple(pieces), low, high)


def _size(dim: Dim) -> int:
    assert dim.size is not None, f"{dim.name} is free"
    return dim.size


def joined(node: Node, arrays: Sequence[Array], dim: Dim, role: Role) -> list[Array]:
    """The results of the parts, joined as the role of the dim says."""
    if role is Role.GATHER:
        return _gathered(node, arrays, dim)
    parts = [part.results() for part in cut(node, arrays, dim)]
    if role is Role.LSE and node.op == "attention":
        return _merged(node, parts)
    pair = axis_pair(node) or ()
    names = set(pair) if dim in pair else {dim}
    found: list[Array] = []
    for out, first, second in zip(node.outs, *parts, strict=True):
        along = [i for i, d in enumerate(out.dims) if d in names]
        found.append(np.concatenate([first, second], axis=along[0]) if along else _JOIN[role](first, second))
    return found


# MAP: a result that lacks the dim owes a sum (of a gain's gradient over the batch, say).
_JOIN: Mapping[Role, np.ufunc] = {
    Role.MAP: np.add,
    Role.SUM: np.add,
    Role.MAX: np.maximum,
    Role.LSE: np.logaddexp,
}


# lse = log sum exp(lse_i), y = sum exp(lse_i - lse) y_i, and 0 where no part kept anything
def _merged(node: Node, parts: Sequence[Sequence[Array]]) -> list[Array]:
    lse = np.logaddexp(parts[0][1], parts[1][1])
    safe = np.where(np.isfinite(lse), lse, 0.0)
    (channel,) = [i for i, d in enumerate(node.outs[0].dims) if d not in node.outs[1].dims]
    first, second = (np.expand_dims(np.exp(own - safe), channel) * y for y, own in parts)
    return [first + second, lse]


def _gathered(node: Node, arrays: Sequence[Array], dim: Dim) -> list[Array]:
    """A masked look-up: ids are shifted into each part; what is not there counts as zero."""
    whole: Array | None = None
    for part in cut(node, arrays, dim):
        if node.op == "cross_entropy_backward":  # a target that lies elsewhere is hit nowhere
            moved = [a - part.low if i == 2 else a for i, a in enumerate(part.arrays)]
            (result,) = replace(part, arrays=tuple(moved)).results()
            at = node.outs[0].dims.index(dim)
            whole = result if whole is None else np.concatenate([whole, result], axis=at)
            continue
        values, *others, ids = part.arrays
        here = (ids >= part.low) & (ids < part.high)
        shifted = np.where(here, ids - part.low, 0)
        axes = tuple(d for d in node.uses[-1].dims)
        kept = dim in node.outs[0].dims
        if kept:
            values = values * _spread(here, axes, node.uses[0].dims)
        (result,) = replace(part, arrays=(values, *others, shifted)).results()
        if kept:
            at = node.outs[0].dims.index(dim)
            whole = result if whole is None else np.concatenate([whole, result], axis=at)
        else:
            result = result * _spread(here, axes, node.outs[0].dims)
            whole = result if whole is None else whole + result
    assert whole is not None, "a cut gives parts"
    return [whole]


def _spread(mask: Array, dims: tuple[Dim, ...], target: tuple[Dim, ...]) -> Array:
    order = [dims.index(d) for d in target if d in dims]
    return mask.transpose(order).reshape([_size(d) if d in dims else 1 for d in target])
