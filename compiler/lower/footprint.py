"""What a program occupies, to the byte: its instructions are walked as the runtime runs them, memory by memory.

In: a program, the library of its modules (of which `profile.py` tells what a call allocates) and the tensors that stand
outside. Out: the peak, the line of the spec that runs there, whose memory it is, and how high each instruction reaches.
What is alive `memories.py` keeps; what kernels allocate inside, unseen by the meta device, `workspace.py` declares.

Sizes are rounded up as the allocator does: to 512 bytes by PyTorch's caching allocator on CUDA; on the CPU its events
count bytes as they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from ...runtime.layout import ONE_DEVICE, Mesh
from ...runtime.parcels import parcels, whole_bytes
from ...runtime.program import (
    Allocate,
    Check,
    Collective,
    Fetch,
    Free,
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
from ..cost.memory import CPU_ROUNDING_BYTES, CUDA_ROUNDING_BYTES, Memory, Owner
from .gradients import gradients_of
from .held import Held, bytes_of
from .highest import Highest
from .library import Library
from .memories import Memories
from .outside import dtype_of
from .profile import Profile, placed
from .workspace import staging_bytes

ROUNDING_BYTES: Mapping[str, int] = MappingProxyType({"cpu": CPU_ROUNDING_BYTES, "cuda": CUDA_ROUNDING_BYTES})


@dataclass(frozen=True, slots=True)
class Level:
    """How high one instruction reaches, whose that is, and what stays behind it. `layer`: the one that it works on."""

    phase: str
    what: str
    peak_bytes: int
    left_bytes: int
    owners: Mapping[Owner, int]
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The peak of a program, who owns it, and its course: one level an instruction, in the order of the run.

    host_bytes  the most that lies on the host at once
    """

    memory: Memory
    levels: tuple[Level, ...]
    host_bytes: int = 0


def footprint(
    program: Program,
    library: Library,
    held: Mapping[str, Held],
    *,
    mesh: Mesh = ONE_DEVICE,
    gloo: bool = True,
    threads: int | None = None,
    rounding_bytes: int = CPU_ROUNDING_BYTES,
) -> Footprint:
    """The course of one run of a program on a device of a mesh. `held` are the tensors of its store by name.

    gloo     whether gloo carries collectives (on the CPU), which copies what it sends
    threads  how many the kernels run on: their buffers are one a thread (as torch is set where not given)
    """
    threads = torch.get_num_threads() if threads is None else threads
    profiles = {name: library.profile(name, threads) for name in _called(program)}
    walk = _Walk(program, profiles, Memories(rounding_bytes), mesh.lengths, gloo)
    walk.run(held)
    first = walk.highest
    again = _Walk(program, profiles, Memories(rounding_bytes), mesh.lengths, gloo, wanted=first.at)  # now it is known
    again.run(held)
    memory = Memory(first.peak_bytes, first.place, again.highest.shares())
    return Footprint(memory, tuple(walk.levels), first.host_bytes)


def peak_bytes(
    program: Program, library: Library, held: Mapping[str, Held], *, mesh: Mesh = ONE_DEVICE, gloo: bool = True,
    threads: int | None = None, rounding_bytes: int = CPU_ROUNDING_BYTES,
) -> int:  # fmt: skip
    """The peak of `footprint` alone: of microbatches that begin alike, one is walked."""
    threads = torch.get_num_threads() if threads is None else threads
    profiles = {name: library.profile(name, threads) for name in _called(program)}
    walk = _Walk(program, profiles, Memories(rounding_bytes), mesh.lengths, gloo, brief=True)
    walk.run(held)
    return walk.highest.peak_bytes


def _called(program: Program) -> frozenset[str]:
    return frozenset(i.module for i in program.instructions() if isinstance(i, Run))


