"""Profiles of some steps: which are in the file, and that the run is otherwise the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from generators.bigram import bigram_build, write_build, write_text
from partita.runtime.begin import Options
from partita.runtime.metrics import read_metrics
from partita.runtime.recipe import Trace, from_plain, to_plain
from partita.runtime.train import train


@pytest.mark.parametrize(("at", "steps", "last"), [(1, 2, 2), (11, 9, 12)])
def test_the_steps_that_are_asked_for(tmp_path: Path, at: int, steps: int, last: int) -> None:
    name = f"steps-{at:08d}-{last:08d}"
    build = bigram_build()
    training = replace(from_plain(build.recipe), trace=Trace(at, steps))
    data = write_text(tmp_path / "data")
    losses: list[list[float]] = []
    for folder, record in (("traced", to_plain(training)), ("plain", build.recipe)):
        made = write_build(tmp_path / folder / "build", replace(build, recipe=record))
        train(made, Options(tmp_path / folder, data_root=data, device="cpu", measure_memory=False))
        lines = read_metrics(tmp_path / folder / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if line["kind"] == "step"])
    assert losses[0] == losses[1]
    assert [path.name for path in (tmp_path / "traced/trace").iterdir()] == [f"{name}.json"]
    events = json.loads((tmp_path / f"traced/trace/{name}.json").read_text())["traceEvents"]
    found = {event["name"] for event in events if str(event.get("name", "")).startswith("step ")}
    assert found == {f"step {number}" for number in range(at, last + 1)}
    assert any(str(event.get("name", "")).startswith("aten::") for event in events)
    assert not (tmp_path / "plain/trace").exists()


def test_memory_is_measured_in_another_step(tmp_path: Path) -> None:
    build = bigram_build()
    record = to_plain(replace(from_plain(build.recipe), trace=Trace(2, 2)))
    made = write_build(tmp_path / "build", replace(build, recipe=record))
    result = train(made, Options(tmp_path / "run", data_root=write_text(tmp_path / "data"), device="cpu"))
    assert result.summary.peak_bytes is not None
