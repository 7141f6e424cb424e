"""The price of a choice message by message, and the choice near the solver's that is the cheapest by it.

In: the integer program, which has terms axis by axis, and a choice that it found. Out: one that costs no more. Many
choices are equal to the program, within what its solver stops at, and differ by hundredths where a value changes along
several axes at once: there the order of the messages counts, and what several readers share. So one goes on from the
solution (iterated conditional modes, Besag 1986): a class takes another strategy, the classes beside it answer with
what is then best for them, and so on as far as it reaches; if all together is cheaper, it stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ..ir.layout import Layout
from ..ir.types import Dims, Phase
from .fold import ClassId, Read
from .price import BESIDE
from .relayout import Move, Paths
from .solve import Program
from .strategies import Strategy

_REACH = 16  # classes that change together
_LEAST = 1e-5  # of the step: what saves no more is not looked for
_TRIES = 400  # those that send most first

Picks = dict[ClassId, int]  # which strategy, of each class that chooses for those that choose alike


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who chooses for a reader, and the number of the layout that each of its strategies wants."""

    name: ClassId
    wanted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Term:
    """A value and the readers that share what is brought to them. kind: the number of its dims, its type's size and
    whether the forward makes it."""

    source: ClassId
    made: tuple[int, ...]
    readers: tuple[_Reader, ...]
    kind: int
    times: float


_Kind = tuple[Dims, int, bool]
_Way = tuple[tuple[object, float], ...]  # messages, each with what tells it from others, and its seconds


