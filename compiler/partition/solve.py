"""The choice of a strategy for every class of nodes, by an integer program.

    minimise   Σ x[n, s] time(n, s)  +  Σ r[v, a, l, t] time of bringing v over axis a from l to t
    subject to Σ_s x[n, s] = 1,   x in {0, 1}
               y[v, a, l] = Σ x[n, s] over the strategies of v's node that lay v out so
               need[reader, t] ≤ y[v, a, t] + y[v, a, Replicate] + Σ_l r[v, a, l, t],   r[v, a, l, t] ≤ y[v, a, l]
               hold[v, a, l] ≥ r[v, a, l, Replicate],   Σ resident bytes + Σ hold[v, a, l] bytes of v on axis a ≤ memory

A value is brought to a layout once, whoever reads it so: r is bounded below by each reader, not by their sum. Changes
of layout are priced axis by axis, at the size that the other axes leave of the value; what is replicated is cut for
nothing. What is gathered once a step for all microbatches is held for all of it. The linear relaxation comes first:
where its solution is whole, it is the program's. In the terms of Alpa (Zheng et al. 2022, section 4.1), with a reader's
need in the place of its quadratic edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..integer import Integer, Row
from ..ir.layout import Axes, Layout, Mesh
from ..ir.types import Dims, Node, Phase
from .choices import Choices
from .fold import OUTPUT, ClassId, Folded, Read
from .price import BESIDE, Ons, Prices, awaiting_no_gradient
from .resident import PER_MICROBATCH, Resident
from .strategies import Strategy, operand_layout, result_layouts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHOLE = 1e-6  # how near to 0 or 1 a solution is whole
_GOOD = 1e-3  # a choice that near to the bound is taken
_WORK = 20e6  # of one search, see `Integer.best`
Needs = list[tuple[int, Layout]]  # the variables of a reader, and the layout that each wants
# That, the bytes that the other axes leave of the value, and which axes further out cut it.
Source = tuple[Ons, int, Axes]
Target = tuple[Ons, Axes]  # that, and which axes further out still cut what is gathered
Pair = tuple[Source, Target]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader of a value: its phase (None: the graph's output), and its variables with the layout that each wants.

    beside: whether what is gathered for it is gathered for the backward alone, where no gradient is waited for
    """

    phase: Phase | None
    needs: Needs
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Solution:
    """strategies: of every class. seconds: what a step takes. gap: of the program's bound, 0 where it is proven.
    relaxed: the linear relaxation's seconds. variables, constraints: how large the program was."""

    strategies: Mapping[ClassId, Strategy]
    seconds: float
    gap: float
    relaxed: float
    variables: int
    constraints: int


class Infeasible(Exception):
    """No choice fits: the memory does not suffice."""


def _ons(layout: Layout, factors: Axes) -> Ons:
    """What an axis does to a value, factor by factor."""
    return tuple(layout.on(axis) for axis in factors)


def _gathers(source: Source, target: Target) -> bool:
    """Whether the parts of a value are put together."""
    return any(isinstance(on, int) and to is None for on, to in zip(source[0], target[0], strict=True))


