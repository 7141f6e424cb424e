"""Rows from files of tensors: images, measurements, labels; whatever is no stream of ids.

In: the record's columns with their files (`.npy`, `.safetensors`) and what a program asks for. Out: batches. A file's
first axis counts rows, several files follow each other, and row i of every column belongs together. Files are mapped,
never read whole, and neither pickled objects nor paths outside the named folder are followed. Which row stands where
follows from (seed, step, microbatch, row) alone, as with streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from .fault import RuntimeFault
from .permutation import keyed, permute
from .program import Input, Program
from .recipe import Column, Training
from .sources import CHECK_BYTES, find_files, out_of_range

FLOATS = ("bf16", "f16", "f32", "f64")


class _Rows(Protocol):
    """A tensor in a file: its whole shape, and rows begin … end-1 of it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, begin: int, end: int) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class _Array:
    """Of a .npy file."""

    array: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def read(self, begin: int, end: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.array[begin:end]))


@dataclass(frozen=True, slots=True)
class _Slice:
    """Of a .safetensors file."""

    part: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.part.get_shape())

    def read(self, begin: int, end: int) -> torch.Tensor:
        return self.part[begin:end]


@dataclass(frozen=True, slots=True)
class _Stored:
    """A column's files behind each other."""

    name: str
    parts: tuple[_Rows, ...]
    places: tuple[str, ...]

    def __len__(self) -> int:
        return sum(part.shape[0] for part in self.parts)

    def row(self, index: int) -> torch.Tensor:
        """[…] one row."""
        for part in self.parts:
            if index < part.shape[0]:
                return part.read(index, index + 1)[0]
            index -= part.shape[0]
        raise AssertionError("a row beyond the data")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of as many rows."""

    columns: Mapping[str, _Stored]
    count: int

    def batches(
        self, training: Training, step: Program, evaluate: Program | None
    ) -> tuple[TableBatches, TableBatches | None]:
        """Those to train on, and those that are held out from the end. Raises E0502 where too few are left."""
        held, end = None, self.count
        if training.evaluate is not None and evaluate is not None:
            end = self.count - int(self.count * training.evaluate.share)
            rows = _rows_of(evaluate) or training.batch
            steps = training.evaluate.batches or max(1, (self.count - end) // rows)
            if end < self.count:
                held = TableBatches(self, end, self.count, _inputs(evaluate), rows, evaluate.microbatches, None, steps)
        if end < 1:
            raise RuntimeFault("E0502", "the data has no row to train on", "give more, or hold out another share")
        rows = _rows_of(step) or training.batch // step.microbatches
        train = TableBatches(
            self, 0, end, _inputs(step), rows, step.microbatches, training.seed, training.steps * training.runs_per_step
        )
        return train, held


@dataclass(frozen=True, slots=True)
class TableBatches:
    """Batches of the rows `begin` … `end`-1 for one program. `seed` None: in order and evenly spread."""

    table: Table
    begin: int
    end: int
    inputs: tuple[Input, ...]
    rows: int
    microbatches: int
    seed: int | None
    steps: int

    def batch(self, step: int, microbatch: int, part: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
        """What the program's data inputs get, of their shapes. Raises E0503 for an id out of range."""
        first, (low, high) = (step * self.microbatches + microbatch) * self.rows, part or (0, self.rows)
        rows = self._places(np.arange(first + low, first + high))
        return {item.name: self._read(item, rows) for item in self.inputs}

    def terms(self, step: int) -> int:
        """The rows of a step: the loss is their mean."""
        return self.rows * self.microbatches

    def _places(self, indices: npt.NDArray[np.int64]) -> list[int]:
        """The row of each position in the whole run: every row once an epoch, in an order of the epoch's own."""
        count = self.end - self.begin
        if self.seed is None:
            total = self.steps * self.microbatches * self.rows
            found = indices * count // total if total <= count else indices % count
            return [self.begin + row for row in found.tolist()]
        epochs, positions = np.divmod(indices, count)
        places: list[int] = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            order = permute(positions[epochs == epoch], count, keyed(self.seed, epoch))
            places += [self.begin + row for row in order.tolist()]
        return places

    def _read(self, item: Input, rows: list[int]) -> torch.Tensor:
        stored = self.table.columns[item.name]
        return torch.stack([stored.row(row) for row in rows])


