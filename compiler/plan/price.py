"""The price of one plan: seconds of a step and bytes of each device.

In: a choice, the parts of its unit, the cluster, what a device may hold. Out: `Priced`, or None where it does not fit.
What `data` and ZeRO add is `zero.py`'s, what stages tell one another once a step `ends.py`'s. Stages are placed by
`stages.py`, their time is the simulated schedule's (`steady.py`), that of token slices `sliced.py`'s.
Nothing overlaps but stages: that is how layouts are priced too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

from ..cost.cluster import Cluster
from ..ir.layout import PIPE
from ..schedule.blocks import chunk_prices
from ..schedule.forms import FormFault, parse_form
from ..schedule.place import Block, PlaceFault, by_hand
from ..schedule.simulate import Price
from .aloft import aloft
from .bounds import pipeline_s
from .crowd import Sort, crowded, sort_of
from .ends import tied_s, told_s
from .flights import ALONE, Flights, certain, flights
from .host import Hosting, offloaded, waiting_s
from .memory import apart, device_bytes, in_halves, load_of
from .parts import Part, Parts, Weights
from .priced import Priced
from .sliced import Sliced
from .slices import LEAST_SHARE, InSlices, Slicing
from .space import ACTIVATIONS, OPTIMIZER, Choice
from .stages import Load, cut, peak, stage_of
from .steady import step_s, until_steady
from .zero import Known, Shared, shared

_Key = tuple[int, int, int, bool]  # data, ZeRO, stages, whether there are several microbatches


@dataclass
class Pricing:
    """Prices of all choices of one unit. flown, known: what units have in common."""

    parts: Parts
    cluster: Cluster
    limit: int
    flown: dict[tuple[str, int, int], Flights] = field(default_factory=dict[tuple[str, int, int], "Flights"])
    known: dict[Known, Shared] = field(default_factory=dict["Known", "Shared"])
    slicing: Callable[[], Slicing | None] = lambda: None  # the unit's token slices, where rows can be cut
    _blocks: dict[_Key, list[Block]] = field(default_factory=dict["_Key", list[Block]])
    _loads: dict[object, Load] = field(default_factory=dict[object, Load])
    _even: dict[object, tuple[int, ...] | None] = field(default_factory=dict[object, "tuple[int, ...] | None"])
    _chunks: dict[object, list[Price]] = field(default_factory=dict[object, list[Price]])
    _placed: dict[object, tuple[int, ...] | None] = field(default_factory=dict[object, "tuple[int, ...] | None"])
    _hosted: dict[Hosting, Pricing] = field(default_factory=dict["Hosting", "Pricing"])
    moved: Callable[[], Sequence[int]] | None = None  # of each part the bytes that activations on the host are
    _aloft: bool = False  # whether they are there
    _whole: Parts | None = None  # of what lies on the host by now, the parts with all of it on the device
    _host: Hosting | None = None

    def _on_host(self, choice: Choice) -> Pricing:
        """The pricing of a choice with something on the host; this one, where all of it lies as here."""
        if ACTIVATIONS in choice.offload and not self._aloft:
            return self._lifted._on_host(choice)
        if OPTIMIZER not in choice.offload or self._host is not None:
            return self
        lone = choice.pipe * choice.microbatches == 1
        host = Hosting(self.cluster.host, lone and choice.data == 1, lone)
        if host not in self._hosted:
            there = offloaded(self.parts, host)
            common = (self.cluster, self.limit, self.flown, self.known)
            self._hosted[host] = Pricing(there, *common, _aloft=self._aloft, _whole=self.parts, _host=host)
        return self._hosted[host]

    @cached_property
    def _lifted(self) -> Pricing:
        """The pricing of what keeps its activations on the host."""
        assert self.moved is not None, "whoever asks for it says what goes"
        there = aloft(self.parts, self.moved(), self.cluster.host.link_bytes_per_s)
        return Pricing(there, self.cluster, self.limit, self.flown, self.known, _aloft=True)

    def _waiting_s(self, choice: Choice, begin: int, end: int) -> float:
        """Seconds that some blocks' copies from and to the host take beside what hides them."""
        if self._host is None or self._whole is None:
            return 0.0
        return waiting_s(self._whole.parts[begin:end], self._host, choice.data if choice.zero else 1)

    # ---- what all choices share

    @cached_property
    def kinds(self) -> list[tuple[Part, int]]:
        """Parts that differ, and how many there are of each."""
        first = {id(part): part for part in self.parts.parts}
        return [(first[one], often) for one, often in Counter(map(id, self.parts.parts)).items()]

    @cached_property
    def _kind_of(self) -> list[int]:
        """Of each part the number of its kind."""
        numbers = {id(part): number for number, (part, _) in enumerate(self.kinds)}
        return [numbers[id(part)] for part in self.parts.parts]

    @cached_property
    def _many(self) -> float:
        """From so often on a kind is one of those that there are most of."""
        return max(often for _, often in self.kinds) / 2

    @cached_property
    def microbatch_s(self) -> float:
        """Seconds of a microbatch, all stages after one another, without what `data` and `pipe` add."""
        return sum(part.seconds * often for part, often in self.kinds)

    def shared(self, part: Part, choice: Choice) -> Shared:
        """What a size of `data` and a stage of ZeRO make of a block's parameters."""
        return self._shared(part.own if choice.pipe == 1 else part.weights, part.weights, choice)

    def alone(self, part: Part, choice: Choice) -> Shared:
        """The same without the parameters that a block before it has too."""
        return self._shared(part.own, part.own, choice)

    def _shared(self, own: Weights, there: Weights, choice: Choice) -> Shared:
        key = (id(own), id(there), choice.unit.inner, choice.data, choice.zero)  # alike layers share the very objects
        if key not in self.known:
            self.known[key] = shared(own, there, choice, self.cluster)
        return self.known[key]

    def blocks(self, choice: Choice) -> list[Block]:
        """The chain of blocks."""
        key = (choice.data, choice.zero, choice.pipe, choice.microbatches > 1)
        if key not in self._blocks:
            made = [self._block(part, choice) for part, _ in self.kinds]
            self._blocks[key] = [made[kind] for kind in self._kind_of]
        return self._blocks[key]

    def _block(self, part: Part, choice: Choice) -> Block:
        more = self.shared(part, choice)
        link = self.cluster.link(choice.mesh, PIPE) if choice.pipe > 1 else None
        return Block(
            "", part.forward_s + more.forward_s, part.input_s + more.input_s, part.weight_s + more.weight_s,
            part.crossing / link.bandwidth_bytes_per_s if link else 0.0,
            link.latency_s * part.messages if link else 0.0,
            more.static + (more.gradients if choice.microbatches > 1 else 0), part.kept, part.held,
        )  # fmt: skip

    # ---- bounds

    def bound_s(self, choice: Choice) -> float:
        """No more than the plan takes: all devices busy without a pause, the slowest block, as many of those that there
        are most of as some device must have, one microbatch's way."""
        if self._on_host(choice) is not self:
            return self._on_host(choice).bound_s(choice)
        if choice.sliced:
            work = choice.microbatches * self.microbatch_s * LEAST_SHARE * self.cluster.share(choice.devices)
            return (work + self.once_s(choice)) / choice.pipe + self.parts.common_s
        once, each = self.once_s(choice), 0.0
        longest = way = 0.0
        many, least = 0, float("inf")
        for part, often in self.kinds:
            more = self.shared(part, choice)
            added = more.forward_s + more.input_s + more.weight_s
            each += often * added
            longest = max(longest, part.seconds + added)
            way += often * (part.forward_s + part.input_s)
            if often >= self._many:
                many, least = many + often, min(least, part.seconds + added)
        longest = max(longest, -(-many // choice.pipe) * least)  # some device has so many of them
        even = (choice.microbatches * (each + self.microbatch_s) + once) / choice.pipe
        even *= self.cluster.share(choice.devices)  # all cores busy without a pause
        return max(even, choice.microbatches * longest, way) + self.parts.common_s

    def once_s(self, choice: Choice) -> float:
        """What a step takes beside its microbatches, all stages after one another."""
        ends = ((self.shared(part, choice), often) for part, often in self.kinds)
        return sum(often * (end.reduce_s + end.update_s) for end, often in ends)

    def may_fit(self, choice: Choice) -> bool:
        """False only where no way to cut the model into stages fits."""
        return self.least_bytes(choice) <= self.limit

    def least_bytes(self, choice: Choice) -> float:
        """Some device of a plan holds no less: all of them together have everything, once."""
        if choice.sliced:
            return sum(often * self.alone(part, choice).static for part, often in self.kinds) / choice.pipe
        if self._on_host(choice) is not self:
            return self._on_host(choice).least_bytes(choice)
        total = 0
        for part, often in self.kinds:
            more = self.alone(part, choice)
            total += often * (more.static + part.kept + (more.gradients if choice.microbatches > 1 else 0))
        return total / choice.pipe

    def placed_bound_s(self, choice: Choice) -> float | None:
        """No more than the plan takes with the stages that it has; None where it does not fit."""
        if self._on_host(choice) is not self:
            return self._on_host(choice).placed_bound_s(choice)
        if choice.sliced:
            found = self._sliced.bound_s(choice)
            return None if found is None else found + self.parts.common_s
        cuts = self._placed_cuts(choice, ())
        if cuts is None or choice.pipe == 1:
            return None if cuts is None else self.bound_s(choice)
        return self._cut_bound_s(choice, cuts)

    def timed_bound_s(self, choice: Choice) -> float | None:
        """The same, if it fits: looked at here only where stages depend on it."""
        if self._on_host(choice) is not self:
            return self._on_host(choice).timed_bound_s(choice)
        chunks = len(parse_form(choice.schedule).placement(choice.pipe))
        ends = self._evenly(choice, chunks) if chunks > choice.pipe else None
        return self.placed_bound_s(choice) if ends is None else self._cut_bound_s(choice, ends)

    def _cut_bound_s(self, choice: Choice, ends: Sequence[int]) -> float:
        prices, form = self._chunk_prices(choice, list(pairwise((0, *ends)))), parse_form(choice.schedule)
        return pipeline_s(prices, form, choice.pipe, choice.microbatches) + self.parts.common_s

    # ---- the price

    def price(self, choice: Choice, balance: tuple[int, ...] = ()) -> Priced | None:
        """The plan with its stages; None where it does not fit, or has no schedule."""
        if self._on_host(choice) is not self:
            return self._on_host(choice).price(choice, balance)
        if choice.sliced:
            found = self._sliced.price(choice, balance)
            return None if found is None else self._of_slices(choice, found)
        cuts = self._placed_cuts(choice, balance)
        if cuts is None:
            return None
        return self._single(choice) if choice.pipe == 1 else self._piped(choice, cuts)

    def fits(self, choice: Choice, balance: tuple[int, ...] = ()) -> bool:
        """Whether the plan has stages that fit."""
        return self._on_host(choice)._placed_cuts(choice, balance) is not None

    def _placed_cuts(self, choice: Choice, balance: tuple[int, ...]) -> tuple[int, ...] | None:
        if choice.pipe == 1:
            return (len(self.parts.parts),) if self._single_bytes(choice) <= self.limit else None
        try:
            return self._cuts(choice, balance)
        except (FormFault, PlaceFault):
            return None

    @cached_property
    def _sliced(self) -> Sliced:
        """The prices of plans in token slices."""

        def cuts(plain: Choice, balance: tuple[int, ...]) -> list[tuple[int, int]] | None:
            ends = self._placed_cuts(plain, balance) or (None if balance else cut(self.load(plain), plain.pipe))
            return None if ends is None else list(pairwise((0, *ends)))

        return Sliced(self.parts, self.cluster, self.limit, self.slicing, self.shared, cuts)

    def _of_slices(self, choice: Choice, found: InSlices) -> Priced:
        chosen = replace(choice, schedule=found.schedule)
        return Priced(chosen, found.seconds + self.parts.common_s, found.stage_bytes, found.balance)

    def _single(self, choice: Choice) -> Priced:
        """One stage: everything one after the other."""
        blocks = self.blocks(choice)
        once = sum(s.reduce_s + s.update_s for s in (self.shared(part, choice) for part in self.parts.parts))
        once += self.parts.common_s + self._waiting_s(choice, 0, len(blocks))
        seconds = choice.microbatches * sum(b.compute_s for b in blocks) + once
        seconds = seconds * self.cluster.share(choice.devices) + told_s(choice, self.cluster)
        return Priced(choice, seconds, (self._single_bytes(choice),))

    def _single_bytes(self, choice: Choice) -> int:
        load = self.load(choice)
        return peak([stage_of(load, 0, len(self.parts.parts))], ALONE, load.updating)

    def _cuts(self, choice: Choice, balance: tuple[int, ...]) -> tuple[int, ...] | None:
        """Where chunks end."""
        few = until_steady(choice.microbatches, choice.pipe)
        key = (choice.data, choice.zero, choice.pipe, choice.schedule, few, balance)
        if key not in self._placed:
            self._placed[key] = self._find_cuts(choice, balance)
        return self._placed[key]

    def _find_cuts(self, choice: Choice, balance: tuple[int, ...]) -> tuple[int, ...] | None:
        form = parse_form(choice.schedule)
        placement = form.placement(choice.pipe)
        if balance:
            by_hand(self.blocks(choice), placement, balance)
            ends = tuple(accumulate(balance))
        elif len(placement) == choice.pipe:
            if crowded(self._sorts(choice), self.flights(choice), choice.pipe, self.limit):
                return None
            load = self.load(choice)
            return cut(load, choice.pipe, self.flights(choice), self.limit, self._evenly(choice, choice.pipe))
        else:  # each chunk as if on a device of its own: they are alike, and so are devices
            found = self._evenly(choice, len(placement))
            assert found is not None, "the space has no more chunks than blocks"
            ends = found
        if self._is_full(choice, ends):
            return None
        return ends if all(size <= self.limit for size in self._stage_bytes(choice, ends)) else None

    def _sorts(self, choice: Choice) -> list[Sort]:
        """The kinds of blocks that there are most of, as a stage of one chunk has them."""
        several, apart = choice.microbatches > 1, in_halves(choice)
        most = ((part, often) for part, often in self.kinds if often >= self._many)
        return [sort_of(part, often, self.alone(part, choice), several, apart) for part, often in most]

    def _is_full(self, choice: Choice, ends: Sequence[int]) -> bool:
        """Whether a device shows that a plan does not fit, before its schedule is written down."""
        known = certain(choice.schedule, choice.pipe, until_steady(choice.microbatches, choice.pipe))
        return known is not None and any(size > self.limit for size in self._stage_bytes(choice, ends, known))

    def _evenly(self, choice: Choice, chunks: int) -> tuple[int, ...] | None:
        """Where so many chunks end that are as alike as can be: most plans differ in nothing that they depend on."""
        blocks = self.blocks(choice)
        each = dict(zip(self._kind_of, blocks, strict=True))  # those of a kind are one object
        key = (tuple(block.compute_s for block in each.values()), chunks)
        if key not in self._even:
            self._even[key] = cut(Load([block.compute_s for block in blocks], (), (), (), (), (), ()), chunks)
        return self._even[key]

    def flights(self, choice: Choice) -> Flights:
        """What each device has in flight at one time: the same for all units."""
        key = (choice.schedule, choice.pipe, until_steady(choice.microbatches, choice.pipe))
        if key not in self.flown:
            self.flown[key] = flights(*key)
        return self.flown[key]

    def load(self, choice: Choice) -> Load:
        """The chain that stages are cut from."""
        key = (choice.data, choice.zero, choice.pipe, choice.microbatches > 1, in_halves(choice))
        if key not in self._loads:
            if key[-1]:
                whole = self.load(replace(choice, schedule="1f1b"))
                self._loads[key] = apart(whole, self.parts.parts, choice, self.cluster)
            else:
                self._loads[key] = load_of(
                    self.parts, self.blocks(choice), (self.alone, self.shared), choice, self.cluster
                )
        return self._loads[key]

    def _stage_bytes(self, choice: Choice, ends: Sequence[int], known: Flights | None = None) -> Iterator[int]:
        """The peak of each device. known: what is known of its schedule, where that is not all."""
        placement = parse_form(choice.schedule).placement(choice.pipe)
        return device_bytes(self.load(choice), ends, placement, known or self.flights(choice))

    def _piped(self, choice: Choice, ends: Sequence[int]) -> Priced:
        """The schedule's time, simulated."""
        cuts = list(pairwise((0, *ends)))
        prices = self._chunk_prices(choice, cuts)
        share = self.cluster.share(choice.devices)
        seconds = step_s(prices, parse_form(choice.schedule), choice.pipe, choice.microbatches, share)
        held = tuple(self._stage_bytes(choice, ends))
        balance = tuple(end - begin for begin, end in cuts)
        seconds += self.parts.common_s + told_s(choice, self.cluster)
        return Priced(choice, seconds, held, balance)

    def _chunk_prices(self, choice: Choice, cuts: Sequence[tuple[int, int]]) -> list[Price]:
        """What chunks take; an update is of a device: it is reckoned with its chunks. Schedules have them in common,
        but for what devices tell one another."""
        schedule = choice.schedule if self._is_tied else ""
        key = (choice.data, choice.zero, choice.pipe, choice.microbatches > 1, tuple(cuts), schedule)
        if key not in self._chunks:
            alike: dict[tuple[int, ...], Price] = {}
            found = self._chunks[key] = list[Price]()
            for (begin, end), told in zip(cuts, tied_s(choice, self.parts.parts, cuts, self.cluster), strict=True):
                kinds = tuple(self._kind_of[begin:end])
                if kinds not in alike:
                    alike[kinds] = self._chunk_price(choice, begin, end)
                price = alike[kinds]
                found.append(replace(price, reduce=price.reduce + told) if told else price)
        return self._chunks[key]

    def _chunk_price(self, choice: Choice, begin: int, end: int) -> Price:
        (price,) = chunk_prices(self.blocks(choice), [(begin, end)])
        ends = (self.shared(part, choice) for part in self.parts.parts[begin:end])
        once = sum(one.reduce_s + one.update_s for one in ends)
        return replace(price, reduce=once + self._waiting_s(choice, begin, end))

    @cached_property
    def _is_tied(self) -> bool:
        """Whether blocks read parameters of others."""
        return any(part.tied for part, _ in self.kinds)
