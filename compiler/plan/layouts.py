"""Layouts solved once for each mesh that cuts tensors: what all plans with that mesh are priced on.

In: a way to make a recipe's steps, a recipe with few layers, the cluster. Out: for each `Unit` the parts of one device.
Where there are few numbers of rows, the integer program is solved for each unit; else for the fewest rows and the first
policy: more rows and what is computed again lie as that has them, a clone as what it is a clone of. Where a graph has a
node that the solved one lacks, it is solved itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..base.diagnostic import SpecError
from ..cost.cluster import Cluster, Link
from ..cost.flops import work_of
from ..elaborate.models import BATCH
from ..elaborate.recipe import Plan, Recipe, Recompute
from ..ir.graph import Graph
from ..ir.layout import PIPE, Mesh
from ..ir.slices import MARK
from ..ir.types import Dim
from ..partition.choices import SEVERAL, Wishes, choices
from ..partition.factors import factored
from ..partition.fold import fold
from ..partition.impossible import check_held, check_wishes
from ..partition.price import Prices
from ..partition.rewrite import rewrite
from ..partition.solve import Program
from ..partition.strategies import Option, Strategy, options
from ..passes.localize import localize
from ..schedule.blocks import AGAIN, Chain
from ..schedule.forms import TOKEN_SLICES
from ..schedule.ladder import Ladder as Rungs
from ..schedule.ladder import Rung, rung
from ..schedule.sliced import SlicedBlocks
from .aloft import Moved, moved_of, whole_moved
from .ladder import Ladder, Slope, ladder, slopes
from .parts import Parts, Rough, Timed, Weights, rough, seconds_of
from .slices import Slicing
from .space import FEW, Dims, Unit
from .thin import Thin

BYTES = Link(1.0, 0.0)  # a message takes as many seconds as it has bytes: which link it goes over is a plan's choice
TIMED = (2, 4, 8)  # equal slices whose kernels are looked up, where they were timed

Steps = Sequence[Callable[[Recipe], Graph]]  # ways to make a step: all compute the same
Kernels = Callable[[Graph, Mesh], Timed]  # of a step as it is laid out: seconds of a run of each node of a device


@dataclass(frozen=True)
class Solved:
    """A layout: the mesh, perhaps with an axis in factors, each node's strategy, which of the steps it is of."""

    mesh: Mesh
    wishes: Wishes
    strategies: Mapping[str, Strategy]
    way: int


