"""Token slices as a schedule of plans: what they take and what they hold, from one step of few layers in two slices.

In: the device's graph of a thin step whose rows are two slices, how stages are cut, what else a stage takes. Out: of a
row's slices seconds by the simulated schedule and bytes by what is in flight: activations of each slice from its
forward to its backward, keys and values of earlier slices among them. Slices are tried where a microbatch has one row
(several are better cut themselves) and a step no more microbatches than stages: with more of them they fill the
pipeline. What is tried is finite: 2, 4, 8 or 16 equal slices, and those of the dynamic program (`advised`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ..cost.cluster import Link
from ..schedule.actions import Action, Kind
from ..schedule.advice import EQUAL, Pipe, candidates, equal_lengths, unit_of
from ..schedule.forms import TOKEN_SLICES, Form, computing, parse_form
from ..schedule.simulate import Price
from ..schedule.sliced import SlicedBlocks

ADVISED = TOKEN_SLICES  # a schedule of the space: the lengths that are found to be best
STAGES = 1  # of ZeRO, the highest: from 2 on gradients are sent for each microbatch, whole
LEAST_SHARE = 0.5  # of a whole row's time: attention reads half of the keys at the least, all else is as it was


def schedules(tokens: int) -> tuple[str, ...]:
    """Those that are tried for rows of so many tokens."""
    return (ADVISED, *(f"{TOKEN_SLICES}({n})" for n in EQUAL if tokens % n == 0 and tokens > n))


@dataclass
class Slicing:
    """One unit's slices. blocks: of a thin step on one device, bytes in the place of a message's seconds. at: of each
    block of the whole model the one that stands for it. shortest: of slices, where shorter ones were not timed."""

    blocks: SlicedBlocks
    at: Sequence[int]
    tokens: int
    rows: int
    shortest: int = 1
    _chunks: dict[tuple[int, int, int, int], Price] = field(default_factory=dict[tuple[int, int, int, int], Price])
    _candidates: dict[object, list[tuple[int, ...]]] = field(default_factory=dict[object, list[tuple[int, ...]]])

    def chunk(self, begin: int, end: int, length: int, context: int) -> Price:
        """Blocks one after the other. `transfer`: the bytes of what goes over their end."""
        key = (begin, end, length, context)
        if key not in self._chunks:
            some = [self.blocks.price(at, self.rows, length, context) for at in self.at[begin:end]]
            self._chunks[key] = Price(
                sum(p.forward for p in some), sum(p.input for p in some), sum(p.weight for p in some),
                some[-1].transfer,
            )  # fmt: skip
        return self._chunks[key]

    def least_s(self, begin: int, end: int) -> float:
        """No slices of a row take less in blocks one after the other."""
        return sum(
            often * self.blocks.least_s(at, self.rows, self.tokens, LEAST_SHARE)
            for at, often in Counter(self.blocks.alike[at] for at in self.at[begin:end]).items()
        )

    def kept(self, begin: int, end: int, length: int, context: int) -> list[int]:
        """Of each block the bytes that its backward reads of the forward."""
        return [self.blocks.price(at, self.rows, length, context).kept_bytes for at in self.at[begin:end]]

    def first(self, schedule: str) -> int:
        """The least tokens of a row's first slice."""
        if schedule == ADVISED:
            return unit_of(self.tokens, self.shortest)
        lengths = parse_form(schedule).lengths(self.tokens)
        return lengths[0] if lengths else 0

    def lengths(self, schedule: str, pipe: Pipe, halves: object) -> tuple[int, ...] | None:
        """The slices that a schedule has; None where the best ones are others that are tried already. halves: what
        says how long slices take, but for what follows them."""
        if schedule != ADVISED:
            return parse_form(schedule).lengths(self.tokens)
        known = {(self.tokens,), *equal_lengths(self.tokens)}
        if halves not in self._candidates:
            self._candidates[halves] = candidates(pipe, self.shortest)
        own = [lengths for lengths in self._candidates[halves] if lengths not in known]
        return min(own, key=lambda lengths: (pipe.seconds(lengths), lengths), default=None)


def written(lengths: Sequence[int]) -> str:
    """As the language has it."""
    return f"{TOKEN_SLICES}({', '.join(map(str, lengths))})"


@dataclass(frozen=True)
class Around:
    """What stands around the slices of a plan, chunk by chunk.

    cuts     where its blocks begin and end
    added    what `data` and ZeRO add to a whole microbatch's halves
    once_s   what follows the microbatches: reductions and updates
    lasting  bytes, gradients among them: every slice adds to them
    blocks   of all blocks, as whole rows have them: bytes kept, needed for a moment of activations, and in all
    """

    cuts: Sequence[tuple[int, int]]
    microbatches: int
    link: Link
    added: Sequence[Price]
    once_s: Sequence[float]
    lasting: Sequence[int]
    blocks: Sequence[tuple[int, int, int]]
    updating: int
    abreast: float | None


