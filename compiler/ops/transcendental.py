"""Elementwise functions of one float: exp, log, sqrt, rsqrt, tanh, sigmoid, erf, sin, cos."""

# ruff: noqa: PLW0108 - numpy is loaded at first use, so its functions are named inside lambdas

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.types import Node, Use
from .arithmetic import Cotangents, floating_type, pointwise
from .common import primitive
from .definition import Array, Build, OpDef, Precision
from .derive import like, one, only
from .numerics import np

# (build, operand x, result y, cotangent g) -> dx
Slope = Callable[[Build, Use, Use, Use], Use]


# y = exp(x)           dx = g * y
def _exp(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "mul", g, y)


# y = log(x)           dx = g / x
def _log(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "div", g, x)


# y = sqrt(x)          dx = g / (2 y)
def _sqrt(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "div", g, one(b, "mul", y, like(b, 2, y)))


# y = x ^ -1/2         dx = -1/2 g y^3
def _rsqrt(b: Build, x: Use, y: Use, g: Use) -> Use:
    cubed = one(b, "mul", y, one(b, "mul", y, y))
    return one(b, "mul", g, one(b, "mul", cubed, like(b, -0.5, y)))


# y = tanh(x)          dx = g (1 - y^2)
def _tanh(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "mul", g, one(b, "sub", like(b, 1, y), one(b, "mul", y, y)))


# y = 1 / (1 + exp(-x))        dx = g y (1 - y)
def _sigmoid(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "mul", g, one(b, "mul", y, one(b, "sub", like(b, 1, y), y)))


# y = erf(x)           dx = g 2/sqrt(pi) exp(-x^2)
def _erf(b: Build, x: Use, y: Use, g: Use) -> Use:
    bell = one(b, "exp", one(b, "neg", one(b, "mul", x, x)))
    return one(b, "mul", g, one(b, "mul", bell, like(b, 2 / math.sqrt(math.pi), x)))


# y = sin(x)           dx = g cos(x)
def _sin(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "mul", g, one(b, "cos", x))


# y = cos(x)           dx = -g sin(x)
def _cos(b: Build, x: Use, y: Use, g: Use) -> Use:
    return one(b, "neg", one(b, "mul", g, one(b, "sin", x)))


def _function(
    name: str, compute: Callable[[Array], Any], slope: Slope, precision: Precision = Precision.FOLLOW
) -> OpDef:
    def gradient(b: Build, node: Node, cotangents: Cotangents, wanted: Sequence[bool]) -> Cotangents:
        return [slope(b, node.uses[0], node.out(), only(cotangents))]

    return primitive(name, infer=floating_type(1), reference=pointwise(compute), gradient=gradient, precision=precision)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def erf(x: Array) -> Array:
    """The error function, element by element."""
    return np.vectorize(math.erf, otypes=[float])(x)


TRANSCENDENTAL = (
    _function("exp", lambda x: np.exp(x), _exp, Precision.HIGH),
    _function("log", lambda x: np.log(x), _log, Precision.HIGH),
    _function("sqrt", lambda x: np.sqrt(x), _sqrt, Precision.HIGH),
    _function("rsqrt", lambda x: 1 / np.sqrt(x), _rsqrt, Precision.HIGH),
    _function("tanh", lambda x: np.tanh(x), _tanh),
    _function("sigmoid", sigmoid, _sigmoid),
    _function("erf", erf, _erf),
    _function("sin", lambda x: np.sin(x), _sin, Precision.HIGH),
    _function("cos", lambda x: np.cos(x), _cos, Precision.HIGH),
)
