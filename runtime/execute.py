"""The interpreter of one device: runs a program's instructions over a store of tensors.

In: a loaded build (`folder.py`), the parameters and states by name, and the data of each microbatch. Out: the values
asked for; parameters and states are written in place. Buffers live in a table of their own and leave it when an
instruction says so, before the call, so that a module owns what it may overwrite. Collectives are begun by a
`Communicator` (`communicator.py`) and waited for where the program says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch
from torch.profiler import record_function

from .communicator import Communicator, Pending
from .fault import RuntimeFault
from .host import HOST_RUN, Host
from .layout import chunk, part
from .program import (
    Allocate,
    Build,
    Check,
    Collective,
    Fetch,
    Free,
    Input,
    Instruction,
    Offload,
    OwnBuffers,
    Program,
    Receive,
    Rows,
    Run,
    Send,
    Shard,
    Wait,
)
from .sorted_rows import cut_rows

Module = Callable[[list[Any]], list[torch.Tensor]]
Store = dict[str, torch.Tensor]

NO_MICROBATCH = -1
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


@dataclass(frozen=True, slots=True)
class Executable:
    """A loaded build on one device: the only one, or, with a communicator, one of a mesh."""

    build: Build
    modules: Mapping[str, Module]
    device: torch.device
    communicator: Communicator | None = None
    host: Host = field(default_factory=Host)

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
        scalars = self._scalars(program, step, seed, starts or {})
        whole = _Frame({**store, **scalars})
        check = next((one for one in program.update if isinstance(one, Check)), None)
        before = {state: store[state].clone() for state in check.states if state in store} if check else {}
        yield from self._run(program.prepare, whole)
        frames: dict[int, _Frame] = {}
        ends = {number: place for place, (_, number, _) in enumerate(program.turns())}
        for place, (turn, number, instructions) in enumerate(program.turns()):
            if number not in frames:
                frames[number] = whole.of(number) if program.order else whole
                frames[number].buffers.update(self._data(program, data[number]))
                frames[number].buffers.update(self._later(program, scalars, number))
            frame = frames[number]
            frame.part, frame.number = turn, number
            yield from self._run(instructions, frame)
            if ends[number] == place and program.microbatches > 1:
                if number == program.microbatches - 1:
                    _hand_over(program, frame.buffers, whole.buffers)
                del frames[number]
        last = frames.get(0, whole)
        last.part, last.number = "update", NO_MICROBATCH
        at = len(program.update) if check is None else program.update.index(check)
        yield from self._run(program.update[:at], last)
        goes_on = check is None or _goes_on(check, last.buffers, bound)
        yield from self._run(program.update[at:] if goes_on else [Wait(tuple(last.flying))], last)
        assert not last.flying, f"nobody waited for {', '.join(last.flying)}"
        if self.communicator is not None and program.order:
            self._blocking(self.communicator.finish, last, "what it has sent to leave")
        if goes_on:
            return {key: last.buffers[buffer] for key, buffer in program.outputs.items()}
        for state, value in before.items():
            store[state].copy_(value)
        there = {key: last.buffers[buffer] for key, buffer in program.outputs.items() if buffer in last.buffers}
        return {**there, "skipped": torch.ones(())}

    def _later(self, program: Program, scalars: Store, number: int) -> Store:
        """A later microbatch sees later rows: the start of the batch's dim moves by a whole microbatch's rows."""
        moving = [given for given in program.inputs if _dim_of(given.source) == BATCH] if number else []
        assert all(given.whole for given in moving), "a start says how long its dim is"
        return {given.name: scalars[given.name] + number * given.whole[0] for given in moving}

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

    def _run(  # noqa: PLR0912, a branch for each kind of instruction
        self, instructions: Sequence[Instruction], frame: _Frame
    ) -> Generator[None, None, None]:
        buffers, flying = frame.buffers, frame.flying
        for instruction in instructions:
            match instruction:
                case Run():
                    boxed: list[Any] = [*_take(buffers, instruction.inputs, instruction.frees), *instruction.literals]
                    module = self.modules[instruction.module]
                    results = self._on_host(module, boxed) if instruction.host else module(boxed)
                    buffers.update(zip(instruction.outputs, results, strict=True))
                    del results
                case Allocate(buffer, shape, dtype):
                    buffers[buffer] = torch.zeros(shape, dtype=DTYPES[dtype], device=self.device)
                case Free(names):
                    _take(buffers, (), names)
                case Collective():
                    into = _take(buffers, instruction.into, ())
                    operands = _take(buffers, instruction.inputs, instruction.frees)
                    pending = self._peers(instruction.axis).begin(instruction, operands, into)
                    flight = _Flight(pending, instruction.outputs, f"the {instruction.kind} along {instruction.axis}")
                    flying.update(dict.fromkeys(instruction.outputs, flight))
                    del operands, pending, flight, into
                case Wait(names):
                    while landing := [flying[name] for name in names if name in flying]:
                        while not landing[0].pending.ready():
                            yield
                        self._blocking(partial(landing[0].land, buffers, flying), frame, landing[0].what)
                case Shard() | Rows():
                    self._cut(instruction, buffers)
                case Offload() | Fetch():
                    self._move(instruction, frame)
                case Send():
                    (tensor,) = _take(buffers, (instruction.input,), instruction.frees)
                    send = partial(self._peers(instruction.axis).send, instruction, frame.number, tensor)
                    self._blocking(send, frame, f"place {instruction.to} of {instruction.axis} to take more")
                    del tensor, send
                case Receive():
                    into = torch.empty(instruction.shape, dtype=DTYPES[instruction.dtype], device=self.device)
                    pending = self._peers(instruction.axis).receive(instruction, frame.number, into)
                    what = f"{instruction.output} from place {instruction.source} of {instruction.axis}"
                    flying[instruction.output] = _Flight(pending, (instruction.output,), what)
                    del into, pending
                case _:
                    assert isinstance(instruction, Check), f"nobody runs {instruction.op}"  # the run itself stops there

    def _move(self, moved: Offload | Fetch, frame: _Frame) -> None:
        """Begin to copy a buffer down to the host, or up from it."""
        (tensor,) = _take(frame.buffers, (moved.input,), moved.frees)
        down = isinstance(moved, Offload)
        pending = self.host.down(tensor) if down else self.host.up(tensor, self.device)
        frame.flying[moved.output] = _Flight(pending, (moved.output,), f"the copy of {moved.input}")

    def _on_host(self, module: Module, boxed: list[Any]) -> list[torch.Tensor]:
        """A module's results in the host's own memory."""
        with record_function(HOST_RUN):
            there = {tensor.untyped_storage().data_ptr() for tensor in boxed if isinstance(tensor, torch.Tensor)}
            results = module(boxed)
            return [t if t.untyped_storage().data_ptr() in there else self.host.kept(t, self.device) for t in results]

    def _peers(self, axis: str) -> Communicator:
        assert self.communicator is not None, f"a lone device has no axis {axis}"
        return self.communicator

    def _blocking(self, call: Callable[[], None], frame: _Frame, what: str) -> None:
        """Something that waits for other devices. Raises `RuntimeFault` E0533 where they are gone or too late."""
        try:
            call()
        except RuntimeError as fault:
            microbatch = "" if frame.number < 0 else f" of microbatch {frame.number}"
            where = f"rank {self.rank}, in `{frame.part}`{microbatch}, waited for {what}"
            raise RuntimeFault("E0533", f"{where}: {fault}", "go on with --resume") from fault

    def _cut(self, shard: Shard | Rows, buffers: Store) -> None:
        at, peers = self.build.mesh.along(self.rank, shard.axis)
        if isinstance(shard, Rows):
            x, ids = _take(buffers, (shard.input, shard.ids), shard.frees)
            buffers[shard.output] = cut_rows(shard, at, len(peers), x, ids)
            return
        (whole,) = _take(buffers, (shard.input,), shard.frees)
        begin, size = chunk(shard.size, len(peers), at)
        mine = whole.narrow(shard.dim, begin, size)
        buffers[shard.output] = mine if shard.view else mine.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A collective or a message under way, the buffers that it will fill, and what it is in words."""

    pending: Pending
    outputs: tuple[str, ...]
    what: str

    def land(self, buffers: Store, flying: dict[str, _Flight]) -> None:
        buffers.update(zip(self.outputs, self.pending.results(), strict=True))
        for name in self.outputs:
            del flying[name]


