"""Which plans there are: every mesh, microbatch, schedule, stage of ZeRO and policy of recomputation.

In: the devices of a cluster, the rows of a step, what the spec pins. Out: `Choice`s, in `Group`s, whose `Unit`
says how one microbatch lies on the axes that cut tensors. The devices in use are a divisor of those that there are,
or as many as the mesh that is pinned has. The batch is cut by `data` and by microbatches, evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..elaborate.recipe import Plan, Recipe
from ..ir.layout import PIPE, Mesh
from ..partition.choices import DATA
from ..schedule.forms import TOKEN_SLICES, parse_form

TENSOR = "tensor"
POLICIES = ("cheap", "none", "selective", "full")
PLAIN_FORMS = ("1f1b", "gpipe", "zero_bubble", "zero_bubble_v")
FEW = 4  # numbers of rows: where there are no more, each has a graph and a layout of its own
MOST_CHUNKS = 4  # of a device, where nobody says how many
MOST_IN_A_STAGE = 1 << 12  # devices of a pipeline

Axes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """What plans have in common: the axes that cut tensors, what is computed again, a device's rows of a microbatch.
    alone: laid out for one microbatch, where that is told apart; else for several."""

    inner: Axes
    recompute: str
    rows: int
    alone: bool = False

    @property
    def devices(self) -> int:
        """That hold one copy of one stage."""
        return math.prod(size for _, size in self.inner)


@dataclass(frozen=True, slots=True)
class Group:
    """Plans that differ in the stage of ZeRO and in the schedule alone."""

    unit: Unit
    data: int
    pipe: int
    microbatches: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan. zero: the stage, 0 without an axis `data`. schedule: of the pipeline, where there is one."""

    unit: Unit
    data: int
    pipe: int
    microbatches: int
    zero: int = 0
    schedule: str = "1f1b"

    @property
    def mesh(self) -> Mesh:
        """The mesh, stages outermost, what cuts tensors innermost; axes of one device are left out."""
        axes = ((PIPE, self.pipe), (DATA, self.data), *self.unit.inner)
        return Mesh(tuple(axis for axis in axes if axis[1] > 1))

    @property
    def devices(self) -> int:
        """How many it uses."""
        return self.data * self.pipe * self.unit.devices


@dataclass(frozen=True)
class Pins:
    """What may not be changed. axes: sizes; closed: whether a mesh with just these axes is asked for."""

    axes: Mapping[str, int] = field(default_factory=dict[str, int])
    closed: bool = False
    microbatches: int | None = None
    rows: int | None = None
    zero: int | None = None
    schedule: str | None = None
    recompute: str | None = None
    balance: tuple[int, ...] = ()


def pins_of(recipe: Recipe) -> Pins:
    """What a recipe's plan says already."""
    plan = recipe.plan
    if plan is None:
        return Pins()
    kind = plan.recompute.kind
    return Pins(
        dict(plan.mesh),
        bool(plan.mesh),
        recipe.microbatches if recipe.microbatches > 1 else None,
        None,
        plan.zero,
        plan.schedule if plan.schedule != Plan().schedule else None,
        kind if kind in POLICIES and kind != "cheap" else None,
        plan.balance,
    )


@dataclass(frozen=True)
class Space:
    """All plans for so many devices and rows. longest: dim that a tensor's axis could cut; blocks: of the model."""

    devices: int
    batch: int
    blocks: int
    longest: int
    pins: Pins = Pins()

    def inners(self) -> Iterator[Axes]:
        """What may cut tensors, the smallest first."""
        others = {name: size for name, size in self.pins.axes.items() if name not in (DATA, PIPE, TENSOR)}
        for size in self._sizes(TENSOR):
            if size <= max(1, self.longest):
                axes = (*others.items(), (TENSOR, size))
                yield tuple(axis for axis in axes if axis[1] > 1)

    def policies(self) -> tuple[str, ...]:
        """What may be computed again."""
        return POLICIES if self.pins.recompute is None else (self.pins.recompute,)

    def rows(self) -> list[int]:
        """Of a microbatch on a device, the fewest first."""
        return [n for n in divisors(self.batch) if self.pins.rows in (None, n)]

    def groups(self, inner: Axes, recompute: str) -> Iterator[Group]:
        """All plans of a layout, in groups."""
        told = bool(inner) and len(self.rows()) <= FEW
        for rows in self.rows():
            for data in self._sizes(DATA):
                if self.batch % (data * rows):
                    continue
                microbatches = self.batch // (data * rows)
                unit = Unit(inner, recompute, rows, told and microbatches == 1)
                if self.pins.microbatches not in (None, microbatches):
                    continue
                for pipe in self._sizes(PIPE):
                    if self._is_all(data * pipe * unit.devices) and pipe <= self.blocks:
                        yield Group(unit, data, pipe, microbatches)

    def choices(self, group: Group) -> Iterator[Choice]:
        """The plans of a group."""
        for zero in self.zeros(group.data):
            for schedule in self._schedules(group.pipe, group.microbatches):
                yield Choice(group.unit, group.data, group.pipe, group.microbatches, zero, schedule)

    def zeros(self, data: int) -> tuple[int, ...]:
        """The stages of ZeRO."""
        if self.pins.zero is not None:
            return (self.pins.zero,)
        return (0, 1, 2, 3) if data > 1 else (0,)

    def _sizes(self, axis: str) -> list[int]:
        if axis in self.pins.axes:
            return [self.pins.axes[axis]]
        return [1] if self.pins.closed else divisors(self.devices)

    def _is_all(self, used: int) -> bool:
        """Whether so many devices may be used."""
        return used <= self.devices and (self.pins.closed or self.devices % used == 0)

    def _schedules(self, pipe: int, microbatches: int) -> Iterator[str]:
        if pipe == 1:
            yield "1f1b"
            return
        chunks = range(2, min(MOST_CHUNKS, self.blocks // pipe) + 1) if microbatches % pipe == 0 else ()
        names = [*PLAIN_FORMS, *(f"interleaved({count})" for count in chunks)]
        for name in names if self.pins.schedule is None else (self.pins.schedule,):
            form = parse_form(name)
            if form.name != TOKEN_SLICES and len(form.placement(pipe)) <= self.blocks:
                yield name


def divisors(number: int) -> list[int]:
    """From 1 to itself."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
