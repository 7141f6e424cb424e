"""Whether the devices of a mesh wait for one another in vain: their programs are run without tensors, before launch.

In: a build. Out: what does not fit together, none if it does: collectives of one axis that are begun in another order,
or with other shapes, by devices that meet there; messages without a receiver or a sender; devices that wait for ever
where no more messages of a kind may be on their way than the program says; what comes up from the host before its
microbatch has sent it down. One run shows it: a device never chooses
what to wait for, so which goes first never matters (Kahn 1974). What a schedule proves of chunks (`schedule/verify.py`)
is proven here of the very instructions, with the collectives inside the stages and at the step's end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...runtime.program import Build, Collective, Fetch, Instruction, Offload, Program, Receive, Send, Wait

Meeting = tuple[tuple[int, ...], str, int]  # who meets, along which axis, for the how-manieth time
Letter = tuple[int, int, int, int]  # from, to, tag, microbatch


def disagreements(build: Build, name: str) -> list[str]:
    """What is wrong with a program of a build, in words."""
    return _Run(build, name).faults()


@dataclass(slots=True)
class _Device:
    """How far one device is, and what it has begun: buffer and microbatch -> where that is decided."""

    rank: int
    steps: Iterator[tuple[str, int, Instruction]]
    now: tuple[str, int, Instruction] | None
    flying: dict[tuple[str, int], Meeting | Letter] = field(default_factory=dict[tuple[str, int], Meeting | Letter])
    begun: Counter[str] = field(default_factory=Counter[str])
    hosted: dict[str, set[int]] = field(default_factory=dict[str, set[int]])  # what copies put there: of which by now

    def where(self) -> str:
        """In words."""
        assert self.now is not None, "it is done"
        part, number, _ = self.now
        return f"rank {self.rank}, in `{part}`" + (f" of microbatch {number}" if number >= 0 else "")


class _Run:
    """All devices, each as far as it gets, until all are done or nobody moves."""

    def __init__(self, build: Build, name: str) -> None:
        self.build = build
        self.came: dict[Meeting, dict[int, tuple[object, ...]]] = {}
        self.sent: set[Letter] = set()
        self.posted: set[Letter] = set()
        self.under_way: Counter[tuple[int, int]] = Counter()  # (sender, tag)
        self.devices: list[_Device] = []
        for rank in range(build.mesh.size):
            program = build.programs_of(rank)[name]
            steps, down = _steps(program), (i.output for i in program.instructions() if isinstance(i, Offload))
            self.devices.append(_Device(rank, steps, next(steps, None), hosted={one: set[int]() for one in down}))

    def faults(self) -> list[str]:
        """The first thing that does not fit, or where everybody stands when nobody moves."""
        moved = True
        while moved:
            moved = False
            for device in self.devices:
                while device.now is not None and not self._waits(device):
                    fault = self._do(device)
                    if fault is not None:
                        return [f"{device.where()}: {fault}"]
                    device.now = next(device.steps, None)
                    moved = True
        stuck = [f"{device.where()}: waits for ever" for device in self.devices if device.now is not None]
        lost = [
            f"rank {a} sends message {tag} to rank {b}, which takes none" for a, b, tag, _ in self.sent - self.posted
        ]
        return stuck or sorted(set(lost))

    def _waits(self, device: _Device) -> bool:
        assert device.now is not None, "it is done"
        _, number, instruction = device.now
        if isinstance(instruction, Send):
            return self.under_way[device.rank, instruction.tag] >= instruction.ahead
        if not isinstance(instruction, Wait):
            return False
        return not all(self._is_there(device.flying.get((name, number))) for name in instruction.buffers)

    def _is_there(self, what: Meeting | Letter | None) -> bool:
        if what is None:  # waited for before
            return True
        if len(what) == 4:
            return what in self.sent
        return len(self.came[what]) == len(what[0])

    def _do(self, device: _Device) -> str | None:
        assert device.now is not None, "it is done"
        _, number, instruction = device.now
        if isinstance(instruction, Collective):
            return self._meet(device, number, instruction)
        if isinstance(instruction, Send):
            letter = (device.rank, self._peer(device, instruction.axis, instruction.to), instruction.tag, number)
            if letter in self.sent:
                return f"message {instruction.tag} is sent for the second time"
            self.sent.add(letter)
            self.under_way[device.rank, instruction.tag] += letter not in self.posted
        elif isinstance(instruction, Receive):
            source = self._peer(device, instruction.axis, instruction.source)
            letter = (source, device.rank, instruction.tag, number)
            self.posted.add(letter)
            self.under_way[source, instruction.tag] -= letter in self.sent
            device.flying[instruction.output, number] = letter
        elif isinstance(instruction, Wait):
            for name in instruction.buffers:
                device.flying.pop((name, number), None)
        elif isinstance(instruction, Offload):
            device.hosted[instruction.output].add(number)
        elif isinstance(instruction, Fetch) and number not in device.hosted.get(instruction.input, (number,)):
            return f"{instruction.input} comes up before it has gone down"
        return None

    def _peer(self, device: _Device, axis: str, place: int) -> int:
        return self.build.mesh.along(device.rank, axis)[1][place]

    def _meet(self, device: _Device, number: int, sent: Collective) -> str | None:
        peers = self.build.mesh.along(device.rank, sent.axis)[1]
        meeting = (peers, sent.axis, device.begun[sent.axis])
        device.begun[sent.axis] += 1
        known = self.came.setdefault(meeting, {})
        asked = (sent.kind, sent.dtype, sent.reduction, sent.dims, sent.sizes, len(sent.inputs))
        for other, what in known.items():
            if what != asked:
                return f"begins {asked} along {sent.axis} where rank {other} begins {what}"
        known[device.rank] = asked
        device.flying.update({(name, number): meeting for name in sent.outputs})
        return None


def _steps(program: Program) -> Iterator[tuple[str, int, Instruction]]:
    """Every instruction of a run, with its part and microbatch (-1: of none). A pipeline's buffers are each its own."""
    yield from (("prepare", -1, one) for one in program.prepare)
    lone = program.microbatches == 1 or not program.order
    for part, number, instructions in program.turns():
        yield from ((part, -1 if lone else number, one) for one in instructions)
    yield from (("update", -1, one) for one in program.update)
