"""Rows of documents: every id where it belongs, its place and its number, and a loss that counts what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.data import open_data
from partita.runtime.documents import Padded, Windows, cut
from partita.runtime.program import Input, Program
from partita.runtime.recipe import Column, DataSource, Rows, Training
from partita.runtime.sources import Stream

END = 0
files = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=3)


def stream_of(parts: list[list[int]]) -> Stream:
    arrays = tuple(np.array(part, dtype=np.int64) for part in parts)
    return Stream(arrays, tuple("abc"[: len(parts)]), np.cumsum([len(part) for part in parts]))


def documents_of(parts: list[list[int]]) -> list[list[int]]:
    """The ids, split behind each END and at the end of each file."""
    found: list[list[int]] = []
    for part in parts:
        found.append([])
        for one in part:
            found[-1].append(one)
            if one == END:
                found.append([])
    return [one for one in found if one]


@given(files, st.integers(1, 9))
def test_padded_rows_are_the_documents(parts: list[list[int]], length: int) -> None:
    """Each document in turn, in pieces; the id behind each counted one is the next of the same document."""
    rows = Padded(stream_of(parts), 0, sum(map(len, parts)), length, END)
    found: list[list[int]] = []
    going = False
    for number in range(rows.count):
        row = rows.read(number, 0)
        many = int((row.segment == 0).sum())
        assert row.position.tolist() == [*range(many), *range(length - many)]
        assert not row.counts[many:].any() and row.counts[: many - 1].all()
        found = [*found[:-1], [*found[-1], *row.ids[:many]]] if going else [*found, row.ids[:many].tolist()]
        going = bool(row.counts[many - 1])
        assert not going or many == length
    assert found == documents_of(parts)


@given(files, st.integers(1, 9), st.data())
def test_packed_rows_say_where_documents_are(parts: list[list[int]], length: int, data: st.DataObject) -> None:
    stream = stream_of(parts)
    windows = cut(stream, 0, len(stream), "pack", length, END)
    assert isinstance(windows, Windows)
    if windows.count < 1:
        return
    window, phase = data.draw(st.integers(0, windows.count - 1)), data.draw(st.integers(0, windows.phases - 1))
    row, first = windows.read(window, phase), phase + window * length
    number = np.concatenate([np.full(len(one), i) for i, one in enumerate(documents_of(parts))])[first:][: length + 1]
    assert row.ids.tolist() == stream.read(first, length + 1).tolist()
    assert row.segment.tolist() == (number[:-1] - number[0]).tolist()
    assert row.counts.tolist() == (number[1:] == number[:-1]).tolist()
    assert row.position.tolist() == [int((number[:i] == number[i]).sum()) for i in range(length)]


def program(rows: int, microbatches: int, length: int) -> Program:
    ids = ("tokens", "target", "rows.segment", "rows.position")
    inputs = [Input(name, (rows, length), ("batch", "T"), "i64") for name in ids]
    return Program((*inputs, Input("rows.weight", (rows, length), ("batch", "T"), "f64")), (), (), (), {}, microbatches)


def test_the_weights_of_all_microbatches_are_a_mean_over_what_counts(tmp_path: Path) -> None:
    """The same batch however it is cut, whoever asks first; the weights of a step add up to its ids."""
    random = np.random.default_rng(1)
    random.integers(0, 6, 400).astype("<u2").tofile(tmp_path / "x.bin")
    rules = {"tokens": "read", "rows.segment": "segment", "rows.position": "position", "rows.weight": "weight"}
    columns = (*(Column(name, rule) for name, rule in rules.items()), Column("target", "next", "tokens"))
    source = DataSource("tokens", ("x.bin",), dtype="uint16", end=END)
    for kind in ("pack", "pad"):
        training = Training(source, Rows(kind, 7), columns, steps=9, batch=6, seed=3)
        whole = open_data(training, {"step": program(6, 1, 7)}, tmp_path).train
        parts = open_data(training, {"step": program(2, 3, 7)}, tmp_path).train
        for step in (5, 0, 5):
            wanted = whole.batch(step, 0)
            found = [parts.batch(step, number) for number in (2, 0, 1)]
            for name, value in wanted.items():
                assert torch.equal(torch.cat([found[at][name] for at in (1, 2, 0)]), value)
            weight = wanted["rows.weight"]
            assert abs(float(weight.sum()) - 6 * 7) < 1e-9
            assert weight.unique().numel() == 2
            assert not weight[wanted["tokens"] == END].any()
        other = open_data(replace(training, seed=4), {"step": program(6, 1, 7)}, tmp_path).train
        assert not torch.equal(other.batch(0, 0)["tokens"], whole.batch(0, 0)["tokens"])
