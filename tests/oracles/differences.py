"""Gradients by finite differences, in float64, along random directions of each parameter.

⟨∇L, d⟩ ≈ (L(p + h d) − L(p − h d)) / 2h, extrapolated from h and h/2 (Richardson): error O(h⁴).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from partita.compiler.ir.graph import Graph

from .values import Array, run


def assert_gradients_match_differences(
    forward: Graph, gradients: Mapping[str, Array], values: Mapping[str, Array], most: float = 1e-6
) -> None:
    """The directional derivative of the loss agrees with the gradient, parameter by parameter."""
    rng = np.random.default_rng(5)
    for name, gradient in gradients.items():
        direction = rng.normal(size=np.shape(gradient))
        wanted = _derivative(forward, values, name, direction)
        found = float(np.sum(gradient * direction))
        scale = max(1.0, float(np.linalg.norm(gradient)) * float(np.linalg.norm(direction)))
        assert abs(found - wanted) <= most * scale, f"gradient of {name}: {found} by the graph, {wanted} by differences"


def _derivative(forward: Graph, values: Mapping[str, Array], name: str, direction: Array, h: float = 1e-4) -> float:
    def slope(step: float) -> float:
        up = run(forward, {**values, name: values[name] + step * direction})["loss"]
        down = run(forward, {**values, name: values[name] - step * direction})["loss"]
        return float(up - down) / (2 * step)

    return (4 * slope(h / 2) - slope(h)) / 3
