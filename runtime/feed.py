"""What a program is given: its microbatches' data.

`Executable` is what the runtime asks of the interpreter (`execute.py`); tests put a small one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from .data import Feed
from .program import Build
from .state import Store


class Executable(Protocol):
    """A build that can run on a device."""

    @property
    def build(self) -> Build:
        """The programs and the tensors that they work on."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the store lies."""
        ...

    def run(
        self, name: str, store: Store, data: Sequence[Mapping[str, torch.Tensor]], step: int = 0, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """Run a program on one mapping of inputs a microbatch; `step` counts from 0; `store` changes in place."""
        ...


def step_data(batches: Feed, step: int) -> list[dict[str, torch.Tensor]]:
    """The data of a step's microbatches. Raises E0503 for an id out of range."""
    return [batches.batch(step, number) for number in range(batches.microbatches)]
