"""From a stream of ids to batches: rows, columns, the held-out share and the order.

In: the training record and what a program asks for. Out: for each (step, microbatch) a dict of tensors. Which row
stands where follows from (seed, step, microbatch, row) alone; nothing is remembered between calls, so a run resumes
anywhere. How a stream is cut into rows, and what they say of their documents, `documents.py` knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from .documents import Padded, Row, Windows, cut
from .fault import RuntimeFault
from .permutation import keyed, permute
from .program import Input, Program
from .recipe import Column, DataSource, Training
from .sources import Stream, check_range, open_source, out_of_range
from .tables import open_table

RULES = ("read", "next", "segment", "position", "weight")
KINDS = ("chunk", "pack", "pad")
FLOATS = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches of one part of the data for one program. `seed` None: in order and evenly spread (evaluation)."""

    windows: Windows | Padded
    inputs: tuple[Input, ...]
    columns: dict[str, Column]
    rows: int
    microbatches: int
    seed: int | None
    steps: int
    counted: dict[int, int] = field(default_factory=dict[int, int], compare=False)  # of the latest step: kept, not told

    def batch(self, step: int, microbatch: int, part: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
        """What the program's data inputs get, tensors of their shapes. Raises E0503 for an id out of range."""
        rows = self._read(step * self.microbatches + microbatch, *(part or (0, self.rows)))
        return {item.name: self._column(item, rows, step) for item in self.inputs}

    def _read(self, microbatch: int, low: int, high: int) -> list[Row]:
        places = self._places(np.arange(low, high) + microbatch * self.rows)
        return [self.windows.read(window, phase) for window, phase in places]

    def terms(self, step: int) -> int:
        """How many ids of a step's rows, of all its microbatches, have a loss that counts."""
        if isinstance(self.windows, Windows) and not self.windows.apart:
            return self.rows * self.microbatches * self.windows.length
        if step not in self.counted:
            numbers = range(step * self.microbatches, (step + 1) * self.microbatches)
            total = sum(int(row.counts.sum()) for n in numbers for row in self._read(n, 0, self.rows))
            self.counted.clear()
            self.counted[step] = total
        return self.counted[step]

    def _places(self, indices: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """(window, phase) of each row, given its position in the whole run, counted from 0 over all steps."""
        count = self.windows.count
        if self.seed is None:  # `total` rows spread over the windows; wrapped where there are fewer windows
            total = self.steps * self.microbatches * self.rows
            windows = indices * count // total if total <= count else indices % count
            return [(window, 0) for window in windows.tolist()]
        places: list[tuple[int, int]] = []
        epochs, positions = np.divmod(indices, count)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            phase = keyed(self.seed, epoch, 1) % self.windows.phases  # other cuts each epoch
            windows = permute(positions[epochs == epoch], count, keyed(self.seed, epoch))
            places += [(window, phase) for window in windows.tolist()]
        return places

    def _column(self, item: Input, rows: list[Row], step: int) -> torch.Tensor:
        rule = self.columns[item.name].rule
        if rule == "weight":
            return self._weight(item, rows, step)
        if rule in ("segment", "position"):
            return torch.from_numpy(np.stack([row.segment if rule == "segment" else row.position for row in rows]))
        ids = np.stack([row.ids[1:] if rule == "next" else row.ids[:-1] for row in rows])
        if item.below is not None and (int(ids.max()) >= item.below or int(ids.min()) < 0):
            value = int(ids[(ids >= item.below) | (ids < 0)][0])
            raise out_of_range(value, item.below, f"input {item.name}; the file changed since it was opened")
        return torch.from_numpy(np.ascontiguousarray(ids))

    def _weight(self, item: Input, rows: list[Row], step: int) -> torch.Tensor:
        """n / N where the loss of an id counts: n ids in the step, of which N count; so a mean over n is one over N."""
        counts = np.stack([row.counts for row in rows])
        every = self.rows * self.microbatches * self.windows.length
        weight = counts * (every / max(1, self.terms(step)))
        return torch.from_numpy(weight).to(FLOATS[item.dtype])


class Feed(Protocol):
    """What gives a program its data."""

    @property
    def microbatches(self) -> int:
        """Of one run."""
        ...

    @property
    def steps(self) -> int:
        """How many batches there are to evaluate on."""
        ...

    def batch(self, step: int, microbatch: int, part: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
        """The inputs of a microbatch by name, all rows or those of a `part`. Raises E0503 for an id out of range."""
        ...

    def terms(self, step: int) -> int:
        """Over how many rows or ids the loss of a step is a mean."""
        ...


@dataclass(frozen=True, slots=True)
class Data:
    """Batches to train on, and those that are held out if the recipe evaluates."""

    train: Feed
    held_out: Feed | None


def open_data(training: Training, programs: dict[str, Program], data_root: Path | None = None) -> Data:
    """Open the recipe's data for `step` and, if there is one and the recipe evaluates, `evaluate`.

    Raises `RuntimeFault` E0501 to E0506 for what is missing, too short, out of range or unknown.
    """
    step, evaluate = programs[training.turns[0].program], programs.get("evaluate")
    if training.source is None:
        table = open_table(training, step, data_root)
        return Data(*table.batches(training, step, evaluate))
    stream = _open(training.source, (step,), data_root)
    end = len(stream)
    held_out = None
    if training.evaluate is not None and evaluate is not None:
        held_stream, begin, stop = stream, 0, training.source.end
        if training.evaluate.source is not None:
            held_stream, stop = _open(training.evaluate.source, (evaluate,), data_root), training.evaluate.source.end
        else:
            end = begin = len(stream) - int(len(stream) * training.evaluate.share)
        held = _windows(held_stream, begin, len(held_stream), training, "the held-out data", stop)
        held_out = _batches(held, training, evaluate, None, training.evaluate.batches)
    windows = _windows(stream, 0, end, training, "the data", training.source.end)
    return Data(_batches(windows, training, step, training.seed, training.steps), held_out)


def _open(source: DataSource, programs: Sequence[Program], data_root: Path | None) -> Stream:
    stream = open_source(source, data_root)
    bounds = [item.below for program in programs for item in program.inputs if item.below is not None]
    if bounds:
        check_range(stream, min(bounds))
    return stream


def _windows(stream: Stream, begin: int, end: int, training: Training, what: str, stop: int | None) -> Windows | Padded:
    assert training.rows is not None, "a stream is cut into rows"
    rows = training.rows
    if rows.kind not in KINDS:
        raise RuntimeFault("E0505", f"rows of kind {rows.kind!r}", f"there are {', '.join(KINDS)}")
    windows = cut(stream, begin, end, rows.kind, rows.length, stop)
    if windows.count < 1:
        raise RuntimeFault(
            "E0502",
            f"{what} has {end - begin} ids, too few for one row of T = {training.rows.length} and the id after it",
            "give more data, a shorter T, or hold out another share",
        )
    return windows


def _batches(windows: Windows | Padded, training: Training, program: Program, seed: int | None, steps: int) -> Batches:
    inputs = tuple(item for item in program.inputs if item.source == "data")
    columns = {column.name: column for column in training.columns}
    for item in inputs:
        _check_input(item, columns, windows.length)
    rows = inputs[0].shape[0] if inputs else training.batch // program.microbatches
    if any(item.shape[0] != rows for item in inputs):
        raise RuntimeFault("E0500", f"the program's inputs differ in rows: {[item.shape for item in inputs]}")
    if seed is not None and rows * program.microbatches != training.batch:
        raise RuntimeFault(
            "E0500",
            f"the record's batch is {training.batch}, the program's {program.microbatches} microbatches of {rows}",
        )
    batch = rows * program.microbatches
    steps = steps or max(1, windows.count // batch)
    return Batches(windows, inputs, columns, rows, program.microbatches, seed, steps)


def _check_input(item: Input, columns: dict[str, Column], length: int) -> None:
    column = columns.get(item.name)
    if column is None:
        raise RuntimeFault(
            "E0505",
            f"the data has no column {item.name!r}",
            f"it has {', '.join(columns)}; a key of `data` defines one",
        )
    if column.rule not in RULES:
        raise RuntimeFault(
            "E0505", f"column {column.name!r} has the rule {column.rule!r}", f"there are {', '.join(RULES)}"
        )
    if column.rule == "next" and (column.of not in columns or columns[column.of].rule != "read"):
        raise RuntimeFault("E0505", f"column {column.name!r} follows {column.of!r}, which is not what is read")
    if len(item.shape) != 2 or item.shape[1] != length:
        raise RuntimeFault("E0500", f"input {item.name!r} has shape {item.shape}; rows give [rows, {length}]")
