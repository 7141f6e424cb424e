"""What is legal at each stage of compilation, as a table that the verifier reads between passes.

A level is a promise about a graph: which phases its nodes may be in, which operators must not occur yet, and which
outputs it must have. Later stages allow what earlier ones made: gradients bring BACKWARD, the optimizer brings UPDATE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .types import Phase


@dataclass(frozen=True, slots=True)
class Level:
    """One stage.

    name     as reports call it
    phases   in which its nodes may run
    barred   operators that have no place in it yet
    outputs  names that its outputs must hold; `grad/` stands for at least one that begins so
    laid     whether every result has a layout over the mesh; otherwise none has, and there is nothing to join
    """

    name: str
    phases: frozenset[Phase]
    barred: frozenset[str]
    outputs: tuple[str, ...]
    laid: bool = False


_ONCE_AND_FORWARD = frozenset({Phase.PREPARE, Phase.FORWARD})
_WITH_BACKWARD = _ONCE_AND_FORWARD | {Phase.BACKWARD}
_UPDATES = frozenset({"adamw"})  # operators of the optimizer
# What changes nothing but the layout, brought in by `partition`.
RELAYOUTS = frozenset(
    {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "shard", "partial", "spread", "mask"}
)
# The two ends of a message between stages of a pipeline.
SEND, RECEIVE = "lower.send", "lower.receive"

# What moves a value between a device and its host, brought in by `offload`.
MOVES = frozenset({"offload", "fetch"})
_ONE_SPACE = RELAYOUTS | MOVES
_NOT_YET = _UPDATES | _ONE_SPACE

MODEL = Level("model", _ONCE_AND_FORWARD, _NOT_YET, ())  # a model: forward alone, any outputs
LOSS = Level("loss", _ONCE_AND_FORWARD, _NOT_YET, ("loss",))  # and a recipe's loss
GRADIENT = Level("gradient", _WITH_BACKWARD, _NOT_YET, ("loss", "grad/"))  # and the gradients of its parameters
STEP = Level("step", frozenset(Phase), _ONE_SPACE, ("loss",))  # and the optimizer: all that training does in a step
PARTITIONED = Level("partitioned", frozenset(Phase), MOVES, (), laid=True)  # one graph for all devices of a mesh
LOCAL = Level("local", frozenset(Phase), frozenset(), ())  # what one device of the mesh runs, with its own sizes


# The order of phases within a step. A node may read what the same or an earlier phase made.
PHASE_ORDER: Mapping[Phase, int] = MappingProxyType(
    {Phase.PREPARE: 0, Phase.FORWARD: 1, Phase.BACKWARD: 2, Phase.UPDATE: 3}
)