@dataclass
class Layouts:
    """Layouts of one thin recipe on one cluster. rows: those that there may be in a microbatch, the fewest first.
    kernels: what nodes take, where that was timed; else their roofline counts."""

    thin: Thin
    steps: Steps
    cluster: Cluster
    rows: Sequence[int]
    kernels: Kernels | None = None
    _graphs: dict[tuple[str, int, int, bool], Graph] = field(default_factory=dict[tuple[str, int, int, bool], Graph])
    _solved: dict[Unit, Solved] = field(default_factory=dict[Unit, Solved])
    _read: dict[Unit, Rough] = field(default_factory=dict[Unit, Rough])
    _weights: dict[Weights, Weights] = field(default_factory=dict[Weights, Weights])
    _parts: dict[Unit, Parts] = field(default_factory=dict[Unit, Parts])
    _slopes: dict[Unit, list[Slope]] = field(default_factory=dict[Unit, list[Slope]])
    _asked: dict[int, Asked] = field(default_factory=dict[int, "Asked"])  # by the identity of a graph that is kept
    _locals: dict[Unit, Graph] = field(default_factory=dict[Unit, Graph])
    _moved: dict[Unit, Mapping[str, Moved]] = field(default_factory=dict[Unit, Mapping[str, Moved]])
    _sliced: dict[Unit, Slicing | None] = field(default_factory=dict[Unit, "Slicing | None"])
    _least: dict[Unit, float] = field(default_factory=dict[Unit, float])
    _prices: dict[Mesh, Prices] = field(default_factory=dict[Mesh, Prices])

    def parts(self, unit: Unit) -> Parts:
        """What each block takes. Raises SpecError where a pin cannot be."""
        unit = unit.laid
        if unit not in self._parts:
            solved = self._base(unit)
            found = self._at(unit)
            names = self.thin.whole([part.name for part in found.parts])
            self._parts[unit] = found.parts_with(self._on(solved.mesh), names)
        return self._parts[unit]

    def least_s(self, unit: Unit) -> float:
        """No layout of a unit takes less for a microbatch, by the roofline: none is solved."""
        unit = unit.laid
        if unit not in self._least:
            found = self._rough(Unit((), unit.recompute, unit.rows))
            names = self.thin.whole([part.name for part in found.parts])
            self._least[unit] = found.least_s(self._on(Mesh(())), names, unit.devices)
        return self._least[unit]

    def dims(self) -> Dims:
        """What the model has for an axis of its own, where nothing else is said of it."""
        step, recipe = self._step(Unit((), "none", self.rows[0]), 0), self.thin.recipe
        told = {dim for dim, _ in (recipe.plan.pins if recipe.plan is not None else ())}
        routed = (node.attrs["experts"] for node in step.nodes("dispatch"))
        experts = {dim.name: dim.size or 0 for dim in routed if isinstance(dim, Dim)}
        rows = recipe.rows if recipe.rows is not None and not recipe.rows.ragged else None
        tokens = None if rows is None else step.dims().get(rows.dim)
        cut = tokens is not None and tokens.name not in told and _can_be_cut(step, tokens)
        return Dims(
            (tokens.name, tokens.size or 0) if tokens is not None and cut else None,
            tuple((name, size) for name, size in experts.items() if not told & {BATCH, name}),
            0 if rows is None else rows.length,
        )

    def model_flops(self) -> float:
        """Of a row of the whole model."""
        step = self._step(Unit((), "none", self.rows[0]), 0)
        chain = Chain(step)
        flops = dict.fromkeys(chain.names, 0)
        for node in step:
            if node.id in chain.block and not node.id.startswith(AGAIN):
                flops[chain.names[chain.block[node.id]]] += work_of(node).model_flops
        return sum(flops[name] for name in self.thin.whole(chain.names)) / self.rows[0]

    def _at(self, unit: Unit) -> Rough:
        """The device's graph, read; where there are many numbers of rows, on the line through the two fewest."""
        first, second = (replace(unit, rows=rows) for rows in (self.rows[0], self.rows[min(1, len(self.rows) - 1)]))
        if unit.rows in (first.rows, second.rows) or self.each:
            return self._rough(unit)
        low, high = self._rough(first), self._rough(second)
        if not low.alike(high):
            return self._rough(unit)
        return low.towards(high, (unit.rows - first.rows) / (second.rows - first.rows))

    def ladder(self, unit: Unit) -> Ladder:
        """What a unit may compute again; where there are many numbers of rows, that of the fewest, so many times."""
        base = unit if self.each else replace(unit, rows=self.rows[0])
        if base not in self._slopes:
            local, prices, timed = self._local(base)
            self._slopes[base] = slopes(local, lambda node: seconds_of(node, prices, timed), self.thin.whole)
        found = [one.times(unit.rows / base.rows) for one in self._slopes[base]]
        return ladder(self.parts(unit), self.thin.whole([part.name for part in self._rough(base).parts]), found)

    def moved(self, unit: Unit) -> list[int]:
        """Of each part of the model the bytes that lie on the host, where activations do."""
        base = unit if self.each else replace(unit, rows=self.rows[0])
        times = unit.rows / base.rows
        if base not in self._locals:
            self._locals[base] = self._local(base)[0]
        if unit not in self._moved:
            self._moved[unit] = moved_of(self._locals[base], self.cluster, times)
        names = self.thin.whole([part.name for part in self._rough(base).parts])
        return whole_moved(self.thin, names, self._moved[unit], times)

    def sliced(self, unit: Unit) -> Slicing | None:
        """A unit's token slices; None where its rows cannot be cut, as tokens see later ones."""
        if unit not in self._sliced:
            try:
                self._sliced[unit] = self._slicing(unit)
            except SpecError:
                self._sliced[unit] = None
        return self._sliced[unit]

    def _slicing(self, unit: Unit) -> Slicing:
        """Raises SpecError."""
        rows = self.thin.recipe.rows
        assert rows is not None, "the space has slices where there are rows of tokens"
        local, prices, _ = self._in_slices(unit, 2)
        timed = None
        if self.kernels is not None:
            counts = [count for count in (*reversed(TIMED), 1) if rows.length % count == 0]
            timed = Rungs([self._rung(unit, count, rows.length) for count in counts])
        blocks = SlicedBlocks(local, lambda node: seconds_of(node, prices), BYTES, ladder=timed)
        numbers = {name: at for at, name in enumerate(blocks.names)}
        at = [numbers[name] for name in self.thin.whole(list(blocks.names))]
        return Slicing(blocks, at, rows.length, unit.rows, 1 if timed is None else timed.shortest)

    def _rung(self, unit: Unit, count: int, tokens: int) -> Rung:
        local, _, timed = self._in_slices(unit, count)
        return rung(local, tokens, count, timed or {})

    def _in_slices(self, unit: Unit, count: int) -> tuple[Graph, Prices, Timed | None]:
        """One device's graph of rows in so many equal slices, which lie as is best for them."""
        solved = self._base(unit)
        recipe, prices = self._recipe(unit, SEVERAL), self._on(solved.mesh)
        plan = replace(recipe.plan or Plan(), mesh=((PIPE, 1),), schedule=f"{TOKEN_SLICES}({count})")
        step = self.steps[solved.way](replace(recipe, plan=plan) if count > 1 else recipe)
        if unit.devices > 1:
            of_slices = {
                name: pins for name in step.dims() if (pins := solved.wishes.pins.get(name.partition(MARK)[0]))
            }
            wishes = replace(solved.wishes, pins={**solved.wishes.pins, **of_slices})
            lying = self._solve([step], solved.mesh, wishes).strategies
            step = rewrite(step, solved.mesh, dict(lying), prices.paths, frozenset())
        timed = None if self.kernels is None else self.kernels(step, solved.mesh)
        local = localize(step, solved.mesh, (0,) * len(solved.mesh.axes)) if unit.devices > 1 else step
        return local, prices, timed

    def _local(self, unit: Unit) -> tuple[Graph, Prices, Timed | None]:
        """One device's graph, with what its nodes and its messages take."""
        solved = self._base(unit)
        laid, prices = self._step(unit, solved.way), self._on(solved.mesh)
        laid = self._laid(laid, solved, prices) if unit.devices > 1 else laid
        timed = None if self.kernels is None else self.kernels(laid, solved.mesh)
        local = localize(laid, solved.mesh, (0,) * len(solved.mesh.axes)) if unit.devices > 1 else laid
        return local, prices, timed

    def _rough(self, unit: Unit) -> Rough:
        if unit not in self._read:
            found = rough(*self._local(unit))
            known = self._weights.setdefault  # equal ones are one object
            kept = (
                replace(part, weights=known(part.weights, part.weights), own=known(part.own, part.own))
                for part in found.parts
            )
            self._read[unit] = replace(found, parts=tuple(kept))
        return self._read[unit]

    def _on(self, mesh: Mesh) -> Prices:
        """The prices on a mesh, what has been priced remembered."""
        return self._prices.setdefault(mesh, Prices(mesh, self.cluster))

    def _laid(self, step: Graph, solved: Solved, prices: Prices) -> Graph:
        strategies = carried(step, solved.strategies, self._asked.setdefault(id(step), {}))
        if strategies is None:
            solved = self._solve([step], solved.mesh, solved.wishes)
            strategies = solved.strategies
        return rewrite(step, solved.mesh, dict(strategies), prices.paths, frozenset())

    @property
    def each(self) -> bool:
        """Whether each unit has the layout that is best for it alone; else one of a mesh stands for all."""
        return len(self.rows) <= FEW

    def _base(self, unit: Unit) -> Solved:
        """The layout of a unit, or of its mesh: for the fewest rows, with the first policy that is asked for."""
        base = unit if self.each else replace(unit, rows=self.rows[0])
        key = base if self.each else replace(base, recompute="cheap")
        if key not in self._solved:
            ways = range(len(self.steps) if unit.devices > 1 else 1)
            graphs = _different([self._step(base, way, base.alone) for way in ways])
            mesh, wishes = Mesh(unit.inner), Wishes(_pins(self.thin.recipe.plan, unit))
            if unit.devices > 1:
                mesh, wishes = factored(graphs[0], mesh, wishes)
                check_wishes(graphs[0], mesh, wishes)
            self._solved[key] = self._solve(graphs, mesh, wishes)
        return self._solved[key]

    def _solve(self, graphs: Sequence[Graph], mesh: Mesh, wishes: Wishes) -> Solved:
        """Of steps that compute the same, the one that takes least time on the mesh; one device runs the first."""
        if mesh.devices == 1:
            return Solved(mesh, wishes, {}, 0)
        prices, found = self._on(mesh), list[tuple[float, int, Mapping[str, Strategy]]]()
        for way, graph in enumerate(graphs):
            folded = fold(graph)
            chosen = choices(folded, mesh, wishes)
            solution = Program(folded, chosen, prices, graph.microbatches).solve()
            check_held(folded, solution.strategies, mesh, wishes)
            strategies = {node.id: solution.strategies[folded.of[node.id]] for node in graph}
            found.append((solution.seconds, way, strategies))
        _, way, strategies = min(found, key=lambda one: one[:2])
        return Solved(mesh, wishes, strategies, way)

    def _step(self, unit: Unit, way: int, alone: bool = False) -> Graph:
        """What is read has several microbatches always, so that gradients are sums."""
        key = (unit.recompute, unit.rows, way, alone)
        if key not in self._graphs:
            self._graphs[key] = self.steps[way](self._recipe(unit, 1 if alone else SEVERAL))
        return self._graphs[key]

    def _recipe(self, unit: Unit, microbatches: int) -> Recipe:
        """The thin recipe of one device's rows."""
        plan = Plan(recompute=Recompute(unit.recompute))
        return replace(self.thin.recipe, batch=microbatches * unit.rows, microbatches=microbatches, plan=plan)


