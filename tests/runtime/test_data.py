"""Batches: every window once an epoch, the same whatever the history, and the held-out tail never trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.data import Batches, Feed, open_data
from partita.runtime.documents import Windows
from partita.runtime.fault import RuntimeFault
from partita.runtime.program import Input, Program
from partita.runtime.recipe import Column, DataSource, Evaluation, Rows, Training
from partita.runtime.sources import Stream

T = 5
TRAINING = Training(
    source=DataSource("tokens", ("x.bin",), dtype="uint16"),
    rows=Rows("chunk", T),
    columns=(Column("tokens"), Column("target", "next", "tokens")),
    steps=100,
    batch=6,
    seed=3,
)


def _program(rows: int, microbatches: int, below: int | None = None, length: int = T) -> Program:
    shape = (rows, length)
    inputs = tuple(Input(name, shape, ("batch", "T"), "i64", below=below) for name in ("tokens", "target"))
    step = Input("step", (), (), "i64", source="step")
    return Program((*inputs, step), (), (), (), {}, microbatches)


PROGRAMS = {"step": _program(3, 2), "evaluate": _program(6, 1)}


def _write(folder: Path, count: int) -> Path:
    np.arange(count, dtype="<u2").tofile(folder / "x.bin")
    return folder


def windows_of(feed: Feed) -> Windows:
    """The windows that a feed of token files reads."""
    assert isinstance(feed, Batches) and isinstance(feed.windows, Windows)
    return feed.windows


def test_an_epoch_holds_every_window_once_and_targets_follow(tmp_path: Path) -> None:
    data = open_data(TRAINING, PROGRAMS, _write(tmp_path, 6 * T * 4 + T)).train
    assert windows_of(data).count == 24
    starts: list[int] = []
    for step in range(4):
        for microbatch in range(2):
            batch = data.batch(step, microbatch)
            assert {name: tuple(t.shape) for name, t in batch.items()} == {"tokens": (3, T), "target": (3, T)}
            assert (batch["target"] == batch["tokens"] + 1).all()
            starts += batch["tokens"][:, 0].tolist()
    assert sorted(starts) == [min(starts) + T * i for i in range(24)]
    assert starts != sorted(starts)


def test_microbatches_are_the_batch_cut_up(tmp_path: Path) -> None:
    whole = {**PROGRAMS, "step": _program(6, 1)}
    cut, one = (open_data(TRAINING, programs, _write(tmp_path, 300)).train for programs in (PROGRAMS, whole))
    for step in (0, 3, 97):
        parts = [cut.batch(step, microbatch)["tokens"] for microbatch in range(2)]
        assert np.concatenate(parts).tolist() == one.batch(step, 0)["tokens"].tolist()


def test_order_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    root = _write(tmp_path, 300)
    one, again = open_data(TRAINING, PROGRAMS, root).train, open_data(TRAINING, PROGRAMS, root).train
    later = [again.batch(step, 0)["tokens"].tolist() for step in (9, 2, 5)]
    assert later == [one.batch(step, 0)["tokens"].tolist() for step in (9, 2, 5)]
    other = open_data(replace(TRAINING, seed=4), PROGRAMS, root).train
    assert other.batch(2, 0)["tokens"].tolist() != one.batch(2, 0)["tokens"].tolist()


@given(st.integers(2, 400), st.integers(1, 40), st.integers(0, 7))
def test_windows_stay_inside(size: int, length: int, begin: int) -> None:
    begin = min(begin, size)
    ids = np.arange(size, dtype=np.uint16)
    windows = Windows(Stream((ids,), ("x",), np.array([size])), begin, size, length)
    if windows.count > 0:
        for phase in (0, windows.phases - 1):
            last = windows.read(windows.count - 1, phase).ids
            assert last[-1] < size and windows.read(0, phase).ids[0] >= begin
    assert (windows.count > 0) == (size - begin > length)


def test_held_out_is_the_tail_and_stays_apart(tmp_path: Path) -> None:
    training = replace(TRAINING, evaluate=Evaluation(share=0.25))
    data = open_data(training, PROGRAMS, _write(tmp_path, 1000))
    assert data.held_out is not None
    held = [data.held_out.batch(step, 0) for step in range(data.held_out.steps)]
    assert min(int(batch["tokens"].min()) for batch in held) == 750
    trained = [data.train.batch(step, 0)["target"].max() for step in range(100)]
    assert max(int(value) for value in trained) < 750
    firsts = [first for batch in held for first in batch["tokens"][:, 0].tolist()]
    assert firsts == sorted(set(firsts)) and len(firsts) == 48


def test_few_held_out_windows_fill_a_batch_and_many_are_spread(tmp_path: Path) -> None:
    root = _write(tmp_path, 1000)
    few = open_data(replace(TRAINING, evaluate=Evaluation(share=0.02)), PROGRAMS, root).held_out
    assert few is not None and few.steps == 1
    assert len(set(few.batch(0, 0)["tokens"][:, 0].tolist())) == windows_of(few).count == 3
    many = open_data(replace(TRAINING, evaluate=Evaluation(share=0.5, batches=2)), PROGRAMS, root).held_out
    assert many is not None and many.steps == 2
    assert int(many.batch(0, 0)["tokens"].min()) == 500 and int(many.batch(1, 0)["tokens"].max()) > 900


def test_held_out_from_other_files(tmp_path: Path) -> None:
    root = _write(tmp_path, 300)
    np.full(100, 9, "<u2").tofile(root / "val.bin")
    other = Evaluation(source=DataSource("tokens", ("val.bin",), dtype="uint16"))
    data = open_data(replace(TRAINING, evaluate=other), PROGRAMS, root)
    assert data.held_out is not None and data.held_out.batch(0, 0)["tokens"].unique().tolist() == [9]
    assert windows_of(data.train).end == 300


@pytest.mark.parametrize(
    ("training", "count", "code", "words"),
    [
        (TRAINING, T, "E0502", "T = 5"),
        (TRAINING, 0, "E0502", "empty"),
        (replace(TRAINING, evaluate=Evaluation(share=0.01)), 100, "E0502", "held-out"),
        (replace(TRAINING, rows=Rows("heap", T)), 100, "E0505", "heap"),
        (replace(TRAINING, columns=(Column("tokens"),)), 100, "E0505", "target"),
        (replace(TRAINING, columns=(Column("tokens"), Column("target", "prev", "tokens"))), 100, "E0505", "prev"),
        (replace(TRAINING, columns=(Column("tokens"), Column("target", "next", "x"))), 100, "E0505", "'x'"),
        (replace(TRAINING, batch=7), 100, "E0500", "batch is 7"),
        (replace(TRAINING, rows=Rows("chunk", 4)), 100, "E0500", "shape"),
    ],
)
def test_faults(tmp_path: Path, training: Training, count: int, code: str, words: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        open_data(training, PROGRAMS, _write(tmp_path, count))
    assert caught.value.code == code
    assert words in caught.value.message


def test_out_of_range_when_opened_and_when_the_file_changed_since(tmp_path: Path) -> None:
    root = _write(tmp_path, 300)
    with pytest.raises(RuntimeFault, match="id 200 is out of range"):
        open_data(TRAINING, {"step": _program(3, 2, below=200)}, root)
    data = open_data(TRAINING, {"step": _program(3, 2, below=300)}, root)
    with (root / "x.bin").open("r+b") as file:
        file.write(np.full(300, 301, "<u2").tobytes())
    with pytest.raises(RuntimeFault, match="changed"):
        data.train.batch(0, 0)
