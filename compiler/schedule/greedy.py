"""A list scheduler: finds orders for any placement, where nobody has written down a rule.

Time runs; whenever a device is free it takes, of what is ready, a backward's input half first (others wait for it),
then a forward, the furthest chunk first, as long as memory has room, then a weights' half, for which nobody waits. A
forward of an earlier chunk leaves room for one of each later chunk of its device, so that what has begun can always
end. On a V placement with equal times this is ZB-V (Qi et al. 2024, section 5): 2p half-sized activations, the bubble
of the first forward's way down.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .actions import Action, Kind, Shape
from .simulate import Price, Prices, Seconds

EQUAL = Price(1, 1, 1)


def equal(chunk: int, microbatch: int, part: int) -> Price:
    """Forward, input's half and weights' half take the same, messages nothing."""
    return EQUAL


def greedy(shape: Shape, prices: Prices = equal, in_flight: int | None = None) -> list[list[Action]]:
    """The orders. `in_flight`: how many (microbatch, chunk, slice) a device may hold, at least a microbatch's own.

    Without it v (p + S - 1), with v chunks a device and S slices: as much as 1F1B's first device.
    """
    chunks, slices = max(len(shape.chunks(d)) for d in range(shape.devices)), max(shape.slices)
    usual = chunks * (shape.devices + slices - 1)
    return _Greedy(shape, prices, max(in_flight or usual, chunks * slices)).run()


@dataclass
class _Greedy:
    """The state of all devices: what is done when, who is free when, what each chunk does next."""

    shape: Shape
    prices: Prices
    limit: int
    looks: list[tuple[Seconds, int]] = field(init=False, default_factory=list[tuple[Seconds, int]])

    def __post_init__(self) -> None:
        devices, chunks = self.shape.devices, self.shape.last + 1
        self.last, self.longest = self.shape.last, max(self.shape.slices)
        self.forwards, self.backwards = list(self.shape.units()), list(self.shape.backward_units())
        self.chunks = [self.shape.chunks(d) for d in range(devices)]
        self.orders: list[list[Action]] = [[] for _ in range(devices)]
        self.free: list[Seconds] = [0] * devices
        self.taken = [0] * devices  # (microbatch, chunk, slice) in flight, of begun microbatches all slices
        self.waiting: list[deque[Action]] = [deque() for _ in range(devices)]  # weights' halves
        self.next_forward, self.next_backward = [0] * chunks, [0] * chunks
        # of each chunk when its forwards and its inputs' halves, in order, are there for whoever reads them
        self.outputs: list[list[Seconds]] = [[] for _ in range(chunks)]
        self.gradients: list[list[Seconds]] = [[] for _ in range(chunks)]
        ends = {microbatch: at for at, (microbatch, _) in enumerate(self.forwards)}
        self.turns = [ends[microbatch] for microbatch, _ in self.backwards]  # the last forward of a backward's own

    def run(self) -> list[list[Action]]:
        """Looks at a device whenever it gets free or something arrives for it."""
        self.looks = [(0, d) for d in range(self.shape.devices)]
        while self.looks:
            now, device = heapq.heappop(self.looks)
            action = self._choice(device, now) if self.free[device] <= now else None
            if action is not None:
                self._start(device, action, now)
        count = 3 * len(self.forwards) * (self.shape.last + 1)
        assert sum(map(len, self.orders)) == count, f"the list schedule stopped with {self.limit} in flight"
        return self.orders

    def _choice(self, device: int, now: Seconds) -> Action | None:
        """A backward's input half, else a forward, else a weights' half; the furthest chunk first."""
        for chunk in reversed(self.chunks[device]):
            number = self.next_backward[chunk]
            if number < len(self.backwards):
                behind = chunk < self.last
                there = self.gradients[chunk + 1] if behind else self.outputs[chunk]
                if _is_there(there, number if behind else self.turns[number], now):
                    microbatch, part = self.backwards[number]
                    return Action(Kind.INPUT, microbatch, chunk, part)
        for later, chunk in enumerate(reversed(self.chunks[device])):
            number = self.next_forward[chunk]
            if number < len(self.forwards) and (chunk == 0 or _is_there(self.outputs[chunk - 1], number, now)):
                microbatch, part = self.forwards[number]
                if self._room(device, later, microbatch, part):
                    return Action(Kind.FORWARD, microbatch, chunk, part)
        return self.waiting[device][0] if self.waiting[device] else None

    def _room(self, device: int, later: int, microbatch: int, part: int) -> bool:
        """Whether a microbatch with all its slices may begin on a chunk: one of each later chunk must fit as well."""
        after = self.taken[device] + self.shape.slices[microbatch] + later * self.longest
        return part > 0 or after <= self.limit

    def _start(self, device: int, action: Action, now: Seconds) -> None:
        kind, microbatch, chunk, part = action
        price = self.prices(chunk, microbatch, part)
        self.orders[device].append(action)
        self.free[device] = end = now + price.seconds(kind)
        heapq.heappush(self.looks, (end, device))
        if kind is Kind.WEIGHT:
            self.waiting[device].popleft()
            self.taken[device] -= 1
            return
        step = 1 if kind is Kind.FORWARD else -1
        if kind is Kind.FORWARD:
            self.next_forward[chunk] += 1
            self.taken[device] += self.shape.slices[microbatch] if part == 0 else 0
        else:
            self.next_backward[chunk] += 1
            self.waiting[device].append(Action(Kind.WEIGHT, microbatch, chunk, part))
        arrival = end
        if 0 <= chunk + step <= self.last:
            reader = self.shape.placement[chunk + step]
            if reader != device:
                boundary = self.prices(min(chunk, chunk + step), microbatch, part)
                arrival = end + boundary.transfer + boundary.latency
            heapq.heappush(self.looks, (arrival, reader))
        (self.outputs if kind is Kind.FORWARD else self.gradients)[chunk].append(arrival)


def _is_there(arrivals: Sequence[Seconds], number: int, now: Seconds) -> bool:
    return number < len(arrivals) and arrivals[number] <= now