@dataclass
class Program:
    """The integer program, row by row."""

    folded: Folded
    chosen: Choices
    prices: Prices
    microbatches: int
    memory_bytes: int | None = None
    again: frozenset[ClassId] = frozenset()
    flying: float = 1.0  # microbatches whose activations are there at a time
    spare_bytes: int = 0  # of the memory: what is gathered over several axes is more than axis by axis
    costs: list[float] = field(default_factory=list[float])
    first: dict[ClassId, int] = field(default_factory=dict[ClassId, int])
    _made: dict[tuple[ClassId, int], list[Layout]] = field(default_factory=dict[tuple[ClassId, int], list[Layout]])
    rows: list[Row] = field(default_factory=list[Row])
    _held: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # variables, with the bytes of each

    def __post_init__(self) -> None:
        self.choices = self.chosen.strategies
        for name in self.choices:
            self._class(name, self.chosen.same[name])
        self.picks = len(self.costs)
        for read in self.folded.reads:
            self._read(read)
        if self.memory_bytes is not None:
            self.rows.append(self.resident.row(self.memory_bytes - self.spare_bytes, self._held))

    @cached_property
    def early(self) -> frozenset[ClassId]:
        """The classes whose values await no gradient."""
        return awaiting_no_gradient(self.folded.nodes.values(), self.folded.of)

    @cached_property
    def resident(self) -> Resident:
        """What stays on a device under a choice."""
        return Resident(self)

    @property
    def mesh(self) -> Mesh:
        """The mesh that is laid out on."""
        return self.prices.mesh

    def _class(self, name: ClassId, same: ClassId) -> None:
        """The variables of a class, or of those that choose alike."""
        node = self.folded.nodes[name]
        times = self.folded.counts[name] * (self.microbatches if node.phase in PER_MICROBATCH else 1)
        seconds = [times * self.prices.node_s(node, strategy) for strategy in self.choices[name]]
        assert seconds, f"{name} has a strategy"
        if same not in self.first:
            start = self.first[same] = len(self.costs)
            self.costs += [0.0] * len(seconds)
            self.rows.append((list(range(start, len(self.costs))), [1.0] * len(seconds), 1.0, 1.0))
        self.first[name] = self.first[same]
        for i, each in enumerate(seconds):
            self.costs[self.first[same] + i] += each

    def made(self, name: ClassId, output: int) -> list[Layout]:
        """How a result lies, strategy by strategy."""
        if (name, output) not in self._made:
            node = self.folded.nodes[name]
            every = [result_layouts(node, strategy, self.mesh) for strategy in self.choices[name]]
            for index in range(len(node.outs)):
                self._made[name, index] = [layouts[index] for layouts in every]
        return self._made[name, output]

    # ---- what is read

    def _read(self, read: Read) -> None:
        """The terms of the values of one class that the same readers read."""
        node = self.folded.nodes[read.source]
        made = self.made(read.source, read.output)
        for readers, times in self.grouped(read):
            for _, factors in self.mesh.whole_axes:
                self._axis(read, node, made, readers, factors, times)

    def grouped(self, read: Read) -> list[tuple[list[Reading], float]]:
        """Readers that share what is brought to them, and how often that is in a step."""
        node, wanted = self.folded.nodes[read.source], self.wanted(read)
        each = float(self.microbatches)
        if node.phase is not Phase.PREPARE:
            once = node.op == "accumulate" or node.phase is Phase.UPDATE
            return [(list(wanted.values()), read.count * (1.0 if once else each))]
        groups: dict[Phase | None, list[Reading]] = {}
        for reader in wanted.values():
            apart = reader.phase if read.source in self.again and reader.phase in PER_MICROBATCH else None
            groups.setdefault(apart, []).append(reader)
        return [(readers, read.count * (1.0 if phase is None else each)) for phase, readers in groups.items()]

    def wanted(self, read: Read) -> dict[str, Reading]:
        """Each reader."""
        found: dict[str, Reading] = {}
        for name, place in read.readers:
            if name.startswith(OUTPUT) or self._alike(read, name, place):
                continue
            node = self.folded.nodes[name]
            if node.op == "assign":
                target = self.folded.of[str(node.attrs["target"])]
                layouts = self.made(target, 0)
                start = self.first[target]
            else:
                layouts = [operand_layout(node, s, self.mesh, place) for s in self.choices[name]]
                start = self.first[name]
            needs = [(start + i, layout) for i, layout in enumerate(layouts)]
            found[f"{name}#{place}"] = Reading(
                node.phase, needs, node.phase is Phase.BACKWARD and read.source in self.early
            )
        if any(name.startswith(OUTPUT) for name, _ in read.readers):
            found["output"] = Reading(None, self._whole_output(read))
        return found

    def _alike(self, read: Read, name: ClassId, place: int) -> bool:
        """Whether the reader wants the value as it is, whatever is chosen, because both choose alike."""
        node = self.folded.nodes[name]
        alike = node.op != "assign" and self.chosen.same[name] == self.chosen.same[read.source]
        target = self.folded.of[str(node.attrs["target"])] if node.op == "assign" else name
        return alike or (node.op == "assign" and self.chosen.same[target] == self.chosen.same[read.source])

    def _whole_output(self, read: Read) -> list[tuple[int, Layout]]:
        """An output owes nothing: it is wanted as it is made, its terms joined."""
        start = self.first[read.source]
        return [(start + i, Layout(layout.shards)) for i, layout in enumerate(self.made(read.source, read.output))]

    def _axis(
        self,
        read: Read,
        node: Node,
        made: list[Layout],
        readers: list[Reading],
        factors: Axes,
        times: float,
    ) -> None:
        start, out = self.first[read.source], node.outs[read.output]
        sources: dict[Source, list[int]] = {}
        for i, layout in enumerate(made):
            rest = layout
            for axis in factors:
                rest = rest.with_axis(axis, None, self.mesh)
            size, outer = self.prices.part_bytes(out, rest), self._outer_cuts(layout, factors)
            sources.setdefault((_ons(layout, factors), size, outer), []).append(start + i)
        targets = dict.fromkeys(self._target(layout, factors) for reader in readers for _, layout in reader.needs)
        nothing = (None,) * len(factors)
        if len({on for on, _ in targets}) == 1 and {on for on, _, _ in sources} <= {next(iter(targets))[0], nothing}:
            return
        forward = node.phase is Phase.FORWARD
        kept = self.prices.keep_s(max(size for _, size, _ in sources)) if forward else 0.0
        prices = {
            (source, target): times
            * (
                self._grown(source, target, factors, out.dims)
                + kept * (target[0] == nothing and not _gathers(source, target))
            )
            for source in sources
            for target in targets
            if source[0] not in (target[0], nothing)
        }
        late = {pair: price * (BESIDE if _gathers(*pair) else 1.0) for pair, price in prices.items()}
        hold = self._hold(read, node, prices)
        if len(readers) == 1:
            flows = self._flow(sources, readers[0].needs, factors, {}, late if readers[0].beside else prices)
            self._below(flows, hold if readers[0].phase in PER_MICROBATCH else {})
            return
        first = {pair: self._variable(price) for pair, price in prices.items()}
        again = {pair: self._variable(late[pair]) if _gathers(*pair) else first[pair] for pair in prices}
        for reader in readers:
            flows = self._flow(sources, reader.needs, factors, again if reader.beside else first, {})
            self._below(flows, hold if reader.phase in PER_MICROBATCH else {})

    def _hold(self, read: Read, node: Node, pairs: Iterable[Pair]) -> dict[Pair, int]:
        """Where memory is bounded, a variable for each gathering that lasts: what it gathers is held all the step."""
        if self.memory_bytes is None or not self.lasts(read.source):
            return {}
        hold = {pair: self._variable(0.0) for pair in pairs if _gathers(*pair)}
        self._held += [(place, read.count * pair[0][1]) for pair, place in hold.items()]
        return hold

    def lasts(self, name: ClassId) -> bool:
        """Whether a value is gathered once for all microbatches: what each phase gathers for itself, it drops."""
        return self.folded.nodes[name].phase is Phase.PREPARE and name not in self.again

    def _outer_cuts(self, layout: Layout, factors: Axes) -> Axes:
        """Which axes before these cut the value."""
        return tuple(
            axis for axis in self.mesh.names[: self.mesh.order(factors[0])] if isinstance(layout.on(axis), int)
        )

    def _target(self, layout: Layout, factors: Axes) -> Target:
        """What a reader wants of an axis."""
        ons = _ons(layout, factors)
        return ons, self._outer_cuts(layout, factors) if all(on is None for on in ons) else ()

    def _grown(self, source: Source, target: Target, factors: Axes, dims: Dims) -> float:
        """Seconds of a change; a value is gathered over slow links first, while it is short, so here it is longer by
        what is gathered over axes further out."""
        ons, size, cut = source
        if all(on is None for on in target[0]):
            for axis in cut:
                size *= 1 if axis in target[1] else self.mesh.size(axis)
        return self.prices.changes_s(factors, ons, target[0], size, dims)

    def _flow(
        self, sources: Mapping[Source, list[int]], needs: Needs, factors: Axes,
        shared: Mapping[Pair, int], prices: Mapping[Pair, float],
    ) -> dict[Pair, int]:  # fmt: skip
        """What one reader takes from each layout that the value may have, for each that it may want."""
        wanting: dict[Target, list[int]] = {}
        for place, layout in needs:
            wanting.setdefault(self._target(layout, factors), []).append(place)
        flows = {
            (source, target): self._variable(prices.get((source, target), 0.0))
            for source in sources
            for target in wanting
        }
        for source, places in sources.items():
            self._equal([flows[source, target] for target in wanting], places)
        for target, places in wanting.items():
            self._equal([flows[source, target] for source in sources], places)
        self._below(flows, shared)
        return flows

    def _below(self, flows: Mapping[Pair, int], shared: Mapping[Pair, int]) -> None:
        """flow ≤ what is shared"""
        for pair, moved in shared.items():
            if pair in flows:
                self.rows.append(([flows[pair], moved], [1.0, -1.0], -float("inf"), 0.0))

    def _equal(self, left: list[int], right: list[int]) -> None:
        """Σ left = Σ right"""
        self.rows.append(([*left, *right], [*[1.0] * len(left), *[-1.0] * len(right)], 0.0, 0.0))

    def _variable(self, cost: float) -> int:
        self.costs.append(cost)
        return len(self.costs) - 1

    # ---- solving

    @cached_property
    def integer(self) -> Integer:
        """The program as the solver takes it. Flows and moves are whole where the picks are."""
        return Integer(self.costs, self.rows, (0, self.picks))

    def solve(self, made: Mapping[ClassId, Strategy] | None = None) -> Solution:
        """The best choice, some of it `made` already. Raises Infeasible where none fits the memory.

        What the relaxation leaves undecided is decided with the rest kept; where that costs more than a thousandth
        over the relaxation's bound, everything is decided anew, from there on.
        """
        low = self._kept(made or {})
        relaxed = self.integer.relaxed(low)
        if relaxed.x is None:
            raise Infeasible
        best, bound = relaxed, relaxed.value
        if not self._is_whole(relaxed.x):
            best = self.integer.best(self._decided(relaxed.x), gap=_GOOD / 2, work=_WORK)
            if best.x is None or best.value > bound * (1 + _GOOD):
                best = self.integer.best(low, start=best, presolve=False, gap=_GOOD / 2, work=_WORK)
                bound = max(bound, best.bound)
        if best.x is None:
            raise Infeasible
        gap = max(0.0, 1 - bound / best.value) if best.value > 0 else 0.0
        return Solution(self._picked(best.x), best.value, gap, relaxed.value, len(self.costs), len(self.rows))

    def bound(self) -> float:
        """Seconds that no choice is below; infinite where none fits the memory."""
        return self.integer.relaxed(self._kept({})).value

    def price(self, picked: Mapping[ClassId, Strategy]) -> float:
        """The seconds of a choice, everything brought where it is wanted in the cheapest way; infinite if barred."""
        return self.integer.relaxed(self._kept(picked)).value

    def _kept(self, picked: Mapping[ClassId, Strategy]) -> NDArray[Any]:
        """The lower bounds that a choice is."""
        import numpy as np  # late: loading it takes a fifth of checking a spec

        low = np.zeros(len(self.costs))
        for name, strategy in picked.items():
            low[self.first[name] + self.choices[name].index(strategy)] = 1
        return low

    def _decided(self, x: NDArray[Any]) -> NDArray[Any]:
        """The lower bounds that keep what the relaxation has decided."""
        kept = (x >= 1 - _WHOLE).astype(float)
        kept[self.picks :] = 0
        return kept

    def _is_whole(self, x: NDArray[Any]) -> bool:
        picks = x[: self.picks]
        return bool((abs(picks - picks.round()) <= _WHOLE).all())

    def _picked(self, x: NDArray[Any]) -> dict[ClassId, Strategy]:
        found: dict[ClassId, Strategy] = {}
        for name, strategies in self.choices.items():
            at = self.first[name]
            found[name] = strategies[int(x[at : at + len(strategies)].argmax())]
        return found
