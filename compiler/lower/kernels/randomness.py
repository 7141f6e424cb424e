"""Kernels of random and gaussian: the counter hash of `runtime/kernels.py`, keyed by two integer literals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ....runtime import kernels
from ...ir.types import DType, Node
from ..emit import TORCH_DTYPES, Emitter, Rule, Value, shape


def source(function: Callable[..., torch.Tensor]) -> Rule:
    """A draw by (seed, step, key, element)."""

    def rule(e: Emitter, node: Node, values: Sequence[Value]) -> Sequence[Value]:
        seed, step, *starts = (e.tensor(value, DType.I64) for value in values)
        out = node.outs[0]
        first, second = e.literals[node.id]
        return [e.call(function, seed, step, starts, first, second, shape(out.dims), TORCH_DTYPES[out.dtype])]

    return rule


RULES: dict[str, Rule] = {"random": source(kernels.uniform), "gaussian": source(kernels.gaussian)}
