"""gelu, gelu_tanh, silu and their gradients, each one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..ir.types import Attr, Node, TensorType
from . import costs
from .arithmetic import Cotangents, elementwise_type, floating_type, pointwise
from .common import fused, in_first, second_order
from .definition import Array, Build, OpDef, Precision
from .derive import backward, only
from .numerics import np
from .shapes import floating, same_axes
from .transcendental import erf, sigmoid

_C = math.sqrt(2 / math.pi)
_A = 0.044715


# y = x/2 (1 + erf(x / sqrt 2))
def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


# dx = dy (1/2 (1 + erf(x / sqrt 2)) + x exp(-x^2 / 2) / sqrt(2 pi))
def _gelu_backward(dy: Array, x: Array) -> Array:
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return dy * (0.5 * (1 + erf(x / math.sqrt(2))) + x * density)


# y = x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3)
def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(_C * (x + _A * x**3)))


# dx = dy (1/2 (1 + t) + x/2 (1 - t^2) sqrt(2/pi) (1 + 3 * 0.044715 x^2)), t = tanh u
def _gelu_tanh_backward(dy: Array, x: Array) -> Array:
    t = np.tanh(_C * (x + _A * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _C * (1 + 3 * _A * x * x))


# y = x s, s = sigmoid(x)
def _silu(x: Array) -> Array:
    return x * sigmoid(x)


# dx = dy s (1 + x (1 - s))
def _silu_backward(dy: Array, x: Array) -> Array:
    s = sigmoid(x)
    return dy * s * (1 + x * (1 - s))


def _backward_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    found = elementwise_type(2, 2)(operands, attrs)
    floating(operands[0])
    same_axes(operands, "a gradient has the axes of its value")
    return found


def _gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    return backward(b, node, only(cotangents), node.uses[0])


def _pair(name: str, forward: Callable[[Array], Array], backward: Callable[[Array, Array], Array]) -> tuple[OpDef, ...]:
    return (
        fused(
            name,
            name,
            infer=floating_type(1),
            reference=pointwise(forward),
            gradient=_gradient,
            cost=costs.per_result(8),
            precision=Precision.FOLLOW,
        ),
        fused(
            f"{name}_backward",
            name,
            infer=_backward_type,
            reference=pointwise(backward),
            gradient=second_order(name),
            cost=costs.per_result(12),
            precision=Precision.FOLLOW,
            linear=in_first,
            overwrites=frozenset({0}),
        ),
    )


ACTIVATIONS = (
    *_pair("gelu", _gelu, _gelu_backward),
    *_pair("gelu_tanh", _gelu_tanh, _gelu_tanh_backward),
    *_pair("silu", _silu, _silu_backward),
)
