"""Weight maps: `weights GPT2 "openai-community/gpt2" { … }` to plain data, and what is wrong with one.

In: a spec, a model and a row of its sizes. Out: `Weights`, loops unrolled and layouts worked out. A map covers
every parameter of its model exactly once; a model that is derived from it and has more parameters begins those anew.
A state of the model's own may be covered, once and whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..base.diagnostic import Diagnostic, Diagnostics, Label, SpecError, did_you_mean
from ..base.span import Span
from ..ir.types import Dims
from ..language import syntax as s
from . import dims as d
from .arithmetic import decided
from .frame import Budget, Fault, Frame
from .load import Spec
from .models import Elaborated, Request, lineage, make_model
from .owned import all_parameters, all_states
from .weight_config import configuration
from .weight_data import Piece, Theirs, Weights
from .weight_layout import Fit, fit
from .weight_paths import Irregular, Parameter, parameters

_HOLE = re.compile(r"\{([^{}]*)\}")
_SUM = re.compile(r"\s*(\w+)\s*(?:([+-])\s*(\w+)\s*)?")
Shape = tuple[int, ...]
MAX_PIECES = 1_000_000
SHOWN = 5  # parameters that a message names


def weight_map(
    spec: Spec, model: str | None = None, *, size: str | None = None, dims: Mapping[str, int] | None = None,
    options: Mapping[str, object] | None = None,
) -> Weights:  # fmt: skip
    """The map of a model, or of the one that it is derived from. Raises SpecError, also where there is none."""
    made = make_model(spec, model, Request(size, dims or {}, options or {}))
    names = [decl.name.text for decl in lineage(spec, model)]
    for name in names:
        decl = _find(spec, name, made.facts.size)
        if decl is not None:
            return _guarded(made, decl, spec, whole=name == names[0], checks=False)
    known = [decl.model.text for decl in _declared(spec)]
    hint = did_you_mean(names[0], known) or f'declare one: weights {names[0]} "org/name" {{ … }}'
    raise SpecError(Diagnostic("E0800", f"there is no weight map of {names[0]}", hint=hint))


def check_weights(spec: Spec, sink: Diagnostics, budget: Budget) -> None:
    """Adds what is wrong with the maps of a spec's own file, each for its size or the first one."""
    seen: dict[tuple[str, str], s.Weights] = {}
    for decl in spec.main.file.declarations:
        if not isinstance(decl, s.Weights) or budget.exhausted:
            continue
        key = decl.model.text, decl.size.text if decl.size else ""
        first = seen.setdefault(key, decl)
        if first is not decl:
            others = (Label(first.model.span, "here first"),)
            sink.error("E0102", f"{decl.model} has two weight maps", decl.model.span, "again here", others=others)
            continue
        if decl.model.text not in spec.models:
            hint = did_you_mean(decl.model.text, spec.models)
            sink.error("E0110", f"there is no model `{decl.model}`", decl.model.span, hint=hint)
            continue
        try:
            made = make_model(spec, decl.model.text, Request(decl.size.text if decl.size else None, budget=budget))
            _guarded(made, decl, spec, whole=True, checks=True)
        except SpecError as error:
            sink.extend(error.diagnostics)


def _declared(spec: Spec) -> Iterator[s.Weights]:
    for module in spec.modules:
        yield from (decl for decl in module.file.declarations if isinstance(decl, s.Weights))


def _find(spec: Spec, model: str, size: str | None) -> s.Weights | None:
    """The map of a size, else the one of all sizes; the nearest file's."""
    own = [decl for decl in _declared(spec) if decl.model.text == model]
    exact = [decl for decl in own if decl.size is not None and decl.size.text == size]
    return next(iter([*exact, *(decl for decl in own if decl.size is None)]), None)


# ---- one map


def _guarded(made: Elaborated, decl: s.Weights, spec: Spec, *, whole: bool, checks: bool) -> Weights:
    reader = _Reader(made, checks)
    try:
        lines = _inherited(made.frame, spec, decl)
        reader.entries(made.frame, lines)
        config = configuration(made.frame, [line for line in lines if isinstance(line, s.WeightConfig)])
    except Fault:
        config = {}
    made.context.sink.raise_if_errors()
    shapes = {name: _shape(one.dims) for name, one, _ in all_parameters(made.instance)}
    states = {name: _shape(one.dims) for name, one, _ in all_states(made.instance) if name in reader.covered}
    anew = reader.cover(shapes, states, decl, whole)
    made.context.sink.raise_if_errors()
    return Weights(
        made.facts.model, made.facts.size, decl.source.value, tuple(reader.tensors), tuple(reader.skips), config,
        shapes, anew, states,
    )  # fmt: skip


