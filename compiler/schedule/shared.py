"""How long a schedule takes where devices share cores: with n of them at work and c cores, each goes at c / n its pace.

In: a schedule that `verify` holds for, the prices of its actions on a device that has a core to itself, how many may
work at once at that pace (a fraction, where each stage is several devices). Out: seconds. Who waits for a message takes
nothing of a core, so a pipeline on few cores is bound by all of its work together as by the way through its stages.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from .actions import RECEIVES, SENDS, Action, Kind, Schedule, receiver, route
from .simulate import Prices


def shared_seconds(schedule: Schedule, prices: Prices, abreast: float) -> float:
    """From the first action's begin to the last one's end."""
    return _Crowd(schedule, prices, abreast).all()


@dataclass
class _Crowd:
    """All devices on one clock. done: the work that each device at work has done so far, all of it equal at a time."""

    schedule: Schedule
    prices: Prices
    abreast: float
    now: float = 0.0
    done: float = 0.0
    at: list[int] = field(default_factory=list[int])
    work: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])  # until done is so much, a device
    coming: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])  # until it is so late, a device
    waiting: dict[Action, int] = field(default_factory=dict[Action, int])  # for a message that is not sent yet
    arrival: dict[Action, float] = field(default_factory=dict[Action, float])
    free: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])

    def all(self) -> float:
        """Until every action is done. Asserts that none waits for ever."""
        self.at = [0] * len(self.schedule.actions)
        for device in range(len(self.at)):
            self._go_on(device)
        while self.work or self.coming:
            pace = min(1.0, self.abreast / len(self.work)) if self.work else 1.0
            ready = self.now + (self.work[0][0] - self.done) / pace if self.work else float("inf")
            if self.coming and self.coming[0][0] <= ready:
                then, device = heapq.heappop(self.coming)
                self.done += pace * (then - self.now)
            else:
                then, (self.done, device) = ready, heapq.heappop(self.work)
            self.now = then
            self._go_on(device)
        assert not self.waiting, f"devices {[*self.waiting.values()]} wait for ever: verify the schedule first"
        return self.now

    def _go_on(self, device: int) -> None:
        """The next actions of a device, up to one that takes time."""
        actions = self.schedule.actions[device]
        while self.at[device] < len(actions):
            action = actions[self.at[device]]
            self.at[device] += 1
            if action.kind in RECEIVES:
                if action not in self.arrival:
                    self.waiting[action] = device
                    return
                if self.arrival[action] > self.now:
                    heapq.heappush(self.coming, (self.arrival[action], device))
                    return
            elif action.kind in SENDS:
                self._send(action)
            else:
                price = self.prices(action.chunk, action.microbatch, action.slice)
                heapq.heappush(self.work, (self.done + float(price.seconds(action.kind)), device))
                return

    def _send(self, send: Action) -> None:
        """As `simulate` has it: messages of one way follow one another."""
        boundary = send.chunk if send.kind is Kind.SEND_ACTIVATION else send.chunk - 1  # the chunk whose output it is
        price = self.prices(boundary, send.microbatch, send.slice)
        way = route(send, self.schedule.shape)
        begin = max(self.now, self.free.get(way, 0.0))
        self.free[way] = begin + float(price.transfer)
        there = receiver(send)
        self.arrival[there] = self.free[way] + float(price.latency)
        if there in self.waiting:
            heapq.heappush(self.coming, (self.arrival[there], self.waiting.pop(there)))
