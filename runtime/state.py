"""The tensors that live across steps: a build's parameters and states by name, on one device, in their own types.

In: a `Build` and a seed. Out: a plain dict that the interpreter reads and writes in place, that a checkpoint saves.
"""

from __future__ import annotations

import torch

from .execute import DTYPES, Store
from .program import Build, Parameter, State
from .random import initial_values

__all__ = ["Store", "empty_store", "initial_store", "initial_tensor", "parameter_count", "tensors_of"]


def tensors_of(build: Build, rank: int | None = None) -> dict[str, Parameter | State]:
    """Every tensor that lives across steps (of a rank: that it has any of), by name, in the build's order."""
    found: dict[str, Parameter | State] = {}
    for item in (*build.parameters, *build.states):
        assert item.name not in found, f"two tensors named {item.name}"
        if rank is None or build.has(item, rank):
            found[item.name] = item
    return found


def initial_store(build: Build, seed: int, device: torch.device | str = "cpu", rank: int | None = None) -> Store:
    """Parameters and states as they are before the first step: whole, or the part of a rank of the build's mesh.

    Raises E0522 for an unknown initializer.
    """
    return {name: initial_tensor(build, item, seed, device, rank) for name, item in tensors_of(build, rank).items()}


def initial_tensor(
    build: Build, item: Parameter | State, seed: int, device: torch.device | str = "cpu", rank: int | None = None
) -> torch.Tensor:
    """One of them. A part is drawn by itself: a value follows from its place in the whole."""
    offsets, sizes = part_of(build, item, rank)
    values = initial_values(item.initializer, item.shape, seed, item.name, offsets=offsets, sizes=sizes)
    kind, dtype = torch.device(device).type, DTYPES[item.dtype]
    if not item.host:
        return values.to(device, dtype)
    return values.to(dtype).pin_memory() if kind == "cuda" else values.to(dtype)


def empty_store(build: Build, device: torch.device | str = "cpu", rank: int | None = None) -> Store:
    """The same names and shapes with whatever the memory holds: for a checkpoint to be read into."""
    kind = torch.device(device).type
    return {
        name: torch.empty(
            part_of(build, item, rank)[1],
            dtype=DTYPES[item.dtype],
            device="cpu" if item.host else device,
            pin_memory=item.host and kind == "cuda",
        )
        for name, item in tensors_of(build, rank).items()
    }


def part_of(build: Build, item: Parameter | State, rank: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and sizes of a rank's part; of the whole where there is none."""
    return ((0,) * len(item.shape), item.shape) if rank is None else build.part_of(item, rank)


def parameter_count(build: Build) -> int:
    """Elements of all parameters, each tied one once."""
    return sum(torch.Size(item.shape).numel() for item in build.parameters)