def _inherited(frame: Frame, spec: Spec, decl: s.Weights) -> tuple[s.WeightEntry, ...]:
    """A map's entries behind those of the map that it extends; an entry of a name takes the place of the base's."""
    found, open_ = decl.entries, [decl]
    while open_[-1].base is not None:
        wanted = open_[-1].base
        base = _find(spec, wanted.model.text, wanted.size.text if wanted.size else None)
        if base is None:
            hint = did_you_mean(wanted.model.text, [one.model.text for one in _declared(spec)])
            raise frame.fault("E0800", f"there is no weight map of {wanted.text}", wanted.span, hint=hint)
        if any(base is one for one in open_):
            raise frame.fault("E0312", f"the weight map of {wanted.text} extends itself", wanted.span)
        open_.append(base)
        found = (*_without(base.entries, set(_names(found))), *found)
    return found


def _names(entries: Iterable[s.WeightEntry]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, s.WeightFor):
            yield from _names(entry.entries)
        elif isinstance(entry, s.WeightMap):
            yield entry.name.value
        elif isinstance(entry, s.WeightSkip):
            yield entry.pattern.value


def _maps(entries: Iterable[s.WeightEntry]) -> Iterator[s.WeightMap]:
    for entry in entries:
        if isinstance(entry, s.WeightFor):
            yield from _maps(entry.entries)
        elif isinstance(entry, s.WeightMap):
            yield entry


def _asks(entry: s.WeightMap, index: str) -> bool:
    """Whether an index decides something, or a path goes without it."""
    paths = [{name for step in path.steps for name in d.names_in(step)} for path in entry.paths]
    asked = entry.condition is not None and index in d.names_in(entry.condition)
    return asked or not all(index in names for names in paths)


def _without(entries: Iterable[s.WeightEntry], names: set[str]) -> tuple[s.WeightEntry, ...]:
    kept = [
        replace(entry, entries=_without(entry.entries, names)) if isinstance(entry, s.WeightFor) else entry
        for entry in entries
    ]
    return tuple(entry for entry in kept if isinstance(entry, s.WeightFor) or not names & set(_names([entry])))


