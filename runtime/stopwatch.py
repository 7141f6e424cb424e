"""When each call of a step's modules ran: a clock around the modules, for the one run that is timed.

In: an interpreter and the run of a program. Out: `timeline/rank-R.json` in the run's folder: for each part of the
program and microbatch when it computed, in seconds since all processes began together. The program itself says which
call belongs to which part, so that the interpreter knows nothing of it and a run that is not timed pays nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from .execute import Executable, Module
from .program import Instruction, Program, Run, Wait

Result = TypeVar("Result")
FOLDER = "timeline"
PREPARE, UPDATE = "prepare", "update"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a program (`forward 0`, `prepare`, `update`) computes for a microbatch (-1: none) and waits for
    nobody: from `begin` to `end` seconds."""

    part: str
    microbatch: int
    begin: float
    end: float


@dataclass(slots=True)
class Stopwatch:
    """Modules that say when they began and ended."""

    device: torch.device
    calls: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def around(self, module: Module) -> Module:
        """The same module, timed."""

        def timed(arguments: list[Any]) -> list[torch.Tensor]:
            begin = self._now()
            results = module(arguments)
            self.calls.append((begin, self._now()))
            return results

        return timed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def timed(executable: Executable, name: str, run: Callable[[Executable], Result]) -> tuple[Result, tuple[Stretch, ...]]:
    """What a run of a program gives, and when its parts computed, since all processes had come here."""
    watch = Stopwatch(executable.device)
    modules = {key: watch.around(module) for key, module in executable.modules.items()}
    if dist.is_initialized():
        dist.barrier()
    begin = time.perf_counter()
    result = run(replace(executable, modules=modules))
    calls = [(first - begin, last - begin) for first, last in watch.calls]
    return result, tuple(stretches(executable.programs[name], calls))


def stretches(program: Program, calls: Sequence[tuple[float, float]]) -> Iterator[Stretch]:
    """The calls of a run, in order, joined where nothing stands between them but the interpreter.

    A wait divides a part: what it takes is not computing.
    """
    left = iter(calls)
    for part, number, instructions in ((PREPARE, -1, program.prepare), *program.turns(), (UPDATE, -1, program.update)):
        for count in _runs(instructions):
            inside = [call for _, call in zip(range(count), left, strict=False)]
            if inside:
                yield Stretch(part, number, inside[0][0], inside[-1][1])


def _runs(instructions: Sequence[Instruction]) -> Iterator[int]:
    """How many calls there are before each wait, and behind the last."""
    count = 0
    for instruction in instructions:
        if isinstance(instruction, Run):
            count += 1
        elif isinstance(instruction, Wait):
            yield count
            count = 0
    yield count


def write(folder: Path, rank: int, found: Sequence[Stretch]) -> None:
    """Into a run's folder. Raises OSError."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    path = folder / FOLDER / f"rank-{rank}.json"
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(json.dumps([asdict(one) for one in found]) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read(folder: Path, rank: int) -> tuple[Stretch, ...]:
    """What a process wrote down of the last run that was timed. Raises OSError."""
    said = json.loads((folder / FOLDER / f"rank-{rank}.json").read_text(encoding="utf-8"))
    return tuple(Stretch(**one) for one in cast("list[dict[str, Any]]", said))
