"""window and unwindow: the patches that a convolution multiplies, and their sum back in place. Each is the other's
gradient.

    window    y[o, p] = x[o · stride + p - before], and `fill` outside of x
    unwindow  y[i] = sum of x[o, p] over all o, p with o · stride + p - before = i

`out` counts the places of the window, `size` the places within it. A window of stride 1 that is padded to the length
of x may call `out` as `dim` itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, Dims, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import permute
from .common import in_first, nowhere, primitive
from .definition import Array, Build, Cost, Role
from .derive import fit, one, only
from .numerics import np
from .shapes import agree, count, elements, holds, lacks, mapped, refuse, replace, show, without


def whole(attrs: Mapping[str, Attr], name: str) -> int:
    """A whole number among the attributes."""
    value = attrs[name]
    assert isinstance(value, int), f"attribute {name} must be a whole number, not {value!r}"
    return value


def places(length: int, size: int, stride: int, before: int, after: int) -> int:
    """How often a window fits."""
    return (length + before + after - size) // stride + 1


def _check(attrs: Mapping[str, Attr]) -> tuple[Dim, Dim, Dim]:
    """The dims of one window, if their sizes agree."""
    dim, out, size = (attributes.dim(attrs, name) for name in ("dim", "out", "size"))
    stride, before, after = (whole(attrs, name) for name in ("stride", "before", "after"))
    if stride < 1 or before < 0 or after < 0:
        raise refuse(f"a window of stride {stride}, {before} before and {after} after", (dim,))
    if size.size is None:
        raise refuse(f"the size of the window, {size}, must be known", (size,))
    if dim.size is None:
        if out.size is not None or (out == dim and (stride != 1 or before + after != size.size - 1)):
            raise refuse(f"{show((dim,))} and {show((out,))} are not of one length", (dim,), (out,))
        return dim, out, size
    fits = places(dim.size, size.size, stride, before, after)
    if size.size > dim.size + before + after or out.size != fits:
        text = f"a window of {size.size} at every {stride} fits {max(fits, 0)} times into {show((dim,))}"
        raise refuse(f"{text} with {before} before and {after} after, not {show((out,))}", (dim,), (out, size))
    return dim, out, size


def _window_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim, out, size = _check(attrs)
    holds(operands[0].dims, (dim,))
    lacks(without(operands[0].dims, (dim,)), (out, size))
    return (TensorType(replace(operands[0].dims, dim, (out, size)), operands[0].dtype),)


def _unwindow_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 1)
    agree(operands)
    dim, out, size = _check(attrs)
    holds(operands[0].dims, (out, size))
    rest = without(operands[0].dims, (size,))
    lacks(without(rest, (out,)), (dim,))
    return (TensorType(replace(rest, out, (dim,)), operands[0].dtype),)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=[attributes.dim(node.attrs, name) for name in ("dim", "out", "size")])


def _layout(node: Node, dims: Dims) -> tuple[int, slice, Array]:
    """Where the axis stands in `dims`, where x lies in the padded axis, and the padded place of each (o, p)."""
    dim, out, size = (attributes.dim(node.attrs, name) for name in ("dim", "out", "size"))
    before = whole(node.attrs, "before")
    at = np.arange(elements((out,)))[:, None] * whole(node.attrs, "stride") + np.arange(elements((size,)))
    return dims.index(dim), slice(before, before + elements((dim,))), np.asarray(at)


def _padded(node: Node) -> int:
    return whole(node.attrs, "before") + elements((attributes.dim(node.attrs, "dim"),)) + whole(node.attrs, "after")


def _window(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    (x,), dims = arrays, node.uses[0].dims
    axis, inside, at = _layout(node, dims)
    moved = np.moveaxis(x, axis, 0)
    wide = np.full((_padded(node), *moved.shape[1:]), node.attrs["fill"], dtype=x.dtype)
    wide[inside] = moved
    return (np.moveaxis(wide[at], (0, 1), (axis, axis + 1)),)


def _unwindow(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    result = node.outs[0].dims
    axis, inside, at = _layout(node, result)
    out, size = attributes.dim(node.attrs, "out"), attributes.dim(node.attrs, "size")
    rest = without(result, (attributes.dim(node.attrs, "dim"),))
    x = permute(arrays[0], node.uses[0].dims, (out, size, *rest))
    wide = np.zeros((_padded(node), *x.shape[2:]), dtype=x.dtype)
    np.add.at(wide, at, x)
    return (np.moveaxis(wide[inside], 0, axis),)


# y = window(x)      dx = unwindow(g)
def _window_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    attrs = {name: value for name, value in node.attrs.items() if name != "fill"}
    return [fit(b, one(b, "unwindow", only(cotangents), **attrs), node.uses[0])]


# y = unwindow(x)    dx = window(g), zeros outside
def _unwindow_gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return [fit(b, one(b, "window", only(cotangents), **node.attrs, fill=0.0), node.uses[0])]


def _linear(node: Node) -> tuple[frozenset[int], ...]:
    """What is filled in with 0 is as linear as the rest."""
    return in_first(node) if node.attrs["fill"] == 0 else nowhere(node)


# What is summed is read once and added once.
def _unwindow_cost(node: Node) -> Cost:
    return costs.streamed(node, elements(node.uses[0].dims))


_ATTRS = {
    "dim": "the axis that the window runs along",
    "out": "counts the window's places",
    "size": "counts the places within the window",
    "stride": "from one place of the window to the next",
    "before": "how many places are filled in before the first",
    "after": "how many behind the last",
}

WINDOWS = (
    primitive(
        "window",
        attrs={**_ATTRS, "fill": "the value outside"},
        infer=_window_type,
        reference=_window,
        gradient=_window_gradient,
        roles=_roles,
        linear=_linear,
        cost=costs.per_result(0),
    ),
    primitive(
        "unwindow",
        attrs=_ATTRS,
        infer=_unwindow_type,
        reference=_unwindow,
        gradient=_unwindow_gradient,
        roles=_roles,
        linear=in_first,
        cost=_unwindow_cost,
    ),
)
