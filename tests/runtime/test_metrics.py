"""Metrics read back as they were, survive a torn line, and forget what lies beyond the checkpoint."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import pytest
from partita.runtime.fault import RuntimeFault
from partita.runtime.metrics import EvalRecord, Metrics, StepRecord, bits_per_byte, read_metrics


def _record(step: int) -> StepRecord:
    return StepRecord(step, 10, math.pi / step, 0.1, 1e3, None, 3.0, {"lr": 0.1})


def test_lines_read_back_and_are_flushed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with Metrics(path) as metrics:
        metrics.step(_record(3))
        assert read_metrics(path)[0]["loss"] == math.pi / 3
        metrics.evaluation(EvalRecord(3, 1.0, bits_per_byte(1.0)))
    kinds = [(line["kind"], line["step"]) for line in read_metrics(path)]
    assert kinds == [("step", 3), ("eval", 3)]


def test_resuming_drops_what_the_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        for step in range(1, 6):
            metrics.step(_record(step))
        metrics.evaluation(EvalRecord(5, 1.0, None))
    with path.open("a") as file:
        file.write('{"kind": "step", "st')  # killed in the middle of a line
    with Metrics(path, resume_after=3) as metrics:
        metrics.step(_record(4))
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        with Metrics(path) as metrics:
            metrics.step(_record(1))
    assert len(read_metrics(path)) == 1


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RuntimeFault, match="TensorBoard") as caught:
        Metrics(tmp_path / "m.jsonl", tensorboard=tmp_path / "t")
    assert caught.value.code == "E0530" and "partita[tensorboard]" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_events_are_written_where_tensorboard_is(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Metrics(tmp_path / "m.jsonl", tensorboard=tmp_path / "t") as metrics:
        metrics.step(_record(1))
    assert list((tmp_path / "t").iterdir())
