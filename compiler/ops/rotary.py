"""rotary: every pair of channels turns by an angle that grows with the position (Su et al. 2021).

With M = K/2, pair m at global position t turns by t base^(-m/M); the gradient turns back. `half` pairs channel k with
k + M, else 2k with 2k + 1.
The second operand is the global start of T. A scaled frequency (`scale`) has no fused kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Dim, DType, Node, TensorType
from . import attributes, costs
from .arithmetic import Cotangents
from .arrays import align
from .common import fused, in_first, second_order, single
from .definition import Array, Build, Precision, Role
from .derive import backward, only
from .numerics import np
from .shapes import agree, count, elements, floating, holds, mapped, needs_dtype, product, refuse, show


def _rotary_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 2)
    agree(operands)
    x, start = operands
    floating(x)
    needs_dtype(start, DType.I64)
    channels = attributes.dims(attrs, "K")
    holds(x.dims, attributes.dims(attrs, "T") + channels)
    if (product(channels) or 0) % 2:
        raise refuse(f"channels turn in pairs, and {show(channels)} is odd", channels)
    return (x,)


def _roles(node: Node) -> Mapping[Dim, Role]:
    return mapped(node, whole=attributes.dims(node.attrs, "K"))


def _covers(node: Node) -> bool:
    return single("T", "K")(node) and node.attrs["scale"] is None


def _turn(node: Node, x: Array, start: Array, sign: int) -> Array:
    """(a, b) -> (a cos - b sin, b cos + a sin), pair by pair."""
    (time,), (channel,) = attributes.dims(node.attrs, "T"), attributes.dims(node.attrs, "K")
    assert node.attrs["scale"] is None, f"{node.id}: a scaled rotary is computed by its body"
    dims, pairs = node.uses[0].dims, elements((channel,)) // 2
    rest = (*(d for d in dims if d != channel), channel)
    x = align(x, dims, rest)
    half = Dim(channel.name, pairs)
    frequency = attributes.number(node.attrs, "base") ** (-np.arange(pairs) / pairs)
    angle = align((start + np.arange(elements((time,))))[:, None] * frequency, (time, half), (*rest[:-1], half))
    cos, sin = np.cos(angle), sign * np.sin(angle)
    halves = attributes.flag(node.attrs, "half")
    a, b = (x[..., :pairs], x[..., pairs:]) if halves else (x[..., ::2], x[..., 1::2])
    turned = [a * cos - b * sin, b * cos + a * sin]
    y = np.concatenate(turned, axis=-1) if halves else np.stack(turned, axis=-1).reshape(x.shape)
    return align(y, rest, dims)


def _rotary(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    x, start = arrays
    return (_turn(node, x, start, 1),)


# dx: the same turn by the opposite angle, a rotation's transpose
def _rotary_backward(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    dy, start = arrays
    return (_turn(node, dy, start, -1),)


def _gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    (dx,) = backward(b, node, only(cotangents), node.uses[1])
    return [dx, None]


_ATTRS = {
    "T": "the positions",
    "K": "the channels that turn",
    "base": "the wavelengths' growth",
    "half": "whether k pairs with k + K/2",
    "scale": "a function of the frequencies, as text, or None",
}

ROTARY = (
    fused(
        "rotary",
        "rotary",
        attrs=_ATTRS,
        infer=_rotary_type,
        reference=_rotary,
        gradient=_gradient,
        roles=_roles,
        linear=in_first,
        cost=costs.per_result(3),
        precision=Precision.FOLLOW,
        covers=_covers,
    ),
    fused(
        "rotary_backward",
        "rotary",
        attrs=_ATTRS,
        infer=_rotary_type,
        reference=_rotary_backward,
        gradient=second_order("rotary"),
        roles=_roles,
        linear=in_first,
        cost=costs.per_result(3),
        precision=Precision.FOLLOW,
        covers=_covers,
    ),
)
