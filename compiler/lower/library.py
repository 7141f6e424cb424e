"""The modules of a build: emitted once each, shared by all calls that they fit.

In: a segment and the meta tensors that it reads. Out: the module for it, new or an earlier one of the same signature
and layouts, under a name that tells its phase and layer; and the meta tensors that a call of it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .emit import storage
from .modules import Argument, Module, emit, finish, identifier
from .outcomes import Outcomes
from .profile import Profile, profile
from .segment import Segment, signature


@dataclass
class Library:
    """The modules of a build, or of several that are compared, by what makes them the same; and their profiles."""

    device: str
    modules: dict[tuple[object, ...], Module] = field(default_factory=dict[tuple[object, ...], Module])
    names: set[str] = field(default_factory=set[str])
    profiles: dict[tuple[str, int], Profile] = field(default_factory=dict[tuple[str, int], Profile])
    outcomes: Outcomes = field(default_factory=Outcomes)

    def profile(self, name: str, threads: int) -> Profile:
        """What a call of a module allocates, its kernels on so many threads."""
        if (name, threads) not in self.profiles:
            module = next(module for module in self.modules.values() if module.name == name)
            self.profiles[name, threads] = profile(module.graph, threads)
        return self.profiles[name, threads]

    def get(self, segment: Segment, arguments: Sequence[Argument]) -> Module:
        """The module for a segment that reads these tensors; emitted if it is new."""
        key = (signature(segment), layouts(arguments))
        if key not in self.modules:
            name = self._name(segment)
            emitter = emit(segment, arguments, "cpu" if segment.host else self.device, self.outcomes)
            self.modules[key] = finish(name, _title(segment), emitter)
        return self.modules[key]

    def _name(self, segment: Segment) -> str:
        wanted = f"host_{segment.phase.value}" if segment.host else segment.phase.value
        if segment.layer is not None:
            wanted = f"{identifier(segment.layer.chain)}_{wanted}"
        name, number = wanted, 1
        while name in self.names:
            number += 1
            name = f"{wanted}_{number}"
        self.names.add(name)
        return name


def _title(segment: Segment) -> str:
    where = ", on the host" if segment.host else ""
    if segment.layer is not None:
        return f"The {segment.phase.value} phase of one layer of `{segment.layer.chain}`{where}."
    first, last = segment.nodes[0].id, segment.nodes[-1].id
    return f"Part of the {segment.phase.value} phase: from `{first}` to `{last}`{where}."


def layouts(arguments: Sequence[Argument]) -> tuple[object, ...]:
    """Shapes, strides, common memory and ownership: what a module's text depends on."""
    memories = [storage(a.tensor) for a in arguments]
    return tuple(
        (
            tuple(a.tensor.shape),
            a.tensor.stride(),
            a.tensor.storage_offset(),
            a.tensor.dtype,
            memories.index(m),
            a.owned,
        )
        for a, m in zip(arguments, memories, strict=True)
    )


def results_of(module: Module, arguments: Sequence[Argument]) -> list[torch.Tensor]:
    """Meta tensors of a call's results, sharing memory as the module's own did."""
    fresh: dict[int, torch.Tensor] = {}
    found: list[torch.Tensor] = []
    for result in module.results:
        if result.storage < len(arguments):
            base = arguments[result.storage].tensor
        else:
            reach = result.offset + sum((n - 1) * s for n, s in zip(result.shape, result.stride, strict=True)) + 1
            base = fresh.setdefault(result.storage, torch.empty(0, dtype=result.dtype, device="meta"))
            if base.untyped_storage().nbytes() < reach * result.dtype.itemsize:
                base.untyped_storage().resize_(reach * result.dtype.itemsize)
        found.append(base.as_strided(result.shape, result.stride, result.offset))
    return found
