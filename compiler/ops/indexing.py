"""gather, and scatter_add, which is its gradient.

gather(table, ids)[ids' dims, others] = table[dim = ids, others]. Dims that the table shares with ids are aligned, as in
logits[V = target]. ids never carry the gathered dim itself; every id is in [0, size of dim).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align
from .common import in_first, primitive
from .definition import Array, Build, Cost, Precision, Role
from .derive import fit, one, only
from .numerics import np
from .shapes import agree, count, elements, holds, lacks, mapped, needs_dtype, without


def gathered(table: Dims, ids: Dims, dim: Dim) -> Dims:
    """The dims of a gather: the ids', then the table's others."""
    return ids + without(table, (dim, *ids))


def _gather_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    agree(operands)
    table, ids = operands
    dim = attributes.dim(attrs, "dim")
    needs_dtype(ids, DType.I64)
    holds(table.dims, (dim,))
    lacks(ids.dims, (dim,))
    return (TensorType(gathered(table.dims, ids.dims, dim), table.dtype),)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, gather=(attributes.dim(node.attrs, "dim"),))


def _scatter_roles(node: Node) -> Mapping[Dim, Role]:
    summed = without(node.uses[1].dims, node.outs[0].dims)
    return mapped(node, gather=(attributes.dim(node.attrs, "dim"),), sum=summed)


def _positions(ids: Array, ids_dims: Dims, full: Dims, table: Dims, dim: Dim) -> tuple[Array, ...]:
    """For every axis of the table, which position each element of `full` reads or writes there."""
    grids = dict(zip(full, np.indices([elements((d,)) for d in full], sparse=True), strict=True))
    return tuple(align(ids, ids_dims, full) if d == dim else grids[d] for d in table)


def _gather(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    table, ids = arrays
    dim = attributes.dim(node.attrs, "dim")
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < elements((dim,))), f"{node.id}: an id is out of range"
    where = _positions(ids, node.uses[1].dims, node.outs[0].dims, node.uses[0].dims, dim)
    return (np.broadcast_to(table[where], [elements((d,)) for d in node.outs[0].dims]),)


# y = table[V = ids]           dtable[v] = sum over where ids = v of g
def _gather_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    table, ids = node.uses
    dim = attributes.dim(node.attrs, "dim")
    return [one(b, "scatter_add", only(cotangents), ids, dim=dim, dims=table.dims), None]


# Only the rows that are picked are read.
def _gather_cost(node: Node) -> Cost:
    written = costs.written_bytes(node)
    return Cost(0, written + costs.bytes_of(node.uses[1].type), written, 0)


def _scatter_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    values, ids = operands
    dim, dims = attributes.dim(attrs, "dim"), attributes.dims(attrs, "dims")
    agree((values, ids, TensorType(dims, values.dtype)))
    needs_dtype(ids, DType.I64)
    holds(dims, (dim,))
    lacks(values.dims, (dim,))
    holds(values.dims, ids.dims)
    holds(values.dims, without(dims, (dim,)))
    holds(dims + ids.dims, values.dims)
    return (TensorType(dims, values.dtype),)


def _scatter(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    values, ids = arrays
    dims = node.outs[0].dims
    full = node.uses[0].dims
    found = np.zeros([elements((d,)) for d in dims], dtype=values.dtype)
    where = _positions(ids, node.uses[1].dims, full, dims, attributes.dim(node.attrs, "dim"))
    np.add.at(found, where, values)
    return (found,)


# y[v] = sum over where ids = v of x           dx = g[V = ids]
def _scatter_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    values, ids = node.uses
    taken = one(b, "gather", only(cotangents), ids, dim=attributes.dim(node.attrs, "dim"))
    return [fit(b, taken, values), None]


INDEXING = (
    primitive(
        "gather",
        attrs={"dim": "the table's dim that ids stand for"},
        infer=_gather_type,
        reference=_gather,
        gradient=_gather_gradient,
        roles=_roles,
        linear=in_first,
        cost=_gather_cost,
    ),
    primitive(
        "scatter_add",
        attrs={"dim": "the result's dim that ids stand for", "dims": "the axes of the result"},
        infer=_scatter_type,
        reference=_scatter,
        gradient=_scatter_gradient,
        roles=_scatter_roles,
        linear=in_first,
        precision=Precision.HIGH,
        cost=costs.per_element(1),
    ),
)
