"""Torch kernels, a file a family of operators, mirroring `compiler/ops/`.

`RULES` says how each operator is emitted; `FUSED` those that `lower/fuse.py` makes; `ARGUMENTS` are the operators that
reach a module from outside. Together `RULES` and `ARGUMENTS` are the registry of operators, which a test holds them to.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..emit import Rule
from . import (
    activation,
    attention,
    collectives,
    contraction,
    elementwise,
    experts,
    foreign,
    fused_loss,
    indexing,
    leaves,
    loss,
    moves,
    normalization,
    randomness,
    reductions,
    rotary,
    structure,
    training,
    windows,
)

ARGUMENTS = leaves.ARGUMENTS

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **leaves.RULES,
        **elementwise.RULES,
        **reductions.RULES,
        **contraction.RULES,
        **structure.RULES,
        **indexing.RULES,
        **experts.RULES,
        **randomness.RULES,
        **activation.RULES,
        **normalization.RULES,
        **attention.RULES,
        **rotary.RULES,
        **loss.RULES,
        **fused_loss.RULES,
        **training.RULES,
        **windows.RULES,
        **collectives.RULES,
        **moves.RULES,
        **foreign.RULES,
    }
)
FUSED: Mapping[str, Rule] = MappingProxyType({**contraction.FUSED, **loss.FUSED, **fused_loss.FUSED, **training.FUSED})
