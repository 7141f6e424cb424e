"""Proves a schedule, or says which action of which device is wrong, and why.

In: a schedule, and bounds. Out: faults, none if it holds. What holds then:

- every (microbatch, chunk, slice) goes forward once and backward once, whole or in both halves, on the chunk's device,
  so each gradient is counted once; it is reduced after that, and the update comes last;
- each action stands after what it depends on; slices go forward in order and backward in reverse;
- every send has one receive, and messages between two devices are received in the order in which they are sent;
- nobody waits for ever where a way between two devices holds `buffers` messages. One run shows it: which device goes
  first never matters, because a device never chooses what to wait for (Kahn 1974);
- no device has more than `in_flight` forwards whose backward is not done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .actions import COMPUTE, RECEIVES, SENDS, Action, Kind, Schedule, Shape, receiver, route
from .transfers import receiving, sending

BUFFERS = 2  # messages that a way holds: one that is read, one that arrives


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: at `position` of the device's list (its length, where an action is missing)."""

    device: int
    position: int
    action: Action
    reason: str

    def __str__(self) -> str:
        return f"device {self.device}, action {self.position} ({self.action}): {self.reason}"


def verify(schedule: Schedule, buffers: int = BUFFERS, in_flight: Sequence[int] | None = None) -> list[Fault]:
    """Every fault of number and place; if there is none, the first of order or waiting, and those of memory.

    `buffers` is at least 1. `in_flight[d]`: how many (microbatch, chunk, slice) device d may hold; None: as many as
    there are.
    """
    assert buffers >= 1, "a way without a buffer stops any two devices that send to each other"
    faults = list(_counted(schedule))
    if not faults:
        faults = _Run(schedule, buffers).faults()
    if not faults and in_flight is not None:
        faults = list(_held(schedule, in_flight))
    return faults


def least_buffers(schedule: Schedule) -> int:
    """How many messages a way must hold at least, that nobody waits for ever. Asserts that some number will do."""
    most = max(1, *(len(actions) for actions in schedule.actions))
    assert not verify(schedule, most), f"{verify(schedule, most)[0]}"
    low, high = 0, 1  # low does not do
    while _Run(schedule, high).faults():
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _Run(schedule, middle).faults() else (low, middle)
    return high


def most_in_flight(schedule: Schedule) -> list[int]:
    """For each device, the most (microbatch, chunk, slice) whose forward has run and whose backward is not done."""
    return [max((count for _, count in _holding(actions)), default=0) for actions in schedule.actions]


def _holding(actions: Sequence[Action]) -> Iterator[tuple[int, int]]:
    """(position, how many are in flight there) of each forward."""
    alive = 0
    for position, action in enumerate(actions):
        if action.kind is Kind.FORWARD:
            alive += 1
            yield position, alive
        elif action.kind in (Kind.BACKWARD, Kind.WEIGHT):
            alive -= 1


def _held(schedule: Schedule, bounds: Sequence[int]) -> Iterator[Fault]:
    for device, actions in enumerate(schedule.actions):
        for position, count in _holding(actions):
            if count > bounds[device]:
                reason = f"{count} are in flight, {bounds[device]} fit into memory"
                yield Fault(device, position, actions[position], reason)
                break


# ---- number and place


def _counted(schedule: Schedule) -> Iterator[Fault]:
    """Actions that are nobody's, at the wrong device, twice or missing."""
    shape = schedule.shape
    for device, actions in enumerate(schedule.actions):
        wanted, seen = set(_wanted(shape, device)), set[Action]()
        for position, action in enumerate(actions):
            for piece in _pieces(action):
                if piece in seen:
                    yield Fault(device, position, action, "is done for the second time")
                elif piece not in wanted:
                    yield Fault(device, position, action, _why_unwanted(action, device, shape))
                else:
                    seen.add(piece)
                    continue
                break
        for action in sorted(wanted - seen, key=_place):
            yield Fault(device, len(actions), action, "is missing")


def _place(action: Action) -> tuple[int, int, int, str]:
    return (action.microbatch, action.chunk, action.slice, action.kind.value)


def _pieces(action: Action) -> tuple[Action, ...]:
    """A whole backward is both of its halves."""
    if action.kind is not Kind.BACKWARD:
        return (action,)
    return (Action(Kind.INPUT, *action[1:]), Action(Kind.WEIGHT, *action[1:]))


def _wanted(shape: Shape, device: int) -> Iterator[Action]:
    """What a device must do, a backward in halves."""
    for chunk in shape.chunks(device):
        yield Action(Kind.REDUCE, chunk=chunk)
        for microbatch, part in shape.units():
            for kind in (Kind.FORWARD, Kind.INPUT, Kind.WEIGHT):
                action = Action(kind, microbatch, chunk, part)
                yield action
                for message in (receiving(action, shape), sending(action, shape)):
                    if message is not None:
                        yield message
    yield Action(Kind.UPDATE)


def _why_unwanted(action: Action, device: int, shape: Shape) -> str:
    kind, microbatch, chunk, part = action
    if not 0 <= chunk <= shape.last:
        return f"there are {shape.last + 1} chunks"
    if shape.placement[chunk] != device:
        return f"chunk {chunk} is on device {shape.placement[chunk]}"
    if not 0 <= microbatch < shape.microbatches:
        return f"there are {shape.microbatches} microbatches"
    if not 0 <= part < shape.slices[microbatch]:
        return f"microbatch {microbatch} has {shape.slices[microbatch]} slices"
    return "there is nobody to send to or receive from" if kind in SENDS | RECEIVES else "nobody asks for it"


