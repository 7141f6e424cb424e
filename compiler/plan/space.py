"""Which plans there are: every mesh, microbatch, schedule, stage of ZeRO and policy of recomputation.

In: the devices of a cluster, the rows of a step, what the spec pins. Out: `Choice`s, in `Group`s, whose `Unit`
says how one microbatch lies on the axes that cut tensors. The devices in use are a divisor of those that there are,
or as many as the mesh that is pinned has. The batch is cut by `data` and by microbatches, evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..elaborate.models import BATCH
from ..elaborate.recipe import Plan, Recipe
from ..ir.layout import PIPE, Mesh
from ..partition.choices import DATA
from ..schedule.forms import TOKEN_SLICES, parse_form
from .slices import STAGES, schedules

TENSOR, CONTEXT, EXPERT = "tensor", "context", "expert"
Policy = Literal["cheap", "none", "selective", "full", "budget"]
NAMED: tuple[Policy, ...] = ("cheap", "none", "selective", "full")
BUDGET: Policy = "budget"  # as little as fits a device; from `none` on
POLICIES: tuple[Policy, ...] = (*NAMED, BUDGET)
PLAIN_FORMS = ("1f1b", "gpipe", "zero_bubble", "zero_bubble_v")
FEW = 4  # numbers of rows: where there are no more, each has a graph and a layout of its own
MOST_CHUNKS = 4  # of a device, where nobody says how many

OPTIMIZER, ACTIVATIONS = "optimizer", "activations"
OFFLOADS: tuple[tuple[str, ...], ...] = ((), (OPTIMIZER,), (ACTIVATIONS,), (OPTIMIZER, ACTIVATIONS))

Axes = tuple[tuple[str, int], ...]
Cuts = tuple[tuple[str, str], ...]  # (dim, the axis that is there to cut it)


@dataclass(frozen=True, slots=True)
class Unit:
    """What plans have in common: the axes that cut tensors, what is computed again, their rows of a microbatch.
    alone: laid out for one microbatch, where that is told apart; else for several. cuts: what axes are there for."""

    inner: Axes
    recompute: Policy
    rows: int
    alone: bool = False
    cuts: Cuts = ()

    @property
    def devices(self) -> int:
        """That hold one copy of one stage."""
        return math.prod(size for _, size in self.inner)

    @property
    def laid(self) -> Unit:
        """The unit that it is laid out as: what a budget computes again is chosen on the layout of what keeps all."""
        return replace(self, recompute="none") if self.recompute == BUDGET else self


@dataclass(frozen=True, slots=True)
class Group:
    """Plans that differ in the stage of ZeRO, in the schedule and in what lies on the host alone."""

    unit: Unit
    data: int
    pipe: int
    microbatches: int
    sliced: bool = False  # into token slices


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan. zero: the stage, 0 without an axis `data`. schedule: of the pipeline, where there is one.
    offload: what lies on the host, one of `OFFLOADS`."""

    unit: Unit
    data: int
    pipe: int
    microbatches: int
    zero: int = 0
    schedule: str = "1f1b"
    offload: tuple[str, ...] = ()

    @property
    def sliced(self) -> bool:
        """Whether rows are cut into token slices."""
        return self.schedule.startswith(TOKEN_SLICES)

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
    recompute: Policy | None = None
    balance: tuple[int, ...] = ()
    offload: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """As in a recipe."""
        balance = list(self.balance) or None
        own = {"microbatches": self.microbatches, "rows": self.rows, "schedule": self.schedule, "balance": balance}
        return ", ".join(f"{name} = {value}" for name, value in {**self.axes, **own}.items() if value is not None)


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
        next((kinds for kinds in OFFLOADS if set(kinds) == set(plan.offload)), None) if plan.offload else None,
    )


@dataclass(frozen=True)
class Dims:
    """What a model has for an axis of its own: the dim of its tokens, those of its experts, each with its size.
    row: tokens of a row that slices could cut; 0: there is none."""

    tokens: tuple[str, int] | None = None
    experts: tuple[tuple[str, int], ...] = ()
    row: int = 0


