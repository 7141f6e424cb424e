"""Plans whose rows are cut into token slices, on the stages that the same plan has with whole rows.

In: the parts of a unit, its slices, what `data` and ZeRO add, where stages of whole rows end. Out: a bound, and the
price with the best slices, which are looked for when that bound comes up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..cost.cluster import Cluster
from ..ir.layout import PIPE
from ..schedule.simulate import Price
from .memory import Share
from .moments import momentary
from .parts import Parts
from .slices import Around, InSlices, Slicing, in_slices, least_s
from .space import Choice
from .zero import Shared

Cuts = Sequence[tuple[int, int]]  # where stages begin and end


@dataclass
class Sliced:
    """Prices of the plans in slices of one unit. slicing: its slices, where rows can be cut. shared: what becomes of a
    block's parameters. cuts: of a plan of whole rows, given its balance; None where it has no stages."""

    parts: Parts
    cluster: Cluster
    limit: int
    slicing: Callable[[], Slicing | None]
    shared: Share
    cuts: Callable[[Choice, tuple[int, ...]], Cuts | None]
    _found: dict[object, InSlices | None] = field(default_factory=dict[object, "InSlices | None"])

    def bound_s(self, choice: Choice) -> float | None:
        """No more than the plan takes, whatever its slices, without what is common to all devices."""
        plain, slicing = replace(choice, schedule="1f1b"), self.slicing()
        cuts = self.cuts(plain, ())
        if slicing is None or cuts is None:
            return None
        return least_s(slicing, choice.schedule, self._around(plain, cuts))

    def price(self, choice: Choice, balance: tuple[int, ...]) -> InSlices | None:
        """The plan; its schedule says the lengths. None where it does not fit, or rows cannot be cut."""
        key = (choice.data, choice.zero, choice.pipe, choice.microbatches, choice.schedule, balance)
        if key not in self._found:
            self._found[key] = self._find(choice, balance)
        return self._found[key]

    def _find(self, choice: Choice, balance: tuple[int, ...]) -> InSlices | None:
        plain, slicing = replace(choice, schedule="1f1b"), self.slicing()
        cuts = self.cuts(plain, balance)
        if slicing is None or cuts is None:
            return None
        found = in_slices(slicing, choice.schedule, self._around(plain, cuts))
        return None if found is None or max(found.stage_bytes) > self.limit else found

    def _around(self, plain: Choice, cuts: Cuts) -> Around:
        """What stands around the slices of a plan."""
        parts, moment = self.parts.parts, momentary(self.parts.parts, plain, self.cluster)
        every = [self.shared(part, plain) for part in parts]
        own = [every[begin:end] for begin, end in cuts]
        share = self.cluster.share(plain.devices)
        return Around(
            cuts, plain.microbatches, self.cluster.link(plain.mesh, PIPE), [_added(some) for some in own],
            [sum(one.reduce_s + one.update_s for one in some) for some in own],
            [sum(one.static + one.gradients for one in some) for some in own],
            [(part.kept, part.momentary, whole) for part, whole in zip(parts, moment, strict=True)],
            self.parts.updating, None if share == 1 else plain.pipe / share,
        )  # fmt: skip


def _added(blocks: Sequence[Shared]) -> Price:
    """What `data` adds to a stage's halves of a microbatch."""
    return Price(*(sum(times) for times in zip(*((o.forward_s, o.input_s, o.weight_s) for o in blocks), strict=True)))