@dataclass(slots=True)
class _Frame:
    """The buffers that a part's instructions see, what is under way for them, and for whom they run."""

    buffers: Store
    flying: dict[str, _Flight] = field(default_factory=dict[str, _Flight])
    part: str = "prepare"
    number: int = NO_MICROBATCH

    def of(self, number: int) -> _Frame:
        """A microbatch's own, before the step's."""
        return _Frame(OwnBuffers(self.buffers), number=number)


def _goes_on(check: Check, buffers: Store, bound: float) -> bool:
    """Whether all scalars are finite and the loss is within the bound; one transfer from the device."""
    loss, *others = torch.stack([buffers[name].double() for name in check.buffers]).tolist()
    return loss <= bound and all(map(math.isfinite, (loss, *others)))


def _hand_over(program: Program, microbatch: Store, step: Store) -> None:
    """What is asked for of the last microbatch, and lies in a table of its own, outlives it."""
    if microbatch is not step:
        step.update({name: microbatch[name] for name in program.outputs.values() if name in microbatch})


def _take(buffers: Store, inputs: Sequence[str], frees: Sequence[str]) -> list[torch.Tensor]:
    """Buffers for an instruction, which from here on owns those that it frees."""
    taken = [*map(buffers.__getitem__, inputs)]
    for name in frees:
        del buffers[name]
    return taken


def _dim_of(source: str) -> str:
    """The dim whose start an input is, its axes apart (`start:batch/data`)."""
    return source.removeprefix("start:").partition("/")[0] if source.startswith("start:") else ""
