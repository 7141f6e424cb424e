"""A weight map as plain data: for each tensor of theirs, which parts of which parameters of ours it is made of.

A state of the model's own that the map names is a parameter to its pieces.

Out of the compiler's hands it is JSON (`plain`), so that whoever reads and writes weights needs no compiler. The one
equation, read in either direction:

    theirs.reshape(axes)[there].permute(order).reshape(sizes of here) = ours[here]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

Box: TypeAlias = tuple[tuple[int, int], ...]  # (start, length) on every axis
Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor of theirs and the part of a parameter that it is."""

    parameter: str
    here: Box
    there: Box
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Theirs:
    """A tensor of theirs: its shape in the file, and the finer `axes` that its pieces are cut along.

    `tied`: another name for what has one already; a file need not hold it, and then must agree.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    pieces: tuple[Piece, ...]
    tied: bool


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole map. `parameters`: every one of the model with its shape; `anew`: those that theirs do not hold.

    `states`: of the model's own those that the map names; the others begin as declared.
    `skips`: patterns of names that are no parameters; `config`: what their implementation is told.
    """

    model: str
    size: str | None
    source: str
    tensors: tuple[Theirs, ...]
    skips: tuple[str, ...]
    config: Mapping[str, Plain]
    parameters: Mapping[str, tuple[int, ...]]
    anew: tuple[str, ...]
    states: Mapping[str, tuple[int, ...]]

    def plain(self) -> dict[str, Plain]:
        """The map as JSON's own types."""
        return asdict(self)
