"""A build laid out within the memory of its devices: what is held for a moment counts too.

In: a build's graphs, a mesh, what is asked of layouts, the bytes of a device. Out: layouts whose steps, once they are
lowered, keep to them. What lasts is bounded in the integer program; what is gathered, sent or computed on the way is
read off the lowered step, and that much less may last the next time. So torch is loaded where there is a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtime.program import is_step
from .base.diagnostic import SpecError
from .cost.cluster import Cluster
from .devices import laid_out
from .ir.graph import Graph
from .ir.layout import Mesh
from .lasting import Lasting
from .partition.choices import Wishes
from .partition.decide import Decision

if TYPE_CHECKING:
    from ..runtime.program import Build

UNBOUND = 1 << 62  # more than any device has


def laid_within(
    graphs: Mapping[str, Sequence[Graph]], mesh: Mesh, wishes: Wishes, cluster: Cluster, memory_bytes: int | None,
    device: str,
) -> dict[str, Decision]:  # fmt: skip
    """As `devices.laid_out`, no step ever above the memory of a device. Raises SpecError E0943 where none is found."""
    lasting = Lasting(UNBOUND)
    while True:
        try:
            found = laid_out(graphs, mesh, wishes, cluster, memory_bytes, False, lasting.bound)
        except SpecError as fault:
            lasting.refuse(fault)
            continue
        if memory_bytes is None:
            return found
        over = {name: peak_bytes(one, device) - memory_bytes for name, one in found.items() if is_step(name)}
        worst = max(over, key=over.__getitem__)
        if over[worst] <= 0:
            return found
        lasting.over(found[worst].resident_bytes, over[worst])


@dataclass(frozen=True, slots=True)
class Asked:
    """What layouts are asked for. sparing: as `Wishes` has it. lasting_bytes: that last in all stages, activations of
    `flying` microbatches among it."""

    sparing: bool = False
    lasting_bytes: int | None = None
    flying: float = 1.0


Laid = Callable[[Asked], Mapping[str, Decision]]


def stages_within(
    laid: Laid, built: Callable[[Mapping[str, Decision], int | None], Build], memory_bytes: int | None, stages: int,
    flying: float,
) -> Build:  # fmt: skip
    """The same of a pipeline: a build none of whose devices is ever above the memory. memory_bytes: of all stages.
    flying: microbatches whose activations a device has at a time. Raises SpecError E0943, E0952.

    built: what is compiled of layouts, no device above so much. The first layouts are the fastest whatever is in
    flight; then the sparing ones, as plans are priced on them; then those of them of which less and less lasts.
    """
    from .lower.build import TooHigh

    if memory_bytes is None:
        return built(laid(Asked()), None)
    lasting, limit = Lasting(memory_bytes), memory_bytes // stages
    try:
        return built(laid(Asked()), limit)
    except TooHigh:
        found = laid(Asked(sparing=True))
    while True:
        try:
            return built(found, limit)
        except TooHigh as fault:
            most = fault
            lasting.over(next(iter(found.values())).lasting_bytes(flying), stages * fault.over_bytes)
        found = _refused_or(laid, lasting, flying, most)


def _refused_or(laid: Laid, lasting: Lasting, flying: float, most: SpecError) -> Mapping[str, Decision]:
    """Layouts of which no more lasts than the bound, or the next one; raises what is known of the last ones, where none
    is left to try."""
    while True:
        try:
            return laid(Asked(True, lasting.bound, flying))
        except SpecError as fault:
            try:
                lasting.refuse(fault)
            except SpecError:
                raise most from None


def peak_bytes(decision: Decision, device: str) -> int:
    """Bytes of the device that takes most, of a step once it is lowered."""
    from .lower.build import occupied
    from .lower.library import Library
    from .lower.spread import spread

    graphs, lying = spread({"step": decision.graph}, decision.mesh)
    return occupied("step", graphs["step"], Library(device), lying).peak_bytes
