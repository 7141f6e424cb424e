"""The interpreter of one device: runs a program's instructions over a store of tensors.

In: a build folder, the parameters and states by name, and the data of each microbatch. Out: the values asked for;
parameters and states are written in place. Buffers live in a table of their own and leave it when an instruction says
so, before the call, so that a module owns what it may overwrite.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import Any, cast

import torch

from .program import Allocate, Build, Free, Instruction, Program, Run, from_json

Module = Callable[[list[Any]], list[torch.Tensor]]
Store = dict[str, torch.Tensor]

MANIFEST = "manifest.json"
BATCH = "batch"  # the dim that microbatches divide
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "bool": torch.bool,
        "u8": torch.uint8,
        "i32": torch.int32,
        "i64": torch.int64,
        "bf16": torch.bfloat16,
        "f16": torch.float16,
        "f32": torch.float32,
        "f64": torch.float64,
    }
)


class BuildError(Exception):
    """A build folder that is not what the compiler wrote."""


def read_folder(folder: str | Path) -> dict[str, str]:
    """The texts of a build folder, each checked against the manifest. Raises `BuildError`."""
    root = Path(folder)
    try:
        hashes = cast(dict[str, str], json.loads((root / MANIFEST).read_text(encoding="utf-8"))["sha256"])
        texts = {name: (root / name).read_bytes() for name in hashes}
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise BuildError(f"{folder} is not a build folder: {fault}") from fault
    for name, text in texts.items():
        if hashlib.sha256(text).hexdigest() != hashes[name]:
            raise BuildError(f"{root / name} is not what the compiler wrote; compile again")
    return {name: text.decode() for name, text in texts.items()}


def load(folder: str | Path, device: str | torch.device = "cpu", compiled: bool = False) -> Executable:
    """Verify a build folder and import its modules. Raises `BuildError`, `ProgramFormatError`."""
    texts = read_folder(folder)
    if "program.json" not in texts:
        raise BuildError(f"{folder} has no program.json in its manifest")
    sources = {
        name.removeprefix("modules/").removesuffix(".py"): text
        for name, text in texts.items()
        if name.startswith("modules/") and name.endswith(".py")
    }
    places = {name: str(Path(folder) / "modules" / f"{name}.py") for name in sources}
    return executable(from_json(texts["program.json"]), sources, device, compiled, places)


def executable(
    build: Build,
    sources: Mapping[str, str],
    device: str | torch.device = "cpu",
    compiled: bool = False,
    places: Mapping[str, str] | None = None,
) -> Executable:
    """A build with its modules' sources as something that runs. `places` are the files that tracebacks show."""
    modules = {name: import_source(name, text, (places or {}).get(name)) for name, text in sources.items()}
    if compiled:
        # Forward and backward; the update is fused calls already, and the compiler knows no shapes of theirs.
        hot = {i.module for p in build.programs.values() for i in p.microbatch if isinstance(i, Run)} & set(modules)
        modules = {**modules, **{n: torch.compile(modules[n], dynamic=False) for n in hot}}
    for program in build.programs.values():
        for instruction in (*program.prepare, *program.microbatch, *program.update):
            if isinstance(instruction, Run) and instruction.module not in modules:
                raise BuildError(f"the program calls a module {instruction.module} that the build does not hold")
    return Executable(build, modules, torch.device(device))


def import_source(name: str, text: str, place: str | None = None) -> Module:
    """A generated module's `run`, from text that was checked, not from what the file may hold by now."""
    loader = _Checked(text, place or f"<{name}>")
    spec = importlib.util.spec_from_loader(f"partita_build.{name}", loader)
    assert spec is not None, f"no module spec for {name}"
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return cast(Module, module.run)


class _Checked(importlib.abc.InspectLoader):
    """Imports a text that was read and checked before."""

    def __init__(self, text: str, place: str) -> None:
        self._text, self._place = text, place

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._text, self._place)


@dataclass(frozen=True, slots=True)
class Executable:
    """A loaded build on one device."""

    build: Build
    modules: Mapping[str, Module]
    device: torch.device

    def run(
        self,
        name: str,
        store: Store,
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        starts: Mapping[str, int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """One run of a program (`step`, `evaluate`, `predict`).

        store   parameters and states by name; the program writes them in place
        data    for each microbatch its inputs by name
        starts  the global offset of this part of a dim, where it is not 0
        """
        program = self.build.programs[name]
        assert len(data) == program.microbatches, f"{program.microbatches} microbatches, data for {len(data)}"
        buffers: Store = {**store, **self._scalars(program, step, seed, starts or {})}
        with torch.no_grad():
            self._run(program.prepare, buffers)
            for number, microbatch in enumerate(data):
                buffers.update(self._data(program, microbatch))
                self._advance(program, buffers, number)
                self._run(program.microbatch, buffers)
            self._run(program.update, buffers)
        return {key: buffers[buffer] for key, buffer in program.outputs.items()}

    def _advance(self, program: Program, buffers: Store, number: int) -> None:
        """A later microbatch sees later rows: the start of the batch's dim moves by a microbatch's rows."""
        name = f"start:{BATCH}"
        if number and name in buffers:
            sizes = [d.shape[d.dims.index(BATCH)] for d in program.inputs if BATCH in d.dims]
            assert sizes, "the batch has a start, but no data"
            buffers[name] = buffers[name] + sizes[0]

    def _scalars(self, program: Program, step: int, seed: int, starts: Mapping[str, int]) -> Store:
        values = {"step": step, "seed": seed}
        found: Store = {}
        for given in program.inputs:
            if given.source != "data":
                value = values.get(given.source, starts.get(given.source.removeprefix("start:"), 0))
                found[given.name] = torch.tensor(value, dtype=DTYPES[given.dtype], device=self.device)
        return found

    def _data(self, program: Program, microbatch: Mapping[str, torch.Tensor]) -> Store:
        found: Store = {}
        for given in program.inputs:
            if given.source == "data":
                tensor = microbatch[given.name]
                assert tuple(tensor.shape) == given.shape, f"{given.name} is {tuple(tensor.shape)}, not {given.shape}"
                found[given.name] = tensor.to(self.device, DTYPES[given.dtype]).contiguous()
        return found

    def _run(self, instructions: Sequence[Instruction], buffers: Store) -> None:
        for instruction in instructions:
            if isinstance(instruction, Run):
                boxed: list[Any] = [buffers[name] for name in instruction.inputs]
                boxed.extend(instruction.literals)
                for name in instruction.frees:
                    del buffers[name]
                results = self.modules[instruction.module](boxed)
                buffers.update(zip(instruction.outputs, results, strict=True))
                del results
            elif isinstance(instruction, Allocate):
                shape, dtype = instruction.shape, DTYPES[instruction.dtype]
                buffers[instruction.buffer] = torch.zeros(shape, dtype=dtype, device=self.device)
            else:
                assert isinstance(instruction, Free), f"unknown instruction {instruction}"
                for name in instruction.buffers:
                    del buffers[name]