# ---- order and waiting


@dataclass
class _Run:
    """Runs the actions: every device as far as it gets, until all are done or nobody moves."""

    schedule: Schedule
    buffers: int
    done: set[Action] = field(init=False, default_factory=set[Action])
    ways: dict[tuple[int, int], deque[Action]] = field(init=False, default_factory=dict[tuple[int, int], deque[Action]])
    at: list[int] = field(init=False)
    left: Counter[int] = field(init=False)  # backwards that a chunk's reduce still waits for

    def __post_init__(self) -> None:
        shape = self.schedule.shape
        self.at = [0] * len(self.schedule.actions)
        self.left = Counter({chunk: sum(shape.slices) for chunk in range(shape.last + 1)})

    def faults(self) -> list[Fault]:
        """The first fault of order, or where everybody stands when nobody moves."""
        moved = True
        while moved:
            moved = False
            for device, actions in enumerate(self.schedule.actions):
                while self.at[device] < len(actions):
                    action = actions[self.at[device]]
                    fault = self._fault(device, action)
                    if fault is not None:
                        return [Fault(device, self.at[device], action, fault)]
                    if self._waits(action) is not None:
                        break
                    self._do(action)
                    self.at[device] += 1
                    moved = True
        return self._stuck()

    def _fault(self, device: int, action: Action) -> str | None:
        """What is wrong with running an action now that no waiting would mend."""
        if action.kind in RECEIVES:
            queue = self.ways.get(route(action, self.schedule.shape))
            if queue and queue[0] != action:
                return f"the {queue[0].kind.value} of {_unit(queue[0])} was sent before it on the same way"
            return None
        missing = next((need for need in self._needs(device, action) if need not in self.done), None)
        if missing is not None:
            return f"stands before what it needs, the {missing}"
        if action.kind is Kind.REDUCE and self.left[action.chunk]:
            return f"{self.left[action.chunk]} backwards of the chunk come after it"
        return None

    def _needs(self, device: int, action: Action) -> Iterator[Action]:
        """What must be done before, all of it on this device."""
        kind, microbatch, chunk, part = action
        shape = self.schedule.shape
        if kind is Kind.WEIGHT:
            yield Action(Kind.INPUT, microbatch, chunk, part)
        elif kind in COMPUTE:
            yield from self._forward_needs(action) if kind is Kind.FORWARD else self._backward_needs(action)
            receive = receiving(action, shape)
            if receive is not None:
                yield receive
        elif kind is Kind.SEND_ACTIVATION:
            yield Action(Kind.FORWARD, microbatch, chunk, part)
        elif kind is Kind.SEND_GRADIENT:
            yield Action(Kind.INPUT, microbatch, chunk, part)
        elif kind is Kind.UPDATE:
            yield from (Action(Kind.REDUCE, chunk=own) for own in shape.chunks(device))

    def _forward_needs(self, action: Action) -> Iterator[Action]:
        """The earlier slice, whose keys and values it reads, and a previous chunk on the same device."""
        _, microbatch, chunk, part = action
        placement = self.schedule.shape.placement
        if part:
            yield Action(Kind.FORWARD, microbatch, chunk, part - 1)
        if chunk and placement[chunk - 1] == placement[chunk]:
            yield Action(Kind.FORWARD, microbatch, chunk - 1, part)

    def _backward_needs(self, action: Action) -> Iterator[Action]:
        """Its forward, the backward of the later slice, and that of a next chunk on the same device."""
        _, microbatch, chunk, part = action
        shape = self.schedule.shape
        yield Action(Kind.FORWARD, microbatch, chunk, part)
        if part + 1 < shape.slices[microbatch]:
            yield Action(Kind.INPUT, microbatch, chunk, part + 1)
        if chunk < shape.last and shape.placement[chunk + 1] == shape.placement[chunk]:
            yield Action(Kind.INPUT, microbatch, chunk + 1, part)

    def _waits(self, action: Action) -> str | None:
        """What a message waits for, if it does."""
        if action.kind in RECEIVES:
            way = route(action, self.schedule.shape)
            return None if self.ways.get(way) else f"waits for device {way[0]} to send"
        if action.kind in SENDS:
            way = route(action, self.schedule.shape)
            full = len(self.ways.setdefault(way, deque())) >= self.buffers
            return f"waits for device {way[1]} to receive, {self.buffers} messages are on the way" if full else None
        return None

    def _do(self, action: Action) -> None:
        if action.kind in SENDS:
            self.ways[route(action, self.schedule.shape)].append(receiver(action))
        elif action.kind in RECEIVES:
            self.ways[route(action, self.schedule.shape)].popleft()
        elif action.kind in (Kind.BACKWARD, Kind.WEIGHT):
            self.left[action.chunk] -= 1
        self.done.update(_pieces(action))

    def _stuck(self) -> list[Fault]:
        """One fault for each device that waits for ever."""
        found: list[Fault] = []
        for device, actions in enumerate(self.schedule.actions):
            if self.at[device] < len(actions):
                action = actions[self.at[device]]
                found.append(Fault(device, self.at[device], action, f"{self._waits(action)}, for ever"))
        return found


def _unit(action: Action) -> str:
    return f"microbatch {action.microbatch}, chunk {action.chunk}" + (f", slice {action.slice}" if action.slice else "")
