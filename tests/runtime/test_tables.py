"""Rows from files of tensors: every row once an epoch, columns in step, faults named before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from partita.runtime.data import Data, open_data
from partita.runtime.fault import RuntimeFault
from partita.runtime.program import Input, Program
from partita.runtime.recipe import Column, DataSource, Evaluation, Training, from_plain, to_plain
from safetensors.torch import save_file

ROWS, BATCH = 10, 4


def column(name: str, *paths: str, entry: str | None = None) -> Column:
    return Column(name, "tensors", None, DataSource("tensors", paths), entry)


TRAINING = Training(None, None, (column("x", "x*.npy"), column("y", "y.safetensors")), steps=6, batch=BATCH)


def program(rows: int = BATCH, below: int | None = 5) -> Program:
    inputs = (
        Input("x", (rows, 3), ("batch", "D"), "f32"),
        Input("y", (rows,), ("batch",), "i64", below=below),
    )
    return Program(inputs, (), (), (), {"loss": "loss"})


def write(folder: Path, labels: torch.Tensor | None = None) -> None:
    x = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
    np.save(folder / "x1.npy", x[:7])
    np.save(folder / "x2.npy", x[7:])
    save_file({"y": torch.arange(ROWS) // 2 if labels is None else labels}, folder / "y.safetensors")


def feed(folder: Path, training: Training = TRAINING, one: Program | None = None) -> Data:
    return open_data(training, {"step": one or program(), "evaluate": program()}, folder)


def test_every_row_comes_once_an_epoch_with_its_own_columns(tmp_path: Path) -> None:
    write(tmp_path)
    data = feed(tmp_path)
    batches = [data.train.batch(step, 0) for step in range(5)]
    x, y = (torch.cat([batch[name] for batch in batches]) for name in ("x", "y"))
    rows = (x[:, 0] / 3).to(torch.int64)
    assert sorted(rows[:ROWS].tolist()) == sorted(rows[ROWS:].tolist()) == list(range(ROWS))
    assert rows[:ROWS].tolist() != rows[ROWS:].tolist() != sorted(rows[ROWS:].tolist())
    assert torch.equal(y, rows // 2) and data.held_out is None
    again = feed(tmp_path).train.batch(3, 0)
    assert all(torch.equal(again[name], batches[3][name]) for name in again)


def test_a_share_is_held_out_from_the_end(tmp_path: Path) -> None:
    write(tmp_path)
    data = feed(tmp_path, replace(TRAINING, evaluate=Evaluation(share=0.4)))
    assert data.held_out is not None and data.held_out.steps == 1
    assert data.held_out.batch(0, 0)["x"][:, 0].tolist() == [18, 21, 24, 27]
    seen = {value for step in range(3) for value in data.train.batch(step, 0)["x"][:, 0].tolist()}
    assert seen == {0, 3, 6, 9, 12, 15}


def test_the_record_survives_plain_data() -> None:
    assert from_plain(to_plain(TRAINING)) == TRAINING


def fault(folder: Path, training: Training = TRAINING, one: Program | None = None) -> str:
    with pytest.raises(RuntimeFault) as caught:
        feed(folder, training, one)
    return str(caught.value)


def test_faults_are_named_before_anything_runs(tmp_path: Path) -> None:
    write(tmp_path)
    columns = TRAINING.columns
    assert "error[E0503]: id 4 is out of range" in fault(tmp_path, one=program(below=4)) and "row 8" in fault(
        tmp_path, one=program(below=4)
    )
    assert "error[E0505]: the data has no column 'y'" in fault(tmp_path, replace(TRAINING, columns=columns[:1]))
    np.save(tmp_path / "x2.npy", np.zeros((3, 2), np.float32))
    assert "are [2]; 'x' takes [D] = [3]" in fault(tmp_path)
    np.save(tmp_path / "x2.npy", np.zeros((2, 3), np.float32))
    assert "error[E0500]: the columns differ in rows: x has 9, y has 10" in fault(tmp_path)
    (tmp_path / "x2.npy").write_bytes(b"no array")
    assert "E0506" in fault(tmp_path)
    np.save(tmp_path / "x2.npy", np.array([object()]), allow_pickle=True)
    assert "E0506" in fault(tmp_path), "nothing is unpickled"
    escape = replace(TRAINING, columns=(column("x", "../x.npy"), columns[1]))
    assert "E0504" in fault(tmp_path, escape)
    many = replace(TRAINING, columns=(column("x", "x1.npy"), column("y", "m.safetensors", entry="z")))
    save_file({"a": torch.zeros(7), "b": torch.zeros(7)}, tmp_path / "m.safetensors")
    assert "has no tensor 'z'" in fault(tmp_path, many)
    wrong = replace(TRAINING, columns=(column("x", "x1.npy"), column("y", "m.safetensors", entry="a")))
    assert "E0506" in fault(tmp_path, wrong) and "takes i64" in fault(tmp_path, wrong)
