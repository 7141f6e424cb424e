"""All operators by name. Every pass, the cost model, the interpreter and the lowering find an operator's rules here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .activations import ACTIVATIONS
from .arithmetic import ARITHMETIC
from .attention import ATTENTION
from .collectives import COLLECTIVE
from .contraction import CONTRACTION
from .definition import OpDef
from .experts import EXPERTS
from .foreign import FOREIGN_OPS
from .fused_loss import FUSED_LOSS
from .indexing import INDEXING
from .joining import JOINING
from .leaves import LEAVES
from .logic import LOGIC
from .losses import LOSSES
from .moves import MOVE
from .norms import NORMS
from .optimizers import OPTIMIZERS
from .randomness import RANDOMNESS
from .reductions import REDUCTIONS
from .rotary import ROTARY
from .scan import SCAN
from .selection import SELECTION
from .softmaxes import SOFTMAXES
from .structure import STRUCTURE
from .training import TRAINING
from .transcendental import TRANSCENDENTAL
from .windows import WINDOWS

_ALL = (
    *LEAVES,
    *RANDOMNESS,
    *ARITHMETIC,
    *TRANSCENDENTAL,
    *LOGIC,
    *REDUCTIONS,
    *CONTRACTION,
    *STRUCTURE,
    *JOINING,
    *INDEXING,
    *SELECTION,
    *EXPERTS,
    *WINDOWS,
    *SCAN,
    *TRAINING,
    *ACTIVATIONS,
    *SOFTMAXES,
    *LOSSES,
    *FUSED_LOSS,
    *NORMS,
    *ROTARY,
    *ATTENTION,
    *OPTIMIZERS,
    *COLLECTIVE,
    *MOVE,
    *FOREIGN_OPS,
)

REGISTRY: Mapping[str, OpDef] = MappingProxyType({definition.name: definition for definition in _ALL})
assert len(REGISTRY) == len(_ALL), "two operators have one name"


def op(name: str) -> OpDef:
    """The declaration of an operator."""
    assert name in REGISTRY, f"no operator {name}"
    return REGISTRY[name]
