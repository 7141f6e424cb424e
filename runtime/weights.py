"""Weights by a map: parameters out of the tensors of others, and back, exactly.

In: a weight map as plain data (the compiler writes it; this reads it) and tensors by name. The one equation, in either
direction, with `here` and `there` as boxes of (start, length) on every axis:

    theirs.reshape(axes)[there].permute(order).reshape(sizes of here) = ours[here]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from .fault import RuntimeFault
from .safetensors_files import FLOATS, Files

Box = tuple[tuple[int, int], ...]
Read = Callable[[str], torch.Tensor]
SHOWN = 5  # faults that a message names
_OLD = re.compile(r"\.(weight|bias)$")
_OLD_ENDS = MappingProxyType({".weight": ".gamma", ".bias": ".beta"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor of theirs and the part of a parameter that it is."""

    parameter: str
    here: Box
    there: Box
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Theirs:
    """A tensor of theirs. `tied`: a second name, which a file need not hold and which is not written."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    pieces: tuple[Piece, ...]
    tied: bool


@dataclass(frozen=True, slots=True)
class WeightMap:
    """A whole map. `anew`: parameters that theirs do not hold, which begin as declared.

    `states`: those of the model's own that theirs hold; to pieces and in files they are as parameters.
    """

    model: str
    size: str | None
    source: str
    tensors: tuple[Theirs, ...]
    skips: tuple[str, ...]
    config: Mapping[str, Any]
    parameters: Mapping[str, tuple[int, ...]]
    anew: tuple[str, ...]
    states: Mapping[str, tuple[int, ...]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What pieces may be of: every parameter, and the states."""
        return {**self.parameters, **self.states}


def from_plain(data: Mapping[str, Any]) -> WeightMap:
    """The map that the compiler's `plain` gave, also through JSON."""
    tensors = tuple(
        Theirs(one["name"], tuple(one["shape"]), tuple(one["axes"]), tuple(map(_piece, one["pieces"])), one["tied"])
        for one in data["tensors"]
    )
    shapes, states = ({name: tuple(one) for name, one in data[key].items()} for key in ("parameters", "states"))
    return WeightMap(
        data["model"], data["size"], data["source"], tensors, tuple(data["skips"]), data["config"], shapes,
        tuple(data["anew"]), states,
    )  # fmt: skip


def _piece(data: Mapping[str, Any]) -> Piece:
    here, there = (tuple((start, length) for start, length in data[side]) for side in ("here", "there"))
    return Piece(data["parameter"], here, there, tuple(data["order"]))


# ---- theirs to ours


