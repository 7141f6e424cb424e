"""Prices a schedule: when each action begins and ends, how long devices idle, what they keep at most.

In: a schedule and what each (chunk, microbatch, slice) takes. Out: a `Timeline`. A device computes one action at a
time, in its order; messages take nothing of its time, but those of one way follow one another: a message holds the way
for `transfer`, and is there `latency` after that. Ways are taken to have room (`verify` bounds them). Times may be
fractions: then everything is exact, and equals the closed formulas to the last digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

from .actions import RECEIVES, SENDS, Action, Kind, Schedule, receiver, route

Seconds = float | Fraction
FORWARD, WEIGHT = Kind.FORWARD, Kind.WEIGHT  # compared millions of times


@dataclass(frozen=True, slots=True)
class Price:
    """What one chunk takes for one slice of one microbatch.

    input, weight  the backward's halves; a whole backward takes their sum
    transfer       of its output to the next chunk, and of that output's gradient back
    kept_bytes     activations from the forward to the backward
    held_bytes     of these, what the weights' half still needs after the input's
    reduce, update once a step
    """

    forward: Seconds
    input: Seconds
    weight: Seconds
    transfer: Seconds = 0
    latency: Seconds = 0
    kept_bytes: int = 0
    held_bytes: int = 0
    reduce: Seconds = 0
    update: Seconds = 0

    def seconds(self, kind: Kind) -> Seconds:
        """How long the device is busy with an action."""
        if kind is Kind.FORWARD:
            return self.forward
        if kind is Kind.INPUT:
            return self.input
        if kind is Kind.WEIGHT:
            return self.weight
        if kind is Kind.BACKWARD:
            return self.input + self.weight
        return self.reduce if kind is Kind.REDUCE else self.update if kind is Kind.UPDATE else 0


Prices = Callable[[int, int, int], Price]  # (chunk, microbatch, slice)


def by_chunk(prices: Sequence[Price]) -> Prices:
    """One price a chunk, the same for every microbatch and slice."""
    return lambda chunk, microbatch, part: prices[chunk]


@dataclass(frozen=True, slots=True)
class Span:
    """An action on its device, or a message from its send to its arrival (then the device is the sender)."""

    device: int
    action: Action
    begin: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Timeline:
    """A schedule with times. `spans[d]`: what device d computes, in order; `messages`: in order of their begin."""

    schedule: Schedule
    spans: tuple[tuple[Span, ...], ...]
    messages: tuple[Span, ...]
    peak_bytes: tuple[int, ...]

    @property
    def makespan(self) -> Seconds:
        """From the first action's begin to the last's end."""
        return max((spans[-1].end for spans in self.spans if spans), default=0)

    def busy(self, device: int) -> Seconds:
        """How long a device computes."""
        total: Seconds = 0
        for span in self.spans[device]:
            total += span.end - span.begin
        return total

    @property
    def bubble(self) -> Seconds:
        """What the step takes beyond the work of its busiest device."""
        return self.makespan - max(self.busy(device) for device in range(len(self.spans)))

    @property
    def bubble_share(self) -> float:
        """The part of all devices' time in which they idle."""
        total = self.makespan * len(self.spans)
        return float(1 - sum(self.busy(d) for d in range(len(self.spans))) / total) if total else 0.0


def simulate(schedule: Schedule, prices: Prices, static_bytes: Sequence[int] | None = None) -> Timeline:
    """The timeline of a schedule that `verify` holds for. `static_bytes[d]`: what device d always has."""
    run = _Run(schedule, prices)
    run.all()
    static = static_bytes or [0] * len(schedule.actions)
    peaks = tuple(static[d] + _peak(actions, prices) for d, actions in enumerate(schedule.actions))
    messages = tuple(sorted(run.messages, key=lambda span: span.begin))
    return Timeline(schedule, tuple(tuple(spans) for spans in run.spans), messages, peaks)


def makespan(orders: Schedule, prices: Prices) -> Seconds:
    """When a schedule ends, from the order of its computing alone: what `simulate` finds once `complete` has written
    its messages down, in a third of the time."""
    count, placement = len(orders.actions), orders.shape.placement
    at, now, ways = [0] * count, list[Seconds]([0] * count), _Ways(placement, prices)
    moved = True
    while moved:
        moved = False
        for device, actions in enumerate(orders.actions):
            begin, time = at[device], now[device]
            for action in islice(actions, begin, None):
                kind, microbatch, chunk, part = action
                if kind is not WEIGHT:
                    read = ways.read[kind is FORWARD][chunk]
                    if read is not None:
                        arrival = read.get((microbatch, part))
                        if arrival is None:
                            break
                        time = max(time, arrival)
                time += prices(chunk, microbatch, part).seconds(kind)
                if kind is not WEIGHT:
                    ways.send(kind is FORWARD, microbatch, chunk, part, time)
                at[device] += 1
            now[device] = time
            moved = moved or at[device] > begin
    assert all(done == len(actions) for done, actions in zip(at, orders.actions, strict=True)), "devices wait for ever"
    for chunk, device in enumerate(placement):
        now[device] += prices(chunk, 0, 0).reduce
    return max(end + prices(0, 0, 0).update for end in now)


