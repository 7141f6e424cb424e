"""What the devices of a plan hold: the chain that stages are cut from, and each device's peak with the stages it has.

In: parts, what `data` and ZeRO make of their parameters, a choice, its schedule's moments. Out: a `Load`, bytes. Where
the schedule has the backward in halves, what the weights' half reads stays until then; what a block needs for a moment
is then less in each half than in both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ..cost.cluster import Cluster
from ..schedule.forms import parse_form
from ..schedule.place import Block
from .flights import Flights
from .moments import momentary, updating
from .parts import Part, Parts
from .space import Choice
from .stages import Load, common, peak, stage_of
from .zero import Shared

Share = Callable[[Part, Choice], Shared]
Twice = tuple[int, int, int]  # two blocks by number, and what lasts of both
WHOLE = frozenset({"1f1b", "gpipe", "interleaved"})  # whose backward is not in halves


def in_halves(choice: Choice) -> bool:
    """Whether the weights' half of a backward runs when it suits."""
    return choice.pipe > 1 and parse_form(choice.schedule).name not in WHOLE


def load_of(
    parts: Parts, blocks: Sequence[Block], shared: tuple[Share, Share], choice: Choice, cluster: Cluster
) -> Load:
    """The chain of a choice whose backward is whole. shared: what becomes of a block's parameters, without those that a
    block before it has too, and with them."""
    every, none = parts.parts, [0] * len(parts.parts)
    own = max(parts.updating, parts.preparing if choice.microbatches > 1 else 0)
    alone, there = ([of(part, choice) for part in every] for of in shared)
    return Load(
        [block.compute_s for block in blocks],
        [block.static_bytes for block in blocks],
        [part.kept for part in every],
        momentary(every, choice, cluster),
        [one.late for one in there] if choice.microbatches == 1 else none,
        none,
        none,
        updating(own, every, choice, cluster),
        _twice(every, alone, there, choice.microbatches > 1) if choice.pipe > 1 else (),
        [part.crossing for part in every] if choice.pipe > 1 else (),
    )


def apart(load: Load, parts: Sequence[Part], choice: Choice, cluster: Cluster) -> Load:
    """The same where it is in halves."""
    first, late = (momentary(_each(parts, half), choice, cluster) for half in (_first, _late))
    return replace(load, momentary=first, held=[part.held for part in parts], late=late)


def _each(parts: Sequence[Part], made: Callable[[Part], Part]) -> list[Part]:
    """What is made of each; alike ones stay one object."""
    known = {id(part): part for part in parts}
    known = {name: made(part) for name, part in known.items()}
    return [known[id(part)] for part in parts]


def _first(part: Part) -> Part:
    """Its forward and the input's half of its backward."""
    return replace(part, momentary=part.first, making=part.first)


def _late(part: Part) -> Part:
    """The weights' half of its backward."""
    return replace(part, kept=part.held, momentary=part.late, making=part.late_making)


def device_bytes(load: Load, ends: Sequence[int], placement: Sequence[int], flights: Flights) -> Iterator[int]:
    """The peak of each device, from the first one on."""
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for cut, home in zip(pairwise((0, *ends)), placement, strict=True):
        places[home].append(cut)
    for device, where in sorted(places.items()):
        chunks = [stage_of(load, begin, end) for begin, end in where]
        yield peak(chunks, flights(device), load.updating) - (common(load, where) if load.twice else 0)


def _twice(every: Sequence[Part], alone: Sequence[Shared], there: Sequence[Shared], sums: bool) -> list[Twice]:
    """What lasts of weights that a block has, and one before it too. alone: without what those before it have."""
    number = {part.name: at for at, part in reversed(list(enumerate(every)))}

    def lasts(one: Shared) -> int:
        return one.static + (one.gradients if sums else 0)

    return [
        (min(number[name] for name, _ in part.tied), at, lasts(both) - lasts(own))
        for at, (part, own, both) in enumerate(zip(every, alone, there, strict=True))
        if part.tied and all(name in number for name, _ in part.tied)
    ]
