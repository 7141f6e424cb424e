"""From a recipe and a cluster to the plan that trains fastest within the devices' memory.

In: a spec, a recipe, ways to make its step, a cluster. Out: a `Planner`, whose `search` gets better and better, with
what the spec pins kept, or with more pinned; its layouts are shared, so that a second question costs little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..cost.cluster import Cluster
from ..elaborate.load import Spec
from ..elaborate.recipe import Plan, Recipe
from .layouts import Kernels, Layouts, Steps
from .priced import Priced
from .search import Pricer, Progress, Search
from .slices import LEAST_SHARE
from .space import ACTIVATIONS, OFFLOADS, POLICIES, Pins, Space, Unit, divisors, pins_of
from .stages import Flights
from .thin import thin
from .zero import Known, Shared

MIB, GIB = 1 << 20, 1 << 30
WIDE = 64  # devices, from which on a tensor's axis reaches over at most two members of the second level
AXES = ("data", "pipe", "tensor", "context", "expert")
CHOSEN = (*AXES, "microbatches", "rows", "zero", "schedule", "recompute", "offload")  # what can be asked for
HOSTED = {
    "none" if not kinds else kinds[0] if len(kinds) == 1 else f"[{', '.join(kinds)}]": kinds for kinds in OFFLOADS
}


class NoPlan(ValueError):
    """There is no plan: why, and what would help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Planner:
    """One recipe on one cluster. limit: bytes that a device may hold."""

    recipe: Recipe
    cluster: Cluster
    layouts: Layouts
    space: Space
    limit: int
    flops: float  # of the model, in a step
    pricings: dict[Unit, Pricer] = field(default_factory=dict[Unit, Pricer])
    flown: dict[tuple[str, int, int], Flights] = field(default_factory=dict[tuple[str, int, int], Flights])
    known: dict[Known, Shared] = field(default_factory=dict[Known, Shared])

    def search(self, pins: Mapping[str, int | str] | None = None) -> Iterator[Progress]:
        """Better and better plans, with these choices too. Raises NoPlan, SpecError."""
        space = replace(self.space, pins=pinned(self.space.pins, pins or {}))
        peak = self.cluster.machine.matmul(self.recipe.precision.compute) * space.devices
        least = self.flops / peak if self.layouts.kernels is None else 0.0  # timed kernels know no peak
        least *= LEAST_SHARE if space.slices else 1.0  # slices skip what a causal model masks
        for tried in self._spaces(space):
            found = Search(
                tried, self.layouts, self.limit, least, space.pins.balance, self.pricings, self.flown, self.known
            )
            last: Progress | None = None
            for last in found.run():
                yield last
            if last is not None and last.best:
                return
        raise self._refused(space, Search(space, self.layouts, self.limit))

    def _spaces(self, space: Space) -> Iterator[Space]:
        """Where to look, one after the other until there is a plan. Many devices share an optimizer's state by ZeRO: it
        goes to their hosts where nothing fits else, and so far are budgets left to small clusters, for time's sake."""
        if space.devices > WIDE:
            offload = () if space.pins.offload is None else space.pins.offload
            yield replace(space, budgets=False, pins=replace(space.pins, offload=offload))
        yield space

    def mfu(self, priced: Priced) -> float:
        """Model FLOPs utilization that is expected."""
        peak = self.cluster.machine.matmul(self.recipe.precision.compute) * priced.choice.devices
        return self.flops / priced.seconds / peak if priced.seconds else 0.0

    def _refused(self, space: Space, search: Search) -> NoPlan:
        """Why there is none."""
        groups = [g for inner in space.inners() for policy in space.policies() for g in space.groups(inner, policy)]
        if not groups:
            title = f"{space.pins}: a batch of {space.batch} rows on {space.devices} devices cannot be cut so"
            return NoPlan(title, "the batch divides into `data` × microbatches × rows, the devices into the mesh")
        groups = [group for group in groups if any(space.choices(group))]
        if not groups and ACTIVATIONS in (space.pins.offload or ()):
            title = "plans with activations on the host are not priced yet in a pipeline, nor beside a budget"
            return NoPlan(title, "pipe = 1, and recompute = none or full")
        if not groups:
            title = f"{space.pins}: there is no such schedule of {space.blocks} blocks and so many microbatches"
            return NoPlan(title, "interleaved stages need a multiple of `pipe` microbatches, each chunk a block")
        fewest = [group for group in groups if group.unit.rows == groups[0].unit.rows]
        least = min(search.pricing(g.unit).least_bytes(c) for g in fewest for c in space.choices(g))
        if least > self.limit:
            title = (
                f"no plan fits: a device holds {self.limit / GIB:.3g} GiB, and needs {least / GIB:.3g} GiB at the least"
            )
        else:
            title = f"no plan fits into {self.limit / GIB:.3g} GiB a device"
        return NoPlan(title, "more devices, smaller microbatches, or fewer pins")


