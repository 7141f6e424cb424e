"""What the optimizer's state and its update cost where they lie on the host: bytes of both sides, seconds.

In: a model's parts, a device's host. Out: the parts as a device has them then, and the seconds of copies that nothing
hides. Gradients go down once a step, beside the backward where each is whole as it is made, which it is in a lone
microbatch that nobody shares. Parameters come up beside a lone microbatch's forward; where there are several, or
stages, they are there before the first begins.

    update = max(on the device, (2 s + 2 p' + g) / memory)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..cost.host import Host
from .parts import Part, Parts, Weights


@dataclass(frozen=True, slots=True)
class Hosting:
    """alone: whether each gradient goes down where it is made. beside: whether parameters come up while it computes."""

    host: Host
    alone: bool
    beside: bool


def offloaded(parts: Parts, hosting: Hosting) -> Parts:
    """What a device keeps of parts whose optimizer lies on its host; an update there takes no less than here."""
    known: dict[int, Weights] = {}
    made: dict[int, Part] = {}  # alike layers stay one object

    def moved(own: Weights) -> Weights:
        if id(own) not in known:
            traffic = 2 * own.states + 2 * (own.master or own.computed) + own.gradient_bytes
            update = max(own.update_s, hosting.host.traffic_s(traffic))
            gradients = () if hosting.alone else own.gradients
            known[id(own)] = Weights(0, own.computed, own.behind, 0, gradients, own.read, own.launch_s, update)
        return known[id(own)]

    def part(one: Part) -> Part:
        return replace(one, weights=moved(one.weights), own=moved(one.own))

    for one in parts.parts:
        made[id(one)] = made.get(id(one)) or part(one)
    return replace(parts, parts=tuple(made[id(one)] for one in parts.parts), updating=0)


def waiting_s(parts: Sequence[Part], hosting: Hosting, share: int) -> float:
    """Seconds of copies that some blocks' forward and backward do not hide. share: devices that ZeRO cuts states over.

    The parts are those of the device, before anything lies on the host.
    """
    down, up = (sum(p.own.gradient_bytes for p in parts), sum(sum(p.own.read) for p in parts))
    backward = sum(part.input_s + part.weight_s for part in parts) if hosting.alone else 0.0
    forward = sum(part.forward_s for part in parts) if hosting.beside else 0.0
    return hosting.host.waiting_s(down / share, up / share, backward, forward)


def host_bytes(parts: Sequence[Part], share: int, activations: int = 0) -> int:
    """What lies on the host of one device: states, what they update, and gradients, which come as activations go."""
    lasting = sum(p.own.states + (p.own.master or p.own.computed) for p in parts) // share
    return lasting + max(sum(p.own.gradient_bytes for p in parts) // share, activations)
