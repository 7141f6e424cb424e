"""What a program is given: its microbatches' data, on a mesh this device's rows and columns of them.

`Executable` is what the runtime asks of the interpreter (`execute.py`); tests put a small one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from .data import Data, Feed, open_data
from .layout import part
from .program import Build, Input, Program
from .recipe import Training
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
        self,
        name: str,
        store: Store,
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        *,
        bound: float = ...,
    ) -> dict[str, torch.Tensor]:
        """Run a program on one mapping of inputs a microbatch; `step` counts from 0; `store` changes in place.

        A loss above `bound`, or what is not finite, updates nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Parted:
    """A device's part of a feed: it reads the rows that some input of the device has, and cuts each input's own."""

    whole: Feed
    inputs: tuple[Input, ...]
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def microbatches(self) -> int:
        """Of one run."""
        return self.whole.microbatches

    @property
    def steps(self) -> int:
        """How many batches there are."""
        return self.whole.steps

    def terms(self, step: int) -> int:
        """Over how many rows or ids the loss of a step is a mean, on all devices."""
        return self.whole.terms(step)

    def batch(self, step: int, microbatch: int, part: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
        """The device's inputs of a microbatch."""
        assert part is None, "a part is not cut again"
        low = min(offsets[0] for offsets, _ in self.parts)
        high = max(offsets[0] + sizes[0] for offsets, sizes in self.parts)
        read = self.whole.batch(step, microbatch, (low, high)) if low < high else {}
        found: dict[str, torch.Tensor] = {}
        for item, (offsets, sizes) in zip(self.inputs, self.parts, strict=True):
            mine = read.get(item.name, torch.zeros(sizes, dtype=torch.int64))
            begins = (offsets[0] - low, *offsets[1:]) if item.name in read else (0,) * len(sizes)
            for position, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
                mine = mine.narrow(position, begin, size)
            found[item.name] = mine
        return found


def open_feeds(training: Training, build: Build, rank: int | None, data_root: Path | None = None) -> Data:
    """The recipe's data, on a mesh what a rank has of it. Raises `RuntimeFault` as `open_data` does."""
    if rank is None:
        return open_data(training, build.programs, data_root)
    wholes = {name: _whole(program) for name, program in build.programs.items()}
    data = open_data(training, wholes, data_root)
    mine = build.programs_of(rank)
    held_out = data.held_out and _parted(data.held_out, mine["evaluate"], build, rank)
    return Data(_parted(data.train, mine[training.turns[0].program], build, rank), held_out)


def _whole(program: Program) -> Program:
    """As one device would see it."""
    inputs = tuple(replace(item, shape=item.whole or item.shape) for item in program.inputs if item.source == "data")
    return replace(program, inputs=inputs)


def _parted(feed: Feed, program: Program, build: Build, rank: int) -> Feed:
    inputs = tuple(item for item in program.inputs if item.source == "data")
    parts = tuple(part(item.whole or item.shape, item.layout, build.mesh, rank) for item in inputs)
    return Parted(feed, inputs, parts) if inputs else feed


def step_data(batches: Feed, step: int) -> list[dict[str, torch.Tensor]]:
    """The data of a step's microbatches. Raises E0503 for an id out of range."""
    return [batches.batch(step, number) for number in range(batches.microbatches)]