@dataclass(slots=True)
class _Reader:
    """What was read so far. `fits`: layouts worked out, by entry, part and kind of layer.

    `checks`: nothing is made of it, so a loop over all members of a bank is read once (they are alike), its index being
    in `every`, with how many there are.
    """

    made: Elaborated
    checks: bool
    every: Mapping[str, int] = field(default_factory=dict[str, int])
    tensors: list[Theirs] = field(default_factory=list[Theirs])
    skips: list[str] = field(default_factory=list[str])
    names: dict[str, Span] = field(default_factory=dict[str, Span])
    covered: dict[str, list[tuple[Piece, Span]]] = field(default_factory=dict[str, "list[tuple[Piece, Span]]"])
    fits: dict[object, Fit] = field(default_factory=dict[object, Fit])
    spent: int = 0

    def entries(self, frame: Frame, entries: Iterable[s.WeightEntry]) -> None:
        """Every entry in order; a loop's for each of its indexes."""
        for entry in entries:
            if isinstance(entry, s.WeightFor):
                self.loop(frame, entry)
            elif isinstance(entry, s.WeightSkip):
                self.skips.append(entry.pattern.value)
            elif isinstance(entry, s.WeightMap):
                self.tensor(frame, entry)

    def loop(self, frame: Frame, entry: s.WeightFor) -> None:
        count = d.size(frame, entry.dim)
        if count is None:
            raise frame.fault("E0213", f"the size of {entry.dim.span.text} must be known", entry.dim.span)
        d.taken(frame, entry.index)
        self.spend(frame, entry.span)
        name = entry.index.text
        if self.checks and self.sweeps(frame, entry, count):
            outside, self.every = self.every, {**self.every, name: count}
            self.entries(replace(frame, names={**frame.names, name: 0}), entry.entries)
            self.every = outside
            return
        for index in range(count):
            self.spend(frame, entry.span)
            self.entries(replace(frame, names={**frame.names, name: index}), entry.entries)

    def sweeps(self, frame: Frame, entry: s.WeightFor, count: int) -> bool:
        """Whether a loop's index is nothing but the index of banks of so many members, in every path and every name."""
        name = entry.index.text
        if not all(f"{{{name}}}" in one.name.value and not _asks(one, name) for one in _maps(entry.entries)):
            return False
        trial = _Reader(self.made, True, {**self.every, name: count})
        try:
            trial.entries(replace(frame, names={**frame.names, name: 0}), entry.entries)
        except Irregular:
            return False
        return True

    def spend(self, frame: Frame, span: Span, count: int = 1) -> None:
        """A check answers within a second; weights that are really read may be many more."""
        self.spent += count
        if self.checks:
            frame.context.spend(frame, span, count)
        elif self.spent > MAX_PIECES:
            raise frame.fault("E0311", f"the weight map has more than {MAX_PIECES:,} parts", span)

    def tensor(self, frame: Frame, entry: s.WeightMap) -> None:
        """A tensor of theirs, unless its `when` is false or one leaves out all of its parameters."""
        if entry.condition is not None and not decided(frame, frame.evaluate(entry.condition), entry.condition.span):
            return
        found = [parameters(frame, self.made.instance, path, self.every) for path in entry.paths]
        if all(one is None for one in found):
            return
        name = self.name(frame, entry.name)
        parts = [one for one in found if one is not None]
        if len(parts) < len(found):
            absent = entry.paths[found.index(None)]
            raise frame.fault("E0801", f"`{name}` needs {absent.span.text}, which is left out here", absent.span)
        fits = [self.fit(frame, entry, at, one) for at, one in enumerate(parts)]
        if any(one.axes != fits[0].axes for one in fits):
            shapes = " and ".join(dict.fromkeys(str(list(one.shape)) for one in fits))
            raise frame.fault("E0802", f"the parameters give `{name}` different shapes: {shapes}", entry.name.span)
        pieces = tuple(how.piece(one) for how, many in zip(fits, parts, strict=True) for one in many)
        self.spend(frame, entry.span, len(pieces))
        self.tensors.append(Theirs(name, fits[0].shape, fits[0].axes, pieces, entry.tied))
        for piece in () if entry.tied else pieces:
            self.covered.setdefault(piece.parameter, []).append((piece, entry.name.span))

    def fit(self, frame: Frame, entry: s.WeightMap, part: int, found: list[Parameter]) -> Fit:
        key = id(entry), part, found[0].kind
        if key not in self.fits:
            self.fits[key] = fit(frame, entry.layout, found[0], part, len(entry.paths), entry.paths[part].span)
        return self.fits[key]

    def name(self, frame: Frame, text: s.String) -> str:
        """Their name with `{l}` and `{l + M}` filled in."""
        name = _HOLE.sub(lambda hole: str(_index(frame, hole[1], text.span)), text.value)
        if name in self.names:
            others = (Label(self.names[name], "here first"),)
            raise frame.fault("E0803", f"`{name}` is mapped twice", text.span, "again here", others=others)
        self.names[name] = text.span
        return name

    def cover(
        self, parameters: Mapping[str, Shape], states: Mapping[str, Shape], decl: s.Weights, whole: bool
    ) -> tuple[str, ...]:
        """The parameters that are not mapped, which the map of the model itself must not have.

        Reports these, what is mapped twice, and states of which only a part is.
        """
        frame, shapes = self.made.frame, {**parameters, **states}
        for name, places in self.covered.items():
            boxes = [piece.here for piece, _ in places]
            if len(set(boxes)) < len(boxes) or _volume(boxes) > _volume([_whole(shapes[name])]):
                others = (Label(places[0][1], "here first"),)
                frame.report("E0803", f"{name} is mapped twice", places[-1][1], "again here", others=others)
        lacking = [
            name
            for name, shape in shapes.items()
            if _volume(piece.here for piece, _ in self.covered.get(name, [])) < _volume([_whole(shape)])
        ]
        partly = [name for name in lacking if name in self.covered]
        if partly or (whole and lacking):
            _report_lacking(frame, lacking if whole else partly, shapes, decl)
        return tuple(name for name in lacking if name not in self.covered)


def _report_lacking(frame: Frame, names: list[str], shapes: Mapping[str, Shape], decl: s.Weights) -> None:
    """The layers of a chain in one word."""
    words = list(dict.fromkeys(f"{re.sub(r'[.][0-9]+(?=[.])', '.*', name)} {list(shapes[name])}" for name in names))
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    title = f"the weight map of {decl.model} lacks {', '.join(words[:SHOWN])}{more}"
    frame.report("E0804", title, decl.model.span, hint="map each to a tensor of theirs")


def _shape(dims: Dims) -> Shape:
    return tuple(dim.size or 0 for dim in dims)


def _whole(shape: Shape) -> tuple[tuple[int, int], ...]:
    return tuple((0, size) for size in shape)


def _volume(boxes: Iterable[tuple[tuple[int, int], ...]]) -> int:
    total = 0
    for box in boxes:
        size = 1
        for _, length in box:
            size *= length
        total += size
    return total


def _index(frame: Frame, text: str, span: Span) -> int:
    found = _SUM.fullmatch(text)
    if found is None:
        hint = "between braces stands an index: {l}, {l + 3}, {l + M}"
        raise frame.fault("E0801", f"`{{{text}}}` is no index", span, hint=hint)
    left, sign, right = found.groups()
    value = d.size(frame, _operand(span, left))
    more = d.size(frame, _operand(span, right)) if sign else 0
    assert value is not None and more is not None, "indexes and sizes are known"
    return value - more if sign == "-" else value + more


def _operand(span: Span, text: str) -> s.Dim:
    return s.DimNumber(span, int(text), text) if text.isdecimal() else s.DimRef(span, text)


__all__ = ["Weights", "check_weights", "weight_map"]
