"""What a device holds from step to step: parameters and states, as the store of a build has them.

In: a build and a rank. Out: each tensor's owner, bytes, and whether it lies on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...runtime.program import Build
from ..cost.memory import Owner
from .outside import dtype_of


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that lives across steps."""

    owner: Owner
    bytes: int
    host: bool = False


def held_of(build: Build, rank: int = 0) -> dict[str, Held]:
    """What the store of a build holds on a device."""
    items = [item for item in (*build.parameters, *build.states) if build.has(item, rank)]
    parameters = {item.name for item in build.parameters}
    return {
        item.name: Held(
            Owner.PARAMETER if item.name in parameters else Owner.STATE,
            bytes_of(build.part_of(item, rank)[1], item.dtype),
            item.host,
        )
        for item in items
    }


def bytes_of(shape: Sequence[int], dtype: str) -> int:
    """Of a tensor."""
    return torch.Size(shape).numel() * dtype_of(dtype).itemsize
