"""Rules that many operators have in common, so that a declaration names them instead of repeating them.

In: nodes and operand types. Out: what `OpDef` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir.types import Attr, Dim, Node, TensorType
from . import attributes, costs
from .definition import (
    PURE,
    Array,
    Cost,
    Effects,
    GradientRule,
    NotDifferentiable,
    OpDef,
    Precision,
    Role,
)
from .shapes import mapped

Linear = Callable[[Node], tuple[frozenset[int], ...]]
Infer = Callable[[tuple[TensorType, ...], Mapping[str, Attr]], tuple[TensorType, ...]]
Reference = Callable[[Node, Sequence[Array]], tuple[Array, ...]]


def nowhere(node: Node) -> tuple[frozenset[int], ...]:
    """Linear in no operand."""
    return ()


def in_first(node: Node) -> tuple[frozenset[int], ...]:
    """Linear in the first operand."""
    return (frozenset({0}),)


def in_each(node: Node) -> tuple[frozenset[int], ...]:
    """Linear in each operand, one at a time."""
    return tuple(frozenset({i}) for i in range(len(node.uses)))


def in_all(node: Node) -> tuple[frozenset[int], ...]:
    """Linear in all operands together."""
    return (frozenset(range(len(node.uses))),)


def always(node: Node) -> bool:
    """A primitive needs no body."""
    return True


def second_order(name: str) -> NotDifferentiable:
    """A gradient operator of a kernel function is not differentiated again."""
    return NotDifferentiable(
        f"second order: {name} has no gradient of its own; inline the function before differentiating"
    )


def primitive(
    name: str,
    *,
    infer: Infer,
    reference: Reference,
    gradient: GradientRule | NotDifferentiable,
    attrs: Mapping[str, str] | None = None,
    roles: Callable[[Node], Mapping[Dim, Role]] = mapped,
    linear: Linear = nowhere,
    cost: Callable[[Node], Cost] | None = None,
    precision: Precision = Precision.FOLLOW,
    effects: Effects = PURE,
) -> OpDef:
    """An operator without a body. Every rule that is not given is the commonest one: MAP roles, linear in nothing,
    one operation a result, computing in its operands' type."""
    return OpDef(
        name=name,
        attrs=attrs or {},
        infer=infer,
        roles=roles,
        linear=linear,
        cost=cost or costs.per_result(1),
        gradient=gradient,
        reference=reference,
        precision=precision,
        wide=frozenset(),
        effects=effects,
        kernel=None,
        covers=always,
    )


def fused(
    name: str,
    meaning: str,
    *,
    infer: Infer,
    reference: Reference,
    gradient: GradientRule | NotDifferentiable,
    cost: Callable[[Node], Cost],
    precision: Precision,
    attrs: Mapping[str, str] | None = None,
    roles: Callable[[Node], Mapping[Dim, Role]] = mapped,
    linear: Linear = nowhere,
    wide: frozenset[int] = frozenset(),
    overwrites: frozenset[int] = frozenset(),
    covers: Callable[[Node], bool] = always,
) -> OpDef:
    """A kernel function of std, or the gradient of one: its meaning is the body of the function `meaning`."""
    return OpDef(
        name=name,
        attrs=attrs or {},
        infer=infer,
        roles=roles,
        linear=linear,
        cost=cost,
        gradient=gradient,
        reference=reference,
        precision=precision,
        wide=wide,
        effects=Effects(overwrites=overwrites),
        kernel=meaning,
        covers=covers,
    )


def single(*names: str) -> Callable[[Node], bool]:
    """The kernel takes each of these formals as one axis (a formal may be bound to a group)."""

    def covers(node: Node) -> bool:
        return all(len(attributes.dims(node.attrs, name)) == 1 for name in names)

    return covers