@dataclass(frozen=True)
class InSlices:
    """seconds: of a step, without what is common to all devices. balance: blocks a stage."""

    schedule: str
    seconds: float
    stage_bytes: tuple[int, ...]
    balance: tuple[int, ...]


def least_s(slicing: Slicing, schedule: str, around: Around) -> float:
    """No slices of a schedule take less: some stage is busy for so long, after the stages before it have sent it the
    first slice and before they go backward through it, which comes last."""
    length, whole = slicing.first(schedule), slicing.tokens
    found = down = up = 0.0
    for cut, more, once in zip(around.cuts, around.added, around.once_s, strict=True):
        added = float(more.forward), float(more.input) + float(more.weight)
        busy = around.microbatches * (slicing.least_s(*cut) + sum(added))
        found = max(found, down + busy + max(once, up))
        one = slicing.chunk(*cut, length, 0)
        down += float(one.forward) + length / whole * added[0]
        up += float(one.input) + float(one.weight) + length / whole * added[1]
    return found


def in_slices(slicing: Slicing, schedule: str, around: Around) -> InSlices | None:
    """The price of a plan's slices; None where its schedule has none of its own."""
    link = around.link

    def price(chunk: int, length: int, context: int) -> Price:
        one, added, part = slicing.chunk(*around.cuts[chunk], length, context), around.added[chunk], length / whole
        return Price(
            one.forward + part * added.forward, one.input + part * added.input, one.weight + part * added.weight,
            float(one.transfer) / link.bandwidth_bytes_per_s, link.latency_s if one.transfer else 0.0,
            reduce=around.once_s[chunk],
        )  # fmt: skip

    whole = slicing.tokens
    kinds = {(tuple(slicing.blocks.alike[at] for at in slicing.at[begin:end]), added): chunk
             for chunk, ((begin, end), added) in enumerate(zip(around.cuts, around.added, strict=True))}  # fmt: skip
    pipe = Pipe(len(around.cuts), around.microbatches, whole, price, around.abreast, tuple(kinds.values()))
    halves = tuple(around.cuts), around.microbatches, link, tuple(around.added)
    lengths = slicing.lengths(schedule, pipe, halves)
    if lengths is None:
        return None
    held = peaks([_stays(slicing, around, cut, lengths) for cut in around.cuts], around.microbatches)
    bytes_ = tuple(a + max(b, around.updating) for a, b in zip(around.lasting, held, strict=True))
    balance = tuple(end - begin for begin, end in around.cuts)
    return InSlices(written(lengths) if schedule == ADVISED else schedule, pipe.seconds(lengths), bytes_, balance)


# ---- memory


@dataclass(frozen=True)
class Stay:
    """What a slice holds on a stage. kept: from its forward to its backward; most: while it computes, `kept` and what
    is there for a moment."""

    kept: int
    most: int


def _stays(slicing: Slicing, around: Around, cut: tuple[int, int], lengths: Sequence[int]) -> list[Stay]:
    """Of each slice on a stage. What whole rows keep is known better than by their graph alone: slices keep their part
    of it, and what keys and values of earlier slices are more."""
    blocks, whole = around.blocks[cut[0] : cut[1]], slicing.kept(*cut, slicing.tokens, 0)
    found: list[Stay] = []
    for length, context in zip(lengths, accumulate((0, *lengths)), strict=False):
        part, here, most = length / slicing.tokens, 0.0, 0.0
        for own, all_, (kept, activations, moment) in zip(
            slicing.kept(*cut, length, context), whole, blocks, strict=True
        ):
            here += own - part * (all_ - kept)
            most = max(most, here + moment - (1 - part) * activations)
        found.append(Stay(round(here), round(most)))
    return found


def peaks(stages: Sequence[Sequence[Stay]], microbatches: int) -> list[int]:
    """Of each stage the most bytes that slices hold there at one time. stages: stage -> slice."""
    form = Form(TOKEN_SLICES, slices=(1,) * len(stages[0]))
    orders = computing(form, len(stages), microbatches).actions
    return [_peak(order, stays) for order, stays in zip(orders, stages, strict=True)]


def _peak(order: Sequence[Action], stays: Sequence[Stay]) -> int:
    alive = most = 0
    for action in order:
        stay = stays[action.slice]
        if action.kind is Kind.FORWARD:
            most = max(most, alive + stay.most)
            alive += stay.kept
        else:
            alive -= stay.kept
            most = max(most, alive + stay.most)
    return most