@dataclass(slots=True)
class _Walk:
    """One run. wanted: the moment of which it is noted who is alive.

    brief: a microbatch that leaves everything as the one before it did stands for all that follow
    """

    program: Program
    profiles: Mapping[str, Profile]
    memories: Memories
    devices: Mapping[str, int]
    gloo: bool
    wanted: int = -1
    brief: bool = False
    highest: Highest = field(init=False)
    buffers: dict[str, int] = field(default_factory=dict[str, int])
    flying: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    leaving: dict[int, deque[int]] = field(default_factory=dict[int, deque[int]])
    levels: list[Level] = field(default_factory=list[Level])
    gradients: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.highest = Highest(self.memories, self.wanted)

    def run(self, held: Mapping[str, Held]) -> None:
        """`Executable.run`, with sizes for tensors."""
        self.gradients = gradients_of(self.program)
        for name, tensor in held.items():
            self._bind(name, self.memories.new(tensor.bytes, tensor.owner, name, tensor.host))
        for check in (i for i in self.program.update if isinstance(i, Check)):
            copies = [self.memories.new(held[state].bytes, held[state].owner, state) for state in check.states]
            self.memories.named.update(copies)
        scalars = [i for i in self.program.inputs if i.source != "data"]
        rows = [i for i in self.program.inputs if i.source == "data"]
        for given in scalars:
            self._bind(given.name, self.memories.new(bytes_of(given.shape, given.dtype), Owner.DATA, given.name))
        # The caller holds the data of all microbatches until the run ends.
        batches: list[dict[str, int]] = []
        for _ in range(self.program.microbatches):
            batch = {i.name: self.memories.new(bytes_of(i.shape, i.dtype), Owner.DATA, i.name) for i in rows}
            self.memories.named.update(batch.values())
            batches.append(batch)
        self.highest.mark("")
        self._all("prepare", self.program.prepare)
        self._turns(batches)
        self._all("update", self.program.update)

    def _turns(self, batches: Sequence[Mapping[str, int]]) -> None:
        """Part by part. In a pipeline each microbatch has buffers of its own; a lone one keeps them for the update."""
        whole = (self.buffers, self.flying)
        frames: dict[int, tuple[dict[str, int], dict[str, tuple[int, ...]]]] = {}
        ends = {number: place for place, (_, number, _) in enumerate(self.program.turns())}
        left: object = None
        for place, (part, number, instructions) in enumerate(self.program.turns()):
            first = number not in frames
            if first:
                frames[number] = (OwnBuffers(whole[0]), {}) if self.program.order else whole
            self.buffers, self.flying = frames[number]
            for name, memory in batches[number].items() if first else ():
                self._bind(name, memory)
            self._all(part, instructions)
            if ends[number] == place and self.program.order and self.program.microbatches > 1:
                for name in list(self.buffers):
                    self._unbind(name)
            before, left = left, self._left() if self.brief and not self.program.order else None
            if left is not None and left == before:
                break
        self.buffers, self.flying = whole if self.program.microbatches > 1 else frames[0]

    def _left(self) -> object:
        """What a microbatch begins with: each name's memory, by the first name that it has, and all that is alive."""
        first: dict[int, str] = {}
        names = [(name, first.setdefault(self.buffers[name], name)) for name in sorted(self.buffers)]
        sizes = [self.memories.alive[memory].bytes for memory in first]
        return names, sizes, sorted(self.flying), self.memories.total, self.memories.host_bytes

    # ---- names

    def _bind(self, name: str, memory: int) -> None:
        self.memories.named[memory] += 1
        if name in self.buffers:
            self._unbind(name)
        self.buffers[name] = memory

    def _unbind(self, name: str) -> int:
        """Drop a name; the memory goes with the last one."""
        memory = self.buffers[name]
        del self.buffers[name]
        self.memories.named[memory] -= 1
        self.memories.release((memory,))
        return memory

    # ---- instructions

    def _all(self, phase: str, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            self.highest.begin()
            what, layer = self._instruction(instruction)
            high, owners = self.highest.high_bytes, self.highest.owners
            self.levels.append(Level(phase, what, high, self.memories.total, owners, layer))

    def _instruction(self, instruction: Instruction) -> tuple[str, str]:
        """What one does to memory. Gives what it is called, and the layer that it works on."""
        match instruction:
            case Run():
                self._call(instruction)
                return instruction.module, instruction.layer
            case Allocate(buffer, shape, dtype):
                self._bind(buffer, self.memories.new(bytes_of(shape, dtype), Owner.GRADIENT, buffer))
                self.highest.mark(buffer)
                return buffer, ""
            case Free(names):
                for name in names:
                    self._unbind(name)
            case Wait(names):
                for name in names:
                    self.memories.hold(self._landed(name), -1)
            case Check():
                self.highest.mark("check", workspace=2 * 8 * len(instruction.buffers))  # in float64, and together
            case Shard() | Rows():
                self._cut(instruction)
            case Send():
                self._post(instruction)
            case Offload() | Fetch():
                self._move(instruction)
            case Receive(output=output, shape=shape, dtype=dtype):
                self._bind(output, self._made(output, shape, dtype))
                self.highest.mark(output)
            case Collective():
                self._send(instruction)
                return instruction.kind, ""
        return instruction.op, ""

    def _cut(self, shard: Shard | Rows) -> None:
        """The whole lives until its part is copied."""
        memories = [self.buffers[shard.input]]
        if isinstance(shard, Shard) and shard.view:
            self._bind(shard.output, memories[0])
            return
        self.memories.hold(memories, 1)
        for name in shard.frees:
            self._unbind(name)
        self._bind(shard.output, self._made(shard.output, shard.shape, shard.dtype))
        self.highest.mark(shard.output)
        self.memories.hold(memories, -1)

    def _move(self, moved: Offload | Fetch) -> None:
        """What is copied goes when it is: nothing runs between the two but other copies."""
        block = self.memories.alive[self.buffers[moved.input]]
        host = isinstance(moved, Offload)
        size = bytes_of(moved.shape, moved.dtype)
        self._bind(moved.output, self.memories.new(size, block.owner, block.path, host))
        self.highest.mark(moved.output)
        for name in moved.frees:
            self._unbind(name)

    def _post(self, sent: Send) -> None:
        """What is sent is kept until it has left: at the latest when one more than `ahead` of its kind is sent."""
        queue = self.leaving.setdefault(sent.tag, deque())
        while len(queue) >= sent.ahead:
            self.memories.hold((queue.popleft(),), -1)
        queue.append(self.buffers[sent.input])
        self.memories.hold((queue[-1],), 1)
        for name in sent.frees:
            self._unbind(name)

    def _send(self, sent: Collective) -> None:
        """A collective's operands and what it stages live until they are waited for; of those that are packed, the
        pack, which becomes the results."""
        packs = self._packs(sent)
        memories = [self.buffers[name] for name in sent.inputs]
        staged = staging_bytes(sent, self.devices[sent.axis], self.gloo)
        staging = (self.memories.new(staged, Owner.WORKSPACE, sent.kind),) if staged else ()
        read = (*(memory for at, memory in enumerate(memories) if at not in packs), *staging)
        self.memories.hold((*memories, *staging), 1)
        for name in sent.frees:
            self._unbind(name)
        into = [self.buffers[name] for name in sent.into] or [None] * len(memories)
        for at, (name, shape, memory, given, whole) in enumerate(
            zip(sent.outputs, sent.shapes, memories, sent.inputs, into, strict=not sent.groups)
        ):
            there = packs.get(at, memory if given in sent.in_place else whole)
            self._bind(name, self._made(name, shape, sent.dtype) if there is None else there)
        self.highest.mark(sent.outputs[0])
        self.memories.hold([memory for at, memory in enumerate(memories) if at in packs], -1)
        self.flying.update(dict.fromkeys(sent.outputs, read))

    def _packs(self, sent: Collective) -> dict[int, int]:
        """The new memories of all-reduced members that share a message, by place."""
        found: dict[int, int] = {}
        item = dtype_of(sent.dtype).itemsize
        for members in parcels(sent, item, self.gloo) if sent.kind == "all_reduce" else ():
            if len(members) > 1:
                gradients = self.gradients.issuperset(sent.outputs[at] for at in members)
                owner = Owner.GRADIENT if gradients else Owner.ACTIVATION
                size = sum(whole_bytes(sent, at, item) for at in members)
                found |= dict.fromkeys(members, self.memories.new(size, owner, sent.kind))
        return found

    def _landed(self, name: str) -> tuple[int, ...]:
        """What a collective has held: all of its bucket has come with the first that is waited for."""
        held = self.flying.pop(name, ())
        for other in [other for other, memories in self.flying.items() if memories is held]:
            del self.flying[other]  # in place: a microbatch's own go on in the update
        return held

    def _made(self, name: str, shape: tuple[int, ...], dtype: str) -> int:
        """The new memory of a buffer that an instruction makes."""
        owner = Owner.GRADIENT if name in self.gradients else Owner.ACTIVATION
        return self.memories.new(bytes_of(shape, dtype), owner, name)

    def _call(self, run: Run) -> None:
        body = self.profiles[run.module]
        inside = {number: self.buffers[name] for number, name in zip(body.inputs, run.inputs, strict=True)}
        arguments = [self.buffers[name] for name in run.inputs]
        self.memories.named.update(arguments)  # the boxed list
        for name in run.frees:
            self._unbind(name)
        self.memories.named.subtract(arguments)
        lost = set(arguments) - set(inside.values())
        assert not lost, f"{run.module}: arguments share memory in another way than when it was made"
        self.memories.hold([*inside.values()], 1)
        self.memories.hold([inside.pop(number) for number in body.unused], -1)
        gradients = {number for name, number in zip(run.outputs, body.outputs, strict=True) if name in self.gradients}
        for moment in body.moments:
            place = placed(moment.place, run.layer)
            for number, size in moment.born:
                owner = Owner.GRADIENT if number in gradients else Owner.ACTIVATION
                inside[number] = self.memories.new(size, owner, place, run.host)
                self.memories.hold((inside[number],), 1)
            self.highest.mark(place, 0 if run.host else moment.workspace)
            self.memories.hold([inside.pop(number) for number in moment.died], -1)
        for name, number in zip(run.outputs, body.outputs, strict=True):
            self._bind(name, inside[number])
        self.memories.hold([*inside.values()], -1)
