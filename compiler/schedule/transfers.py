"""Completes orders of computing into a schedule: sends, receives, and what gradients need once a step.

In: for each device the order in which it computes. Out: the same with a send right after what makes a value, and
receives before what reads it. Messages between two devices arrive in the order in which they are sent (as NCCL and an
untagged gloo have it), so a receive stands before its reader *and* after the receives of whatever was sent earlier on
the same way: a message that is not needed yet is taken in on the way to one that is. That adds no wait that was not
there, because what was sent earlier has arrived earlier.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from .actions import COMPUTE, Action, Kind, Orders, Schedule, Shape, receiver, route

Way = tuple[int, int]  # (from, to)


def complete(name: str, shape: Shape, orders: Orders) -> Schedule:
    """The schedule of these orders. Asserts that orders hold nothing but computing."""
    assert len(orders) == shape.devices, f"{len(orders)} orders for {shape.devices} devices"
    sent: dict[Way, deque[Action]] = defaultdict(deque)
    for order in orders:
        for action in order:
            assert action.kind in COMPUTE, f"{action} is not computing"
            send = sending(action, shape)
            if send is not None:
                sent[route(send, shape)].append(receiver(send))
    actions = tuple(tuple(_filled(order, shape, sent)) for order in orders)
    return Schedule(name, shape, tuple((*ends, *_step_end(shape, d)) for d, ends in enumerate(actions)))


def sending(action: Action, shape: Shape) -> Action | None:
    """The send that follows an action of computing; None where the value stays on the device, or there is none."""
    kind, microbatch, chunk, part = action
    if kind is Kind.FORWARD and chunk < shape.last and shape.placement[chunk + 1] != shape.placement[chunk]:
        return Action(Kind.SEND_ACTIVATION, microbatch, chunk, part)
    if kind in (Kind.BACKWARD, Kind.INPUT) and chunk > 0 and shape.placement[chunk - 1] != shape.placement[chunk]:
        return Action(Kind.SEND_GRADIENT, microbatch, chunk, part)
    return None


def receiving(action: Action, shape: Shape) -> Action | None:
    """The receive that an action of computing needs before it; None where it reads what the device has."""
    kind, microbatch, chunk, part = action
    if kind is Kind.FORWARD and chunk > 0 and shape.placement[chunk - 1] != shape.placement[chunk]:
        return Action(Kind.RECEIVE_ACTIVATION, microbatch, chunk, part)
    backward = kind in (Kind.BACKWARD, Kind.INPUT)
    if backward and chunk < shape.last and shape.placement[chunk + 1] != shape.placement[chunk]:
        return Action(Kind.RECEIVE_GRADIENT, microbatch, chunk, part)
    return None


def _filled(order: Sequence[Action], shape: Shape, sent: dict[Way, deque[Action]]) -> Iterator[Action]:
    """One device's order with its messages. Takes what it receives out of `sent`."""
    taken: set[Action] = set()
    for action in order:
        receive = receiving(action, shape)
        while receive is not None and receive not in taken:
            queue = sent[route(receive, shape)]
            assert queue, f"nothing sends what {receive} takes"
            taken.add(queue[0])
            yield queue.popleft()
        yield action
        send = sending(action, shape)
        if send is not None:
            yield send


def _step_end(shape: Shape, device: int) -> Iterator[Action]:
    """Once a step: each chunk's gradients are reduced, then the device updates its parameters."""
    for chunk in shape.chunks(device):
        yield Action(Kind.REDUCE, chunk=chunk)
    yield Action(Kind.UPDATE)