@dataclass(frozen=True, slots=True)
class Source:
    """Files that fit a map: what each parameter and state is made of, and what the map's names are called there."""

    files: Files
    names: Mapping[str, str]
    parts: Mapping[str, tuple[tuple[Theirs, Piece], ...]]
    shapes: Mapping[str, tuple[int, ...]]

    def parameter(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One parameter or state, gathered from theirs."""
        found = torch.empty(self.shapes[name], dtype=dtype)
        for theirs, piece in self.parts[name]:
            view = _there(self.files.read(self.names[theirs.name]), theirs, piece)
            target = _box(found, piece.here)
            target.copy_(view.reshape(target.shape))
        return found

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that the files hold, in the model's order, and the states."""
        return tuple(name for name in self.shapes if name in self.parts)


def fitted(files: Files, weights: WeightMap) -> Source:
    """Hold the files against a map, reading headers and second names alone. Raises `RuntimeFault` E0551, E0550."""
    names = _names(files, weights)
    faults = [line for theirs in weights.tensors for line in _misfits(files, theirs, names)]
    known = set(names.values())
    skipped = re.compile("|".join(_pattern(skip) for skip in weights.skips) or r"(?!)")
    faults += [
        f"{name} {list(entry.shape)} is in the file, and the map knows nothing of it"
        for name, entry in files.entries.items()
        if name not in known and not skipped.fullmatch(name)
    ]
    if faults:
        raise _misfit(files, weights, faults)
    parts: dict[str, list[tuple[Theirs, Piece]]] = {}
    for theirs in weights.tensors:
        for piece in () if theirs.tied else theirs.pieces:
            parts.setdefault(piece.parameter, []).append((theirs, piece))
    source = Source(files, names, {name: tuple(found) for name, found in parts.items()}, weights.shapes)
    _check_tied(source, weights)
    return source


def _names(files: Files, weights: WeightMap) -> dict[str, str]:
    """What the map's names are called in the files: some files hold a model below a name of its own, some do not.

    `wte.weight` may be `transformer.wte.weight` there and `transformer.h` be `h`, with one such name for a whole file;
    and norms of an age ago have a gamma and a beta.
    """
    wanted = [theirs.name for theirs in weights.tensors if not theirs.tied]
    there = files.entries
    outer = {name[: -len(want) - 1] for want in wanted[:1] for name in there if name.endswith(f".{want}")}
    inner = {want.split(".")[0] for want in wanted[:1] if "." in want}

    def called(prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for theirs in weights.tensors:
            name = theirs.name
            ways = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
            old = [_OLD.sub(lambda end: _OLD_ENDS[end[0]], way) for way in ways]
            found[name] = next((way for way in (*ways, *old) if way in there), name)
        return found

    choices = [called(prefix) for prefix in ("", *sorted(outer), *sorted(inner))]
    return max(choices, key=lambda choice: sum(choice[want] in there for want in wanted))


def _pattern(skip: str) -> str:
    return ".*".join(re.escape(part) for part in skip.split("*"))


def _misfits(files: Files, theirs: Theirs, names: Mapping[str, str]) -> list[str]:
    name = names[theirs.name]
    entry = files.entries.get(name)
    if entry is None:
        return [] if theirs.tied else [f"{theirs.name} {list(theirs.shape)} is not in the file"]
    if entry.shape != theirs.shape:
        return [f"{name} is {list(entry.shape)} in the file and {list(theirs.shape)} by the map"]
    return [] if entry.dtype in FLOATS else [f"{name} is of type {entry.dtype}, and only {', '.join(FLOATS)} are read"]


def _misfit(files: Files, weights: WeightMap, faults: list[str]) -> RuntimeFault:
    size = f".{weights.size}" if weights.size else ""
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    lines = "".join(f"\n  {line}" for line in faults[:SHOWN])
    eight = any(entry.dtype.startswith("F8") for entry in files.entries.values())
    hint = "8-bit floats mean nothing without their scales: convert the weights to BF16 with their publisher's tool"
    title = f"{files.path} does not fit {weights.model}{size}:{lines}{more}"
    return RuntimeFault("E0551", title, hint if eight else None)


def _check_tied(source: Source, weights: WeightMap) -> None:
    """A second name must hold what the parameter does: a file whose head is its own is no tied model."""
    for theirs in weights.tensors:
        if not theirs.tied or source.names[theirs.name] not in source.files.entries:
            continue
        second = source.files.read(source.names[theirs.name])
        for piece in theirs.pieces:
            ours = _box(source.parameter(piece.parameter, second.dtype), piece.here)
            if not torch.equal(_there(second, theirs, piece).reshape(ours.shape), ours):
                line = f"{source.names[theirs.name]} is tied to {piece.parameter} by the map and has other values"
                raise _misfit(source.files, weights, [line])


# ---- ours to theirs


def tensor(theirs: Theirs, read: Read) -> torch.Tensor:
    """One tensor of theirs, gathered from parameters."""
    found: torch.Tensor | None = None
    for piece in theirs.pieces:
        ours = _box(read(piece.parameter), piece.here)
        if found is None:
            found = ours.new_empty(theirs.axes)
        target = _box(found, piece.there).permute(piece.order)
        target.copy_(ours.reshape(target.shape))
    assert found is not None, "a tensor has pieces"
    return found.reshape(theirs.shape)


def names_used(tensors: Iterable[Theirs]) -> list[str]:
    """The parameters that some tensors of theirs are made of."""
    return list(dict.fromkeys(piece.parameter for theirs in tensors for piece in theirs.pieces))


def _there(whole: torch.Tensor, theirs: Theirs, piece: Piece) -> torch.Tensor:
    return _box(whole.reshape(theirs.axes), piece.there).permute(piece.order)


def _box(whole: torch.Tensor, box: Box) -> torch.Tensor:
    for axis, (start, length) in enumerate(box):
        whole = whole.narrow(axis, start, length)
    return whole
