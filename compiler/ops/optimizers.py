"""adamw: Adam with decoupled weight decay (Loshchilov and Hutter 2019), as torch.optim.AdamW computes it.

Operands p, g, m, v of the same axes, then step (1-based) and lr as float scalars; results are the new p, m and v.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.types import Attr, Node, TensorType
from . import attributes, costs
from .common import fused
from .definition import Array, NotDifferentiable, Precision
from .numerics import np
from .shapes import count, floating, refuse, same_axes, show


def _adamw_type(operands: tuple[TensorType, ...], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...]:
    count(operands, 6)
    p, g, m, v, step, lr = operands
    same_axes((p, g, m, v), "a parameter, its gradient and its moments have the same axes")
    for operand in operands:
        floating(operand)
    for scalar in (step, lr):
        if scalar.dims:
            raise refuse(f"step and lr are scalars, got {show(scalar.dims)}", scalar.dims)
    return (p, m, v)


# m' = b1 m + (1 - b1) g,   v' = b2 v + (1 - b2) g^2
# p' = (1 - lr decay) p - lr (m' / (1 - b1^step)) / (sqrt(v' / (1 - b2^step)) + eps)
def _adamw(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    p, g, m, v, step, lr = arrays
    beta1, beta2, eps, decay = (attributes.number(node.attrs, name) for name in ("beta1", "beta2", "eps", "decay"))
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    direction = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return (1 - lr * decay) * p - lr * direction, m, v


OPTIMIZERS = (
    fused(
        "adamw",
        "adamw",
        attrs={
            "beta1": "how slowly the first moment forgets",
            "beta2": "how slowly the second moment forgets",
            "eps": "added to the root of the second moment",
            "decay": "the weight decay, times lr a step",
        },
        infer=_adamw_type,
        reference=_adamw,
        gradient=NotDifferentiable("an update is not differentiated"),
        cost=costs.per_result(15),
        precision=Precision.HIGH,
        overwrites=frozenset({0, 2, 3}),
    ),
)