def planner(spec: Spec, recipe: Recipe, steps: Steps, cluster: Cluster, kernels: Kernels | None = None) -> Planner:
    """Gets ready to plan a recipe. kernels: what nodes take, where that was timed. Raises SpecError, NoPlan."""
    _check_pins(recipe)
    few = thin(spec, recipe)
    pins = pins_of(recipe)
    rows = [n for n in divisors(recipe.batch) if pins.rows in (None, n)]
    layouts = Layouts(few, steps, cluster, rows, kernels)
    known = layouts.parts(Unit((), Space(1, recipe.batch, 1, 1, pins).policies()[0], rows[0]))
    if pins.balance and sum(pins.balance) != len(known.parts):
        title = f"balance = {list(pins.balance)} makes {sum(pins.balance)} blocks, the model has {len(known.parts)}"
        raise NoPlan(title, "the blocks of each chunk of a pipeline; they are all blocks together")
    widest = cluster.devices if cluster.devices <= WIDE else 2 * cluster.levels[0].members
    limit = limit_of(recipe, cluster)
    roomy = cluster.devices > WIDE and recipe.batch * widest >= cluster.devices
    space = Space(cluster.devices, recipe.batch, len(known.parts), widest, pins, layouts.dims(), roomy=roomy)
    flops = layouts.model_flops() * recipe.batch
    return Planner(recipe, cluster, layouts, space, limit, flops)


def limit_of(recipe: Recipe, cluster: Cluster) -> int:
    """Bytes that a device may hold: what it has, or what the recipe's plan leaves of that; whole MiB of many, so that
    a record says them exactly."""
    plan = recipe.plan or Plan()
    said = (cluster.memory_bytes, plan.budget_bytes, plan.recompute.budget_bytes)
    least = min(size for size in said if size is not None)
    return least if least < GIB else least // MIB * MIB


def _check_pins(recipe: Recipe) -> None:
    """Raises NoPlan for what a recipe's plan asks for and no price is known of: it is not passed over in silence."""
    plan = recipe.plan or Plan()
    if plan.recompute.kind == "paths":
        raise NoPlan("plans that compute patterns again are not priced yet", f"recompute: {', '.join(POLICIES)}")


def pinned(pins: Pins, more: Mapping[str, int | str]) -> Pins:
    """The pins with others. Keys are those of `CHOSEN`, `offload` one of `HOSTED`."""
    held = {name: value for name, value in more.items() if isinstance(value, int)}
    said = {name: value for name, value in more.items() if isinstance(value, str)}
    return replace(
        pins,
        axes={**pins.axes, **{name: value for name, value in held.items() if name in AXES}},
        microbatches=held.get("microbatches", pins.microbatches),
        rows=held.get("rows", pins.rows),
        zero=held.get("zero", pins.zero),
        schedule=said.get("schedule", pins.schedule),
        recompute=said.get("recompute", pins.recompute),
        offload=HOSTED[said["offload"]] if "offload" in said else pins.offload,
    )