@dataclass
class Exact:
    """The prices of a program's choices; what a value costs to be brought somewhere is reckoned once. memory_bytes:
    what may last on a device of a choice that is looked for."""

    program: Program
    memory_bytes: int | None = None
    paths: Paths = field(init=False)
    layouts: dict[Layout, int] = field(default_factory=dict[Layout, int])  # each with its number
    kinds: dict[_Kind, int] = field(default_factory=dict[_Kind, int])
    ways: dict[tuple[int, int, int], _Way] = field(default_factory=dict[tuple[int, int, int], _Way])
    known: dict[object, float] = field(default_factory=dict[object, float])
    made: set[ClassId] = field(default_factory=set[ClassId])

    def __post_init__(self) -> None:
        self.paths = self.program.prices.paths

    def seconds(self, strategies: Mapping[ClassId, Strategy]) -> float:
        """What a step takes."""
        return self._total(self._picks(strategies))

    def improved(
        self, strategies: Mapping[ClassId, Strategy], made: Collection[ClassId] = ()
    ) -> tuple[dict[ClassId, Strategy], float]:
        """A choice that takes no longer, and what it takes. It keeps to the memory, and to what is `made`
        already."""
        picks = self._picks(strategies)
        self.made = {self.program.chosen.same[name] for name in made}
        total = self._total(picks)
        tries = _TRIES
        while tries > 0:
            sent = {
                name: sum(self._term(self.terms[at], picks) for at in terms) for name, terms in self.terms_of.items()
            }
            saved = 0.0
            for name in sorted(sent, key=sent.__getitem__, reverse=True):
                for k in range(len(self.program.choices[name])):
                    if tries > 0 and self._could_save(picks, name, k) > _LEAST * total:
                        tries -= 1
                        saved += self._tried(picks, name, k, _LEAST * total)
            if not saved:
                break
        return self._strategies(picks), self._total(picks)

    def _tried(self, picks: Picks, name: ClassId, k: int, least: float) -> float:
        """Takes what begins with one class and its strategy k where that saves something; what it saves."""
        changed = self._answers(picks, name, k)
        less = self._less(picks, changed)
        if less <= least or not self._fits({**picks, **changed}):
            return 0.0
        picks.update(changed)
        return less

    def _could_save(self, picks: Picks, name: ClassId, k: int) -> float:
        """The most that a class can save by its strategy k: all that is sent to it and from it."""
        if k == picks[name] or name in self.made:
            return 0.0
        sent = sum(self._term(self.terms[at], picks) for at in self.terms_of[name])
        return sent + self._own(name, picks[name]) - self._own(name, k)

    # ---- choices

    def _picks(self, strategies: Mapping[ClassId, Strategy]) -> Picks:
        return {name: self.program.choices[name].index(strategies[name]) for name in self.terms_of}

    def _strategies(self, picks: Picks) -> dict[ClassId, Strategy]:
        same = self.program.chosen.same
        return {name: every[picks[same[name]]] for name, every in self.program.choices.items()}

    def _fits(self, picks: Picks) -> bool:
        limit = self.memory_bytes
        return limit is None or self.program.resident.bytes(self._strategies(picks)) <= limit

    def _answers(self, picks: Picks, name: ClassId, k: int) -> Picks:
        """What changes when a class takes its strategy k and others answer."""
        changed, now = {name: k}, {**picks, name: k}
        open_ = list(self.beside[name])
        while open_ and len(changed) < _REACH:
            here = open_.pop(0)
            best = None if here in changed or here in self.made else self._best(now, here)
            if best is not None:
                changed[here] = now[here] = best
                open_ += self.beside[here]
        return changed

    def _best(self, picks: Picks, name: ClassId) -> int | None:
        """The strategy that is best for a class as all others are; None where it has it."""
        has = picks[name]
        sent = sum(self._term(self.terms[at], picks) for at in self.terms_of[name])
        best, least = has, self._own(name, has) + sent
        for k in range(len(self.program.choices[name])):
            seconds = self._own(name, k)
            picks[name] = k
            for at in self.terms_of[name]:
                if seconds >= least:
                    break
                seconds += self._term(self.terms[at], picks)
            if seconds < least:
                best, least = k, seconds
        picks[name] = has
        return best if best != has else None

    # ---- prices

    def _total(self, picks: Picks) -> float:
        return sum(self._own(name, k) for name, k in picks.items()) + sum(self._term(one, picks) for one in self.terms)

    def _less(self, picks: Picks, changed: Picks) -> float:
        """What a change saves."""
        now = {**picks, **changed}
        terms = {at for name in changed for at in self.terms_of[name]}
        own = sum(self._own(name, picks[name]) - self._own(name, k) for name, k in changed.items())
        return own + sum(self._term(self.terms[at], picks) - self._term(self.terms[at], now) for at in terms)

    def _own(self, name: ClassId, k: int) -> float:
        return self.program.costs[self.program.first[name] + k]

    def _term(self, term: _Term, picks: Picks) -> float:
        """Seconds of bringing a value to all that read it."""
        has = term.made[picks[term.source]]
        wanted = frozenset([reader.wanted[picks[reader.name]] for reader in term.readers])
        key = (term.kind, has, wanted)
        if key not in self.known:
            self.known[key] = self._brought(term.kind, has, wanted)
        return term.times * self.known[key]

    def _brought(self, kind: int, has: int, wanted: frozenset[int]) -> float:
        """Each message once, however many need it."""
        messages: dict[object, float] = {}
        for want in wanted:
            if want // 2 != has // 2:
                if (kind, has, want) not in self.ways:
                    self.ways[kind, has, want] = tuple(self._way(kind, has, want))
                messages.update(self.ways[kind, has, want])
        return sum(messages.values())

    def _way(self, kind: int, has: int, want: int) -> Iterator[tuple[object, float]]:
        """The messages to one reader; what is gathered for the backward is gathered for it alone."""
        (dims, itemsize, forward), layouts = list(self.kinds)[kind], list(self.layouts)
        _, path = self.paths.find(dims, itemsize, layouts[has // 2], layouts[want // 2])
        late, before, prices = False, tuple[Move, ...](), self.program.prices
        for move in path:
            gathers = bool(want % 2) and move.op == "all_gather"
            late, before = late or gathers, (*before, move)
            seconds = prices.move_s(move, dims, itemsize) * (BESIDE if gathers else 1.0)
            if forward and move.op == "all_reduce":
                seconds += prices.keep_s(move.after.elements(dims, self.program.mesh) * itemsize)
            yield (tuple(self._number(one.after) for one in before), late), seconds

    # ---- what is read

    @cached_property
    def terms(self) -> list[_Term]:
        """Every value whose layout and its readers' may differ."""
        return [term for read in self.program.folded.reads for term in self._terms(read)]

    @cached_property
    def terms_of(self) -> dict[ClassId, list[int]]:
        """Of each class that chooses, the terms that its choice is in."""
        found: dict[ClassId, list[int]] = {first: [] for first in self.program.chosen.same.values()}
        for at, term in enumerate(self.terms):
            for name in dict.fromkeys((term.source, *(reader.name for reader in term.readers))):
                found[name].append(at)
        return found

    @cached_property
    def beside(self) -> dict[ClassId, list[ClassId]]:
        """Of each class that chooses, those that share a term with it."""
        found: dict[ClassId, list[ClassId]] = {}
        for name, terms in self.terms_of.items():
            near = [(self.terms[at].source, *(reader.name for reader in self.terms[at].readers)) for at in terms]
            found[name] = [one for one in dict.fromkeys(one for names in near for one in names) if one != name]
        return found

    def _terms(self, read: Read) -> Iterator[_Term]:
        program = self.program
        node, same = program.folded.nodes[read.source], program.chosen.same
        out = node.outs[read.output]
        made = program.made(read.source, read.output)
        starts = {program.first[name]: name for name in same.values()}
        numbers = tuple(map(self._number, made))
        kind = (out.dims, out.dtype.itemsize_bytes, node.phase is Phase.FORWARD)
        for readings, times in program.grouped(read):
            readers = tuple(
                _Reader(starts[of.needs[0][0]], tuple(self._number(layout) + of.beside for _, layout in of.needs))
                for of in readings
            )
            if any(len({n // 2 for n in (*numbers, *reader.wanted)}) > 1 for reader in readers):
                known = self.kinds.setdefault(kind, len(self.kinds))
                yield _Term(same[read.source], numbers, readers, known, times)

    def _number(self, layout: Layout) -> int:
        """Even: one more says that what is gathered for a reader goes on beside the computation."""
        return 2 * self.layouts.setdefault(layout, len(self.layouts))
