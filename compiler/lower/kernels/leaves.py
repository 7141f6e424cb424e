"""Kernels of the leaves that are written into a module: constants. The others come to a module as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ...ir.types import Dims, Node
from ..emit import Emitter, Rule, Value, count, shape

aten = torch.ops.aten

# Given by the store or the runtime.
ARGUMENTS = frozenset({"parameter", "state", "input", "start", "step", "seed"})


def constant(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """A number; with dims, one element seen at every place."""
    value, out = cast(float, node.attrs["value"]), node.outs[0]
    if not out.dims:
        return [value]
    return [e.expand(e.full((), value, out.dtype), shape(out.dims))]


def extent(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The number of elements that dims span, known by now."""
    return [count(cast(Dims, node.attrs["over"]))]


RULES: dict[str, Rule] = {"constant": constant, "extent": extent}
