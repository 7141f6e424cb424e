"""The interpreter of one device: runs a program's instructions over a store of tensors.

In: a build folder, the parameters and states by name, and the data of each microbatch. Out: the values asked for;
parameters and states are written in place. Buffers live in a table of their own and leave it when an instruction says
so, before the call, so that a module owns what it may overwrite. Collectives are begun by a `Communicator` (real
processes: `collectives.py`; all devices in one process: `virtual.py`) and waited for where the program says so.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import Any, Protocol, cast

import torch

from .fault import RuntimeFault
from .layout import chunk, part
from .program import (
    Allocate,
    Build,
    Check,
    Collective,
    Free,
    Input,
    Instruction,
    Program,
    Run,
    Shard,
    Wait,
    from_json,
)

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


def load(
    folder: str | Path, device: str | torch.device = "cpu", compiled: bool = False, kernels: Collection[str] = ()
) -> Executable:
    """Verify a build folder and import its modules. `kernels`: the packages whose foreign kernels may run.

    Raises `BuildError`, `ProgramFormatError`, `RuntimeFault` E0524 for a package that is not allowed.
    """
    texts = read_folder(folder)
    if "program.json" not in texts:
        raise BuildError(f"{folder} has no program.json in its manifest")
    sources = {
        name.removeprefix("modules/").removesuffix(".py"): text
        for name, text in texts.items()
        if name.startswith("modules/") and name.endswith(".py")
    }
    places = {name: str(Path(folder) / "modules" / f"{name}.py") for name in sources}
    return executable(from_json(texts["program.json"]), sources, device, compiled, places, kernels)


def executable(
    build: Build,
    sources: Mapping[str, str],
    device: str | torch.device = "cpu",
    compiled: bool = False,
    places: Mapping[str, str] | None = None,
    kernels: Collection[str] = (),
) -> Executable:
    """A build with its modules' sources as something that runs. `places` are the files that tracebacks show."""
    refused = [package for package in build.kernels if package not in kernels]
    if refused:
        hint = f"--allow-kernels {','.join(refused)}, if you trust it"
        raise RuntimeFault("E0524", f"{build.name} runs code of {', '.join(refused)}, which is not allowed", hint)
    modules = {name: import_source(name, text, (places or {}).get(name)) for name, text in sources.items()}
    if compiled:
        # Forward and backward; the update is fused calls already, and the compiler knows no shapes of theirs.
        hot = {i.module for p in _programs(build) for i in p.microbatch if isinstance(i, Run)} & set(modules)
        modules = {**modules, **{n: torch.compile(modules[n], dynamic=False) for n in hot}}
    for program in _programs(build):
        for instruction in (*program.prepare, *program.microbatch, *program.update):
            if isinstance(instruction, Run) and instruction.module not in modules:
                raise BuildError(f"the program calls a module {instruction.module} that the build does not hold")
    return Executable(build, modules, torch.device(device))


def _programs(build: Build) -> list[Program]:
    """Those of all devices."""
    return [program for programs in (build.programs, *build.variants) for program in programs.values()]


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


class Pending(Protocol):
    """A collective that was begun."""

    def ready(self) -> bool:
        """Whether `results` can be asked for. Where asking blocks until they are there, always."""
        ...

    def results(self) -> Sequence[torch.Tensor]:
        """The collective's outputs."""
        ...


class Communicator(Protocol):
    """What carries the collectives of one device of a mesh."""

    @property
    def rank(self) -> int:
        """Which device this is."""
        ...

    def begin(
        self, collective: Collective, operands: Sequence[torch.Tensor], into: Sequence[torch.Tensor] = ()
    ) -> Pending:
        """Begin a collective; its operands, and what it gathers `into`, must not be written until it is waited for."""
        ...