@dataclass(slots=True)
class _Way:
    """From one device to another. free: when the next message may begin; latest: when the last one is there."""

    free: Seconds = 0
    latest: Seconds = 0


Arrivals = dict[tuple[int, int], Seconds]  # (microbatch, slice)


@dataclass
class _Ways:
    """Messages between devices: those of one way follow one another, and none is taken in before an earlier one.

    read: of the backward, and of the forward, what each chunk reads; None where that is of its own device.
    """

    placement: Sequence[int]
    prices: Prices

    def __post_init__(self) -> None:
        homes, chunks = self.placement, range(len(self.placement))
        ways: defaultdict[tuple[int, int], _Way] = defaultdict(_Way)
        self.read: list[list[Arrivals | None]] = [
            [{} if 0 <= chunk + step < len(homes) and homes[chunk + step] != homes[chunk] else None for chunk in chunks]
            for step in (1, -1)
        ]
        self.ways = [
            [None if read is None else ways[homes[chunk + step], homes[chunk]] for chunk, read in enumerate(reads)]
            for step, reads in zip((1, -1), self.read, strict=True)
        ]

    def send(self, forward: bool, microbatch: int, chunk: int, part: int, now: Seconds) -> None:
        """What follows a forward or a backward, once it is done."""
        reader = chunk + 1 if forward else chunk - 1
        read = self.read[forward][reader] if 0 <= reader < len(self.placement) else None
        if read is None:
            return
        way, price = self.ways[forward][reader], self.prices(min(chunk, reader), microbatch, part)
        assert way is not None, "what reads of another device has a way from it"
        way.free = free = max(now, way.free) + price.transfer
        way.latest = latest = max(way.latest, free + price.latency)
        read[microbatch, part] = latest


@dataclass
class _Run:
    """Follows every device as far as its messages have been sent."""

    schedule: Schedule
    prices: Prices
    spans: list[list[Span]] = field(init=False)
    messages: list[Span] = field(init=False, default_factory=list[Span])
    arrival: dict[Action, Seconds] = field(init=False, default_factory=dict[Action, Seconds])
    free: dict[tuple[int, int], Seconds] = field(init=False, default_factory=dict[tuple[int, int], Seconds])

    def all(self) -> None:
        """Until every action is done. Asserts that none waits for ever."""
        count = len(self.schedule.actions)
        self.spans = [[] for _ in range(count)]
        at, now = [0] * count, list[Seconds]([0] * count)
        moved = True
        while moved:
            moved = False
            for device, actions in enumerate(self.schedule.actions):
                while at[device] < len(actions):
                    then = self._after(device, actions[at[device]], now[device])
                    if then is None:
                        break
                    now[device] = then
                    at[device] += 1
                    moved = True
        stuck = [d for d, actions in enumerate(self.schedule.actions) if at[d] < len(actions)]
        assert not stuck, f"devices {stuck} wait for ever: verify the schedule first"

    def _after(self, device: int, action: Action, now: Seconds) -> Seconds | None:
        """The device's time after an action; None where it waits for a message that is not sent yet."""
        if action.kind in RECEIVES:
            arrival = self.arrival.get(action)
            return None if arrival is None else max(now, arrival)
        if action.kind in SENDS:
            self._send(device, action, now)
            return now
        end = now + self.prices(action.chunk, action.microbatch, action.slice).seconds(action.kind)
        self.spans[device].append(Span(device, action, now, end))
        return end

    def _send(self, device: int, send: Action, now: Seconds) -> None:
        boundary = send.chunk if send.kind is Kind.SEND_ACTIVATION else send.chunk - 1  # the chunk whose output it is
        price = self.prices(boundary, send.microbatch, send.slice)
        way = route(send, self.schedule.shape)
        begin = max(now, self.free.get(way, 0))
        self.free[way] = begin + price.transfer
        self.arrival[receiver(send)] = end = begin + price.transfer + price.latency
        if end > begin:
            self.messages.append(Span(device, send, begin, end))


def _peak(actions: Sequence[Action], prices: Prices) -> int:
    """The most bytes of activations that a device keeps: they come with the forward, and go with the backward."""
    alive = most = 0
    for kind, microbatch, chunk, part in actions:
        price = prices(chunk, microbatch, part)
        if kind is Kind.FORWARD:
            alive += price.kept_bytes
        elif kind is Kind.BACKWARD:
            alive -= price.kept_bytes
        elif kind is Kind.INPUT:
            alive -= price.kept_bytes - price.held_bytes
        elif kind is Kind.WEIGHT:
            alive -= price.held_bytes
        most = max(most, alive)
    return most