def open_table(training: Training, program: Program, data_root: Path | None = None) -> Table:
    """The columns that a program reads.

    Raises `RuntimeFault`: E0500 for another shape, E0501, E0502, E0503, E0504 (outside of the folder), E0505 for a
    column that is not there, E0506 for a file that holds something else.
    """
    known = {column.name: column for column in training.columns}
    found: dict[str, _Stored] = {}
    for item in _inputs(program):
        column = known.get(item.name)
        if column is None or column.source is None:
            hint = f"it has {', '.join(known) or 'none'}; a key of `data` defines one"
            raise RuntimeFault("E0505", f"the data has no column {item.name!r}", hint)
        found[item.name] = _open(column, data_root)
        _check(found[item.name], item)
    counts = {name: len(stored) for name, stored in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise RuntimeFault("E0500", f"the columns differ in rows: {listed}", "row i of every column belongs together")
    return Table(found, next(iter(counts.values()), 1 << 62))


def _inputs(program: Program) -> tuple[Input, ...]:
    return tuple(item for item in program.inputs if item.source == "data")


def _rows_of(program: Program) -> int | None:
    inputs = _inputs(program)
    return inputs[0].shape[0] if inputs else None


def _open(column: Column, data_root: Path | None) -> _Stored:
    source = column.source
    assert source is not None, "a column of tensors has files"
    paths = find_files(source.paths, data_root or Path(source.folder))
    parts = tuple(_part(path, column.entry or column.name) for path in paths)
    return _Stored(column.name, parts, tuple(str(path) for path in paths))


def _part(path: Path, entry: str) -> _Rows:
    try:
        if path.suffix == ".npy":
            part: _Rows = _Array(np.load(path, mmap_mode="r", allow_pickle=False))
        elif path.suffix == ".safetensors":
            part = _slice(path, entry)
        else:
            raise RuntimeFault("E0506", f"{path} is neither .npy nor .safetensors", "convert it first")
    except (OSError, ValueError, EOFError, SafetensorError) as fault:
        raise RuntimeFault("E0506", f"{path} cannot be read: {fault}") from fault
    if not part.shape:
        raise RuntimeFault("E0506", f"{path} holds a single number", "its first axis must count the rows")
    return part


def _slice(path: Path, entry: str) -> _Slice:
    file: Any = safe_open(str(path), framework="pt")
    names = list(file.keys())
    if entry not in names and len(names) == 1:
        entry = names[0]
    if entry not in names:
        hint = f"it has {', '.join(names[:8])}; name one with `entry`"
        raise RuntimeFault("E0505", f"{path} has no tensor {entry!r}", hint)
    return _Slice(file.get_slice(entry))


def _check(stored: _Stored, item: Input) -> None:
    """Every file has the shape, the type and the range that the program asks for."""
    if not len(stored):
        raise RuntimeFault("E0502", f"the data is empty: {', '.join(stored.places[:3])}", "name files with some rows")
    for part, place in zip(stored.parts, stored.places, strict=True):
        if part.shape[1:] != item.shape[1:]:
            wanted = f"[{', '.join(item.dims[1:])}] = {list(item.shape[1:])}"
            found = f"the rows of {place} are {list(part.shape[1:])}"
            raise RuntimeFault("E0500", f"{found}; {item.name!r} takes {wanted}")
        kind = part.read(0, min(1, part.shape[0])).dtype
        if (kind.is_floating_point and item.dtype not in FLOATS) or kind.is_complex:
            raise RuntimeFault("E0506", f"{place} holds {kind}; {item.name!r} takes {item.dtype}")
        if item.below is not None:
            _check_range(part, place, item.below)


def _check_range(part: _Rows, place: str, below: int) -> None:
    count = part.shape[0]
    step = max(1, CHECK_BYTES // 8 // max(1, int(np.prod(part.shape[1:]))))
    for begin in range(0, count, step):
        piece = part.read(begin, min(begin + step, count)).to(torch.int64)
        wrong = (piece < 0) | (piece >= below)
        if bool(wrong.any()):
            row = begin + int(wrong.reshape(len(piece), -1).any(1).nonzero()[0])
            raise out_of_range(int(piece[wrong][0]), below, f"{place}, row {row}")
