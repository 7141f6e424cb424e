"""One process of `partita bench zero`: trains two steps and notes which tensors of the model's state it holds.

In: a build folder, a file. Out: a `Holding` as JSON, of the process that holds most. What is counted is seen where it
passes: parameters and states in the store; copies that are computed with, which are made once a step and read by the
microbatch; gradients as the update takes them. All of a kind are there at once: copies when the forward begins,
gradients when the backward has ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ...compiler.lower.gradients import gradients_of
from ...runtime.communicator import Communicator, Pending
from ...runtime.execute import Module
from ...runtime.folder import load
from ...runtime.mesh import join_mesh
from ...runtime.process import own_device, process_group
from ...runtime.program import Collective, Program, Receive, Run, Send
from ...runtime.state import initial_store

STEPS = 2


@dataclass(frozen=True)
class Holding:
    """Bytes of one process. Parameters are the float32 ones and the copies that are computed with."""

    parameter_bytes: int
    copy_bytes: int
    gradient_bytes: int
    state_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.parameter_bytes + self.copy_bytes + self.gradient_bytes + self.state_bytes


@dataclass(slots=True)
class Watch:
    """Sees the tensors that modules and collectives are given, by the names that the program has for them."""

    program: Program
    inner: Communicator
    seen: dict[str, int] = field(default_factory=dict[str, int])
    calls: Iterator[Run] = field(default_factory=lambda: iter(()))

    @property
    def rank(self) -> int:
        """Which device this is."""
        return self.inner.rank

    def again(self) -> None:
        """A step begins."""
        turns = [part for _, _, part in self.program.turns()]
        order = (self.program.prepare, *turns, self.program.update)
        self.calls = (one for part in order for one in part if isinstance(one, Run))

    def module(self, function: Module) -> Module:
        """The same module, seen."""

        def call(boxed: list[Any]) -> list[torch.Tensor]:
            self._see(next(self.calls).inputs, boxed)
            return function(boxed)

        return call

    def begin(
        self, collective: Collective, operands: Sequence[torch.Tensor], into: Sequence[torch.Tensor] = ()
    ) -> Pending:
        """Begin a collective; its operands are seen."""
        self._see(collective.inputs, operands)
        return self.inner.begin(collective, operands, into)

    def send(self, message: Send, number: int, tensor: torch.Tensor) -> None:
        """Begin to send."""
        self.inner.send(message, number, tensor)

    def receive(self, message: Receive, number: int, into: torch.Tensor) -> Pending:
        """Begin to receive."""
        return self.inner.receive(message, number, into)

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        self.inner.finish()

    def bytes_of(self, names: frozenset[str]) -> int:
        """Of the tensors of these names that were seen."""
        return sum(size for name, size in self.seen.items() if name in names)

    def _see(self, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        self.seen.update((name, tensor.nbytes) for name, tensor in zip(names, tensors, strict=False))


def copies_of(program: Program) -> frozenset[str]:
    """The buffers that are made once a step and that microbatches read."""
    made = {name for i in program.prepare if isinstance(i, Run | Collective) for name in i.outputs}
    turns = [one for _, _, part in program.turns() for one in part if isinstance(one, Run | Collective)]
    return frozenset(made.intersection(name for one in turns for name in one.inputs))


def kept_gradients(program: Program) -> frozenset[str]:
    """The gradients that the update itself begins with, not what they were before a collective joined them."""
    read = {name for one in program.update if isinstance(one, Run | Collective) for name in one.inputs}
    return gradients_of(program) & read


def hold(folder: Path) -> Holding:
    """Trains some steps on random ids."""
    device = own_device("cpu")
    executable = load(folder, device)
    build = executable.build
    place = join_mesh(build.mesh, device)
    assert place is not None, "several processes"
    program = build.programs_of(place.rank)["step"]
    watch = Watch(program, place.processes)
    modules = {name: watch.module(function) for name, function in executable.modules.items()}
    executable = replace(executable, communicator=watch, modules=modules)
    store = initial_store(build, 0, device, place.rank)
    draw = torch.Generator().manual_seed(place.rank)
    for step in range(STEPS):
        watch.again()
        rows = {i.name: torch.randint(i.below or 2, i.shape, generator=draw) for i in program.inputs if i.below}
        executable.run("step", store, [rows] * program.microbatches, step)
    parameters = {parameter.name for parameter in build.parameters}
    sizes = {kind: sum(t.nbytes for name, t in store.items() if (name in parameters) is kind) for kind in (True, False)}
    copies, gradients = watch.bytes_of(copies_of(program)), watch.bytes_of(kept_gradients(program))
    return Holding(sizes[True], copies, gradients, sizes[False])


def largest(mine: Holding) -> Holding:
    """Of the process that holds most."""
    every: list[Holding | None] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return max((one for one in every if one is not None), key=lambda one: one.bytes)


def main() -> int:
    """Reads a build, writes what was held."""
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        found = largest(hold(Path(sys.argv[1])))
        if dist.get_rank() == 0:
            Path(sys.argv[2]).write_text(json.dumps(asdict(found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