@dataclass(frozen=True)
class Space:
    """All plans for so many devices and rows. longest: dim that a tensor's axis could cut; blocks: of the model.

    An axis `expert` cuts experts, and rows beside them. An axis `context` cuts the tokens of a row beside a tensor's
    axis, which alone may cut them too, and only where a microbatch has one row: several are better cut themselves.
    budgets: whether a budget of recomputation is a choice where nothing is said of it.
    roomy: rows fill the devices, so that tokens are cut, by an axis or into slices, only where that is pinned.
    """

    devices: int
    batch: int
    blocks: int
    longest: int
    pins: Pins = Pins()
    dims: Dims = Dims()
    budgets: bool = True
    roomy: bool = False

    def inners(self) -> Iterator[Axes]:
        """What may cut tensors, the smallest first."""
        others = {name: size for name, size in self.pins.axes.items() if name not in (DATA, PIPE, TENSOR, *self._own())}
        found = {
            tuple(axis for axis in (*others.items(), *own, (TENSOR, size)) if axis[1] > 1)
            for size in self._sizes(TENSOR)
            for own in self._own_axes(size)
            if size * math.prod(of for _, of in own) <= max(1, self.longest)
        }
        yield from sorted(found, key=lambda axes: (math.prod(size for _, size in axes), len(axes), axes))

    def _own(self) -> dict[str, int]:
        """The longest that an axis of its own can be."""
        experts = [size for _, size in self.dims.experts]
        spared = self.roomy and CONTEXT not in self.pins.axes
        return {
            **({CONTEXT: self.dims.tokens[1]} if self.dims.tokens is not None and not spared else {}),
            **({EXPERT: min(experts)} if experts else {}),
        }

    def _own_axes(self, tensor: int) -> Iterator[Axes]:
        """The axes beside a tensor's of this size: one of them at most, unless more are pinned."""
        pinned = tuple((name, self.pins.axes[name]) for name in self._own() if name in self.pins.axes)
        yield pinned
        for name, most in self._own().items() if not pinned else ():
            sizes = self._sizes(name) if name != CONTEXT or tensor > 1 else ()
            yield from (((name, size),) for size in sizes if 1 < size <= most)

    def cuts(self, inner: Axes) -> Cuts:
        """What the axes of their own are there for."""
        named = {
            CONTEXT: [] if self.dims.tokens is None else [self.dims.tokens[0]],
            EXPERT: [BATCH, *(name for name, _ in self.dims.experts)] if self.dims.experts else [],
        }
        return tuple((dim, axis) for axis, _ in inner for dim in named.get(axis, ()))

    def unit(self, inner: Axes, recompute: Policy, rows: int, alone: bool = False) -> Unit:
        """A unit of this space."""
        return Unit(inner, recompute, rows, alone, self.cuts(inner))

    def _divides(self, inner: Axes, rows: int) -> bool:
        """Whether the axes of their own have rows, or tokens, to cut."""
        sizes = dict(inner)
        free = CONTEXT not in self.pins.axes and CONTEXT in self._own()
        return rows % sizes.get(EXPERT, 1) == 0 and not (free and rows > 1 and sizes.get(CONTEXT, 1) > 1)

    def policies(self) -> tuple[Policy, ...]:
        """What may be computed again."""
        free = POLICIES if self.budgets else NAMED
        return free if self.pins.recompute is None else (self.pins.recompute,)

    def rows(self) -> list[int]:
        """Of a microbatch on a device, the fewest first."""
        return [n for n in divisors(self.batch) if self.pins.rows in (None, n)]

    def groups(self, inner: Axes, recompute: Policy) -> Iterator[Group]:
        """All plans of a layout, in groups."""
        told = bool(inner) and len(self.rows()) <= FEW
        for rows in self.rows():
            for data in self._sizes(DATA) if self._divides(inner, rows) else ():
                if self.batch % (data * rows):
                    continue
                microbatches = self.batch // (data * rows)
                unit = self.unit(inner, recompute, rows, told and microbatches == 1)
                if self.pins.microbatches not in (None, microbatches):
                    continue
                for pipe in self._sizes(PIPE):
                    if self._is_all(data * pipe * unit.devices) and pipe <= self.blocks:
                        yield Group(unit, data, pipe, microbatches)
                        if self._may_be_sliced(unit, pipe, microbatches):
                            yield Group(unit, data, pipe, microbatches, sliced=True)

    def _may_be_sliced(self, unit: Unit, pipe: int, microbatches: int) -> bool:
        """Whether token slices are tried: see `slices.py`. What is pinned is tried wherever it can be."""
        if pipe == 1 or unit.recompute == BUDGET or CONTEXT in dict(unit.inner):
            return False
        free = self.pins.schedule is None and unit.rows == 1 and microbatches <= pipe
        return self.slices and (free or self._pins_slices()) and not self.pins.offload

    @property
    def slices(self) -> bool:
        """Whether there may be plans with token slices."""
        return self.dims.row > 0 and (not self.roomy or self._pins_slices())

    def _pins_slices(self) -> bool:
        return self.pins.schedule is not None and parse_form(self.pins.schedule).name == TOKEN_SLICES

    def choices(self, group: Group) -> Iterator[Choice]:
        """The plans of a group."""
        if group.sliced:
            yield from self._sliced(group)
            return
        for zero in self.zeros(group.data):
            for schedule in self._schedules(group.pipe, group.microbatches):
                for offload in self.offloads(group):
                    yield Choice(group.unit, group.data, group.pipe, group.microbatches, zero, schedule, offload)

    def offloads(self, group: Group | Choice) -> Iterator[tuple[str, ...]]:
        """What may lie on the host. Activations do in plans of one stage without a budget: of others no
        bytes are known that hold."""
        for kinds in OFFLOADS if self.pins.offload is None else (self.pins.offload,):
            if ACTIVATIONS not in kinds or (group.pipe == 1 and group.unit.recompute != BUDGET):
                yield kinds

    def _sliced(self, group: Group) -> Iterator[Choice]:
        """Those with token slices: the optimizer is on the device."""
        named = schedules(self.dims.row) if self.pins.schedule is None else (self.pins.schedule,)
        for zero in self.zeros(group.data):
            for schedule in named if zero <= STAGES else ():
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
            yield from ("1f1b",) if self.pins.schedule is None and len(self.pins.balance) <= 1 else ()
            return
        chunks = range(2, min(MOST_CHUNKS, self.blocks // pipe) + 1) if microbatches % pipe == 0 else ()
        names = [*PLAIN_FORMS, *(f"interleaved({count})" for count in chunks)]
        for name in names if self.pins.schedule is None else (self.pins.schedule,):
            form = parse_form(name)
            if self.pins.balance and len(form.placement(pipe)) != len(self.pins.balance):
                continue
            if form.name != TOKEN_SLICES and len(form.placement(pipe)) <= self.blocks:
                yield name


def divisors(number: int) -> list[int]:
    """From 1 to itself."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