Asked = dict[str, dict[tuple[object, ...], Option]]  # of a graph's nodes the options, by what they do


def carried(step: Graph, solved: Mapping[str, Strategy], asked: Asked | None = None) -> dict[str, Strategy] | None:
    """The strategies of a like graph for this one's nodes, in its own dims; None where one is not known there."""
    found: dict[str, Strategy] = {}
    asked = {} if asked is None else asked
    for node in step:
        known = solved.get(node.id) or solved.get(node.id.removeprefix(AGAIN))
        if known is None:
            return None
        if node.id not in asked:
            asked[node.id] = {_does(own): own for own in reversed(options(node))}
        alike = [asked[node.id].get(_does(wanted)) for wanted in known]
        if None in alike:
            return None
        found[node.id] = tuple(option for option in alike if option is not None)
    return found


def _does(option: Option) -> tuple[object, ...]:
    """What an option does, in no dims of its own."""
    return option.operands, option.results, option.apart, option.passes


def _pins(plan: Plan | None, unit: Unit) -> dict[str, tuple[str, ...]]:
    """What a plan pins to axes that cut tensors, what those are there for, and what none may cut."""
    found: dict[str, tuple[str, ...]] = {BATCH: ()}
    for dim, axis in () if plan is None else plan.pins:
        if axis is None or axis in dict(unit.inner):
            found[dim] = (*found.get(dim, ()), *(() if axis is None else (axis,)))
    for dim, axis in unit.cuts:
        if axis not in found.get(dim, ()):
            found[dim] = (*found.get(dim, ()), axis)
    return found


def _can_be_cut(step: Graph, dim: Dim) -> bool:
    """Whether some operator can be cut along a dim."""
    having = (node for node in step if any(dim in use.dims for use in node.uses))
    return any(dim in option.cut for node in having for option in options(node))


def _different(graphs: Sequence[Graph]) -> list[Graph]:
    """Of equal graphs the first."""
    return [graph for at, graph in enumerate(graphs) if all(len(graph) != len(other) for other in graphs[:at])]