@dataclass(frozen=True, slots=True)
class Executable:
    """A loaded build on one device: the only one, or, with a communicator, one of a mesh."""

    build: Build
    modules: Mapping[str, Module]
    device: torch.device
    communicator: Communicator | None = None

    @property
    def rank(self) -> int:
        """Which device of the mesh this is."""
        return self.communicator.rank if self.communicator else 0

    @property
    def programs(self) -> dict[str, Program]:
        """What this device runs."""
        return self.build.programs_of(self.rank)

    def run(
        self,
        name: str,
        store: Store,
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        starts: Mapping[str, int] | None = None,
        bound: float = math.inf,
    ) -> dict[str, torch.Tensor]:
        """One run of a program (`step`, `evaluate`, `predict`).

        store   parameters and states by name, this device's part of each; the program writes them in place
        data    for each microbatch its inputs by name, this device's part of each
        starts  the global offset of this part of a dim, where it is not what the layout says
        bound   a loss above it updates nothing (see `Check`)
        """
        running = self.steps(name, store, data, step, seed, starts, bound)
        with torch.no_grad():
            while True:
                try:
                    next(running)
                except StopIteration as end:
                    return cast("dict[str, torch.Tensor]", end.value)

    def steps(
        self,
        name: str,
        store: Store,
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        starts: Mapping[str, int] | None = None,
        bound: float = math.inf,
    ) -> Generator[None, None, dict[str, torch.Tensor]]:
        """The same as a coroutine that yields where it must wait for other devices. Autograd is to be off around it."""
        program = self.programs[name]
        assert len(data) == program.microbatches, f"{program.microbatches} microbatches, data for {len(data)}"
        buffers: Store = {**store, **self._scalars(program, step, seed, starts or {})}
        flying: dict[str, _Flight] = {}
        check = next((one for one in program.update if isinstance(one, Check)), None)
        before = {state: store[state].clone() for state in check.states} if check else {}
        yield from self._run(program.prepare, buffers, flying)
        for number, microbatch in enumerate(data):
            buffers.update(self._data(program, microbatch))
            self._advance(program, buffers, number)
            yield from self._run(program.microbatch, buffers, flying)
        at = len(program.update) if check is None else program.update.index(check)
        yield from self._run(program.update[:at], buffers, flying)
        if check is not None and not _goes_on(check, buffers, bound):
            yield from self._run([Wait(tuple(flying))], buffers, flying)  # others may still read what was sent
            for state, value in before.items():
                store[state].copy_(value)
            there = {key: buffers[buffer] for key, buffer in program.outputs.items() if buffer in buffers}
            return {**there, "skipped": torch.ones(())}
        yield from self._run(program.update[at:], buffers, flying)
        assert not flying, f"nobody waited for {', '.join(flying)}"
        return {key: buffers[buffer] for key, buffer in program.outputs.items()}

    def _advance(self, program: Program, buffers: Store, number: int) -> None:
        """A later microbatch sees later rows: the start of the batch's dim moves by a whole microbatch's rows."""
        if not number:
            return
        for given in program.inputs:
            if _dim_of(given.source) == BATCH:
                buffers[given.name] = buffers[given.name] + _rows(program)

    def _scalars(self, program: Program, step: int, seed: int, starts: Mapping[str, int]) -> Store:
        values = {"step": step, "seed": seed}
        found: Store = {}
        for given in program.inputs:
            if given.source != "data":
                value = values.get(given.source)
                if value is None:
                    value = starts.get(given.source.removeprefix("start:"), self._start(given))
                found[given.name] = torch.tensor(value, dtype=DTYPES[given.dtype], device=self.device)
        return found

    def _start(self, given: Input) -> int:
        """Where this device's part of a dim begins."""
        offsets, _ = part(given.whole, given.layout, self.build.mesh, self.rank)
        return offsets[0] if offsets else 0

    def _data(self, program: Program, microbatch: Mapping[str, torch.Tensor]) -> Store:
        found: Store = {}
        for given in program.inputs:
            if given.source == "data":
                tensor = microbatch[given.name]
                assert tuple(tensor.shape) == given.shape, f"{given.name} is {tuple(tensor.shape)}, not {given.shape}"
                found[given.name] = tensor.to(self.device, DTYPES[given.dtype]).contiguous()
        return found

    def _run(
        self, instructions: Sequence[Instruction], buffers: Store, flying: dict[str, _Flight]
    ) -> Generator[None, None, None]:
        for instruction in instructions:
            match instruction:
                case Run():
                    boxed: list[Any] = [*_take(buffers, instruction.inputs, instruction.frees), *instruction.literals]
                    results = self.modules[instruction.module](boxed)
                    buffers.update(zip(instruction.outputs, results, strict=True))
                    del results
                case Allocate(buffer, shape, dtype):
                    buffers[buffer] = torch.zeros(shape, dtype=DTYPES[dtype], device=self.device)
                case Free(names):
                    _take(buffers, (), names)
                case Collective():
                    assert self.communicator is not None, f"a lone device has no axis {instruction.axis}"
                    into = _take(buffers, instruction.into, ())
                    operands = _take(buffers, instruction.inputs, instruction.frees)
                    flight = _Flight(self.communicator.begin(instruction, operands, into), instruction.outputs)
                    flying.update(dict.fromkeys(instruction.outputs, flight))
                    del operands, flight, into
                case Wait(names):
                    while landing := [flying[name] for name in names if name in flying]:
                        while not landing[0].pending.ready():
                            yield
                        landing[0].land(buffers, flying)
                case Shard():
                    self._cut(instruction, buffers)
                case Check():
                    pass  # the run itself stops there

    def _cut(self, shard: Shard, buffers: Store) -> None:
        at, peers = self.build.mesh.along(self.rank, shard.axis)
        (whole,) = _take(buffers, (shard.input,), shard.frees)
        begin, size = chunk(shard.size, len(peers), at)
        mine = whole.narrow(shard.dim, begin, size)
        buffers[shard.output] = mine if shard.view else mine.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A collective under way and the buffers that it will fill."""

    pending: Pending
    outputs: tuple[str, ...]

    def land(self, buffers: Store, flying: dict[str, _Flight]) -> None:
        buffers.update(zip(self.outputs, self.pending.results(), strict=True))
        for name in self.outputs:
            del flying[name]


def _goes_on(check: Check, buffers: Store, bound: float) -> bool:
    """Whether all scalars are finite and the loss is within the bound; one transfer from the device."""
    loss, *others = torch.stack([buffers[name].double() for name in check.buffers]).tolist()
    return loss <= bound and all(map(math.isfinite, (loss, *others)))


def _take(buffers: Store, inputs: Sequence[str], frees: Sequence[str]) -> list[torch.Tensor]:
    """Buffers for an instruction, which from here on owns those that it frees."""
    taken = [buffers[name] for name in inputs]
    for name in frees:
        del buffers[name]
    return taken


def _dim_of(source: str) -> str:
    """The dim whose start an input is, its axes apart (`start:batch/data`)."""
    return source.removeprefix("start:").partition("/")[0] if source.startswith("start:") else ""


def _rows(program: Program) -> int:
    """Rows of a microbatch over all devices."""
    for given in program.inputs:
        if given.source == "data":
            for position, dim in enumerate(given.dims):
                if dim.partition("/")[0] == BATCH:
                    return (given.whole or given.shape)[position]
    raise AssertionError("the batch has a start, but no data")
