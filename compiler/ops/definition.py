"""What an operator must declare. Everything else (shapes, costs, partitions, gradients, proofs) follows from it.

`OpDef` has no defaults: an operator that lacks a rule is a `TypeError` at import. Its torch kernel stands in
`compiler/lower/kernels/`, in the file of the same family, and a test holds the two sets equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..ir.types import Attr, Dim, Dims, Node, TensorType, Use

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

# Quoted, because checking a spec must not pay for loading numpy.
Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"


class Role(Enum):
    """What an operator does with an index name; from it follow the legal partitions and their collectives.

    An operator may have several results, of which one lacks a dim that the others have (a layer norm's gradient: dx has
    the batch, dgain does not). Such a dim is MAP, and every result that lacks it owes a sum. A GATHER dim that a result
    has (scatter_add) is sharded in it with nothing owed.
    """

    MAP = "map"  # in an operand and in the result: sharded alike, no communication
    SUM = "sum"  # in an operand, not in the result: sharded, the result owes a sum
    MAX = "max"  # the same, owing a maximum
    LSE = "lse"  # the same, owing a log-sum-exp
    GATHER = "gather"  # indexed by another operand's values: sharded, a masked look-up owing a sum
    WHOLE = "whole"  # must be complete on a device


class Precision(Enum):
    """In which type an operator computes when the recipe asks for less than float32."""

    CONTRACTION = "contraction"  # low operands, float32 accumulation inside
    FOLLOW = "follow"  # whatever its operands are
    INSIDE = (
        "inside"  # operands as they come, float32 at least inside; statistics are float32 at least (norms, softmax)
    )
    HIGH = "high"  # operands are cast to float32 at least (reductions, exponentials, the optimizer)
    EXACT = "exact"  # no floating point, or storage: parameters, inputs, ids, masks


@dataclass(frozen=True, slots=True)
class Cost:
    """What one application takes, in the types of the node. Symbolic sizes must be bound.

    flops            floating-point operations (a multiply-add is two; elementwise operations count one a result)
    bytes_read       from memory, each operand once
    bytes_written    to memory, each result once
    workspace_bytes  alive only inside the kernel
    """

    flops: int
    bytes_read: int
    bytes_written: int
    workspace_bytes: int


@dataclass(frozen=True, slots=True)
class Effects:
    """What an operator does beyond returning values.

    overwrites  operands whose memory a kernel may use: in ascending order, the first for result 0, the next for 1, …
    writes      it changes a parameter, a state or an accumulator: never removed, never duplicated
    random      its value depends on its key operands alone, but no two keys agree: never merged
    """

    overwrites: frozenset[int] = frozenset()
    writes: bool = False
    random: bool = False


PURE = Effects()


@dataclass(frozen=True, slots=True)
class NotDifferentiable:
    """Why no gradient flows through an operator."""

    reason: str


class Build(Protocol):
    """What a gradient rule or a rewrite writes with: apply operators to edges, get edges."""

    def __call__(
        self, op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        """Apply `op`; result types come from its `infer` rule. `hint` names the node."""
        ...


# (build, node, cotangent of each result or None, which operands want one) -> cotangent of each operand or None
GradientRule = Callable[[Build, Node, Sequence[Use | None], Sequence[bool]], Sequence[Use | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpDef:
    """One operator, total.

    name       as it stands in graphs
    attrs      the attributes that a node must have, with their meaning in a few words
    infer      operands and attributes -> the type of each result; raises `TypeRuleError` where they do not fit
    roles      node -> the role of every dim that it names
    linear     node -> the sets of operands in which it is jointly linear, one set at a time: add gives ({0, 1},),
               dot ({0}, {1}). A Partial value may pass through a node that is linear in (a set holding) it
    cost       node -> what it takes
    gradient   the rule, graph to graph, or why there is none
    reference  node and float64/int64/bool arrays -> results; numpy, clear, slow
    precision  in which type it computes under a mixed recipe
    wide       the operands that stay float32 at least where the others are low: gains, means, log-sum-exps
    effects    what it does beyond returning values
    kernel     None for a primitive; for a fused function of std, the name of the std function that is its meaning
    covers     node -> whether the fused kernel can compute it (else its body is inlined)
    """

    name: str
    attrs: Mapping[str, str]
    infer: Callable[[tuple[TensorType, ...], Mapping[str, Attr]], tuple[TensorType, ...]]
    roles: Callable[[Node], Mapping[Dim, Role]]
    linear: Callable[[Node], tuple[frozenset[int], ...]]
    cost: Callable[[Node], Cost]
    gradient: GradientRule | NotDifferentiable
    reference: Callable[[Node, Sequence[Array]], tuple[Array, ...]]
    precision: Precision
    wide: frozenset[int]
    effects: Effects
    kernel: str | None
    covers: Callable[[Node], bool]


class TypeRuleError(Exception):
    """Operands do not fit an operator. The elaborator turns it into a diagnostic with a place.

    `found` holds the dims that met, so that the message can show them with their sizes.
    """

    def __init__(self, message: str, found: tuple[Dims, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.found = found
