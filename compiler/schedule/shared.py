"""How long a schedule takes where devices share cores: with n of them at work and c cores, each goes at c / n its pace.

In: a schedule that `verify` holds for, the prices of its actions on a device that has a core to itself, how many may
work at once at that pace (a fraction, where each stage is several devices). Out: seconds. Messages are the cores' work
too, beside the devices': copies, and processes that must be woken; those of one way follow one another. Who waits for
one takes nothing of a core, so a pipeline on few cores is bound by all of its work together as by the way through its
stages.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from .actions import RECEIVES, SENDS, Action, Kind, Schedule, receiver, route
from .simulate import Prices

_Way = tuple[int, int]
_Job = int | _Way  # a device that computes, or a way that has a message on it


def shared_seconds(schedule: Schedule, prices: Prices, abreast: float) -> float:
    """From the first action's begin to the last one's end."""
    return _Crowd(schedule, prices, abreast).all()


@dataclass
class _Crowd:
    """All jobs on one clock. done: the work that each job has done so far, all of it equal at a time."""

    schedule: Schedule
    prices: Prices
    abreast: float
    now: float = 0.0
    done: float = 0.0
    begun: int = 0
    at: list[int] = field(default_factory=list[int])
    work: list[tuple[float, int, _Job]] = field(default_factory=list[tuple[float, int, _Job]])  # until done is so much
    waiting: dict[Action, int] = field(default_factory=dict[Action, int])  # for a message, a device
    arrived: set[Action] = field(default_factory=set[Action])
    ways: dict[_Way, deque[Action]] = field(default_factory=dict[_Way, deque[Action]])  # what is sent and not there yet

    def all(self) -> float:
        """Until every action is done. Asserts that none waits for ever."""
        self.at = [0] * len(self.schedule.actions)
        for device in range(len(self.at)):
            self._go_on(device)
        while self.work:
            pace = min(1.0, self.abreast / len(self.work))
            until, _, job = heapq.heappop(self.work)
            self.now += (until - self.done) / pace
            self.done = until
            if isinstance(job, int):
                self._go_on(job)
            else:
                self._arrive(job)
        assert not self.waiting, f"devices {[*self.waiting.values()]} wait for ever: verify the schedule first"
        return self.now

    def _begin(self, job: _Job, seconds: float) -> None:
        self.begun += 1  # among equals the first
        heapq.heappush(self.work, (self.done + seconds, self.begun, job))

    def _go_on(self, device: int) -> None:
        """The next actions of a device, up to one that takes time."""
        actions = self.schedule.actions[device]
        while self.at[device] < len(actions):
            action = actions[self.at[device]]
            self.at[device] += 1
            if action.kind in RECEIVES:
                if action not in self.arrived:
                    self.waiting[action] = device
                    return
            elif action.kind in SENDS:
                self._send(action)
            else:
                price = self.prices(action.chunk, action.microbatch, action.slice)
                self._begin(device, float(price.seconds(action.kind)))
                return

    def _send(self, send: Action) -> None:
        way = route(send, self.schedule.shape)
        queue = self.ways.setdefault(way, deque())
        queue.append(send)
        if len(queue) == 1:
            self._begin(way, self._message_s(send))

    def _message_s(self, send: Action) -> float:
        boundary = send.chunk if send.kind is Kind.SEND_ACTIVATION else send.chunk - 1  # the chunk whose output it is
        price = self.prices(boundary, send.microbatch, send.slice)
        return float(price.transfer) + float(price.latency)

    def _arrive(self, way: _Way) -> None:
        """What went first on a way is there; the next one sets out."""
        queue = self.ways[way]
        there = receiver(queue.popleft())
        if queue:
            self._begin(way, self._message_s(queue[0]))
        self.arrived.add(there)
        if there in self.waiting:
            self._go_on(self.waiting.pop(there))
