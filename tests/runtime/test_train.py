"""Training: it learns, resumes bit for bit after a kill, leaves on signals, and refuses before it writes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from generators.bigram import TRAINING, V, bigram_build, write_build, write_text
from partita.runtime.begin import Options, open_build
from partita.runtime.checkpoint import checkpoints
from partita.runtime.fault import RuntimeFault
from partita.runtime.feed import Executable
from partita.runtime.metrics import StepRecord, read_metrics
from partita.runtime.program import Build
from partita.runtime.recipe import Checkpoints, Log, Training, to_plain
from partita.runtime.state import Store
from partita.runtime.train import Result, train
from safetensors.torch import load_file


@pytest.fixture(autouse=True)
def _one_thread() -> Generator[None]:
    """Tiny tensors; the same count of threads in the processes that are compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _train(folder: Path, build: Build | None = None, **options: Any) -> Result:
    built = write_build(folder / "build", build or bigram_build())
    data = write_text(folder / "data")
    options = {"measure_memory": False, "device": "cpu", "data_root": data, **options}
    return train(built, Options(folder / "run", **options))


def _losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "run" / "metrics.jsonl") if line["kind"] == "step"]


def _evals(folder: Path) -> list[tuple[int, float]]:
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == "eval"]


def test_it_learns_and_says_what_it_measured(tmp_path: Path) -> None:
    seen: list[StepRecord] = []
    result = _train(tmp_path, measure_memory=True, on_step=seen.append)
    losses = _losses(tmp_path)
    assert losses == [record.loss for record in seen] and len(losses) == 12
    assert losses[0] == pytest.approx(4.852, abs=0.02) and losses[-1] < losses[0] - 0.1
    assert [step for step, _ in _evals(tmp_path)] == [5, 10, 12]
    summary = result.summary
    assert summary.parameters == V * V and summary.predicted["peak_bytes"] == 1e6
    assert summary.peak_bytes is not None
    # the table, its momentum and its gradient at least; far less than twice that
    assert 3 * V * V * 4 <= summary.peak_bytes < 6 * V * V * 4
    assert summary.held_out is not None and summary.held_out.bits_per_byte == pytest.approx(
        summary.held_out.loss / 0.6931, rel=1e-3
    )
    assert result.exit_code == 0 and result.checkpoint is not None and result.checkpoint.name == "step-00000012"
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000008", "step-00000012"]
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["kind"] == "summary"
    assert "norm" in seen[0].scalars


def _kill(step: int, number: signal.Signals) -> Callable[[StepRecord], None]:
    def on_step(record: StepRecord) -> None:
        if record.step == step:
            os.kill(os.getpid(), number)

    return on_step


WORKER = """
import os, signal, sys
from pathlib import Path
from partita.runtime.state import Store
from partita.runtime.begin import Options
from partita.runtime.train import train
import torch
torch.set_num_threads(1)
folder, step = Path(sys.argv[1]), int(sys.argv[2])
def on_step(record):
    if record.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
train(folder / "build", Options(folder / "run", data_root=folder / "data", device="cpu", on_step=on_step))
"""


@pytest.mark.parametrize("step", [6, 11])
def test_after_kill_9_the_losses_are_the_same(tmp_path: Path, step: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _train(whole)
    write_build(killed / "build", bigram_build())
    write_text(killed / "data")
    ended = subprocess.run([sys.executable, "-c", WORKER, str(killed), str(step)], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert len(_losses(killed)) == step
    result = _train(killed, resume=True)
    assert _losses(killed) == _losses(whole) and _evals(killed) == _evals(whole)
    assert result.checkpoint is not None
    one, other = (load_file(next((f / "run/checkpoints/step-00000012").glob("*.safetensors"))) for f in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    result = _train(tmp_path, on_step=_kill(6, number))
    assert result.exit_code == code and result.checkpoint is not None
    assert result.checkpoint.name == "step-00000006"
    assert signal.getsignal(number) is before
    assert _train(tmp_path, resume=True).exit_code == 0
    whole = tmp_path / "whole"
    _train(whole)
    assert _losses(tmp_path) == _losses(whole)


def test_resuming_at_the_end_evaluates_again_and_changes_nothing(tmp_path: Path) -> None:
    first = _train(tmp_path)
    again = _train(tmp_path, resume=True)
    assert again.checkpoint == first.checkpoint
    assert again.summary.held_out == first.summary.held_out


def test_what_was_read_is_shown_by_dump(tmp_path: Path) -> None:
    _train(tmp_path, dump=("loss", "norm"))
    dumped = load_file(tmp_path / "run" / "dump" / "step-00000001.safetensors")
    assert float(dumped["loss"]) == _losses(tmp_path)[0] and set(dumped) == {"loss", "norm"}


@dataclass
class _Poisoned:
    """A build whose loss, or whose table, is not finite at a step (from 0)."""

    inner: Executable
    step: int
    table: bool

    @property
    def build(self) -> Build:
        return self.inner.build

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def run(
        self,
        name: str,
        store: Store,
        data: Sequence[Mapping[str, torch.Tensor]],
        step: int = 0,
        seed: int = 0,
        *,
        bound: float = math.inf,
    ) -> dict[str, torch.Tensor]:
        outputs = self.inner.run(name, store, data, step, seed, bound=bound)
        if name == "step" and step == self.step:
            (store["w"][0] if self.table else outputs["loss"]).fill_(float("nan"))
        return outputs


@pytest.mark.parametrize(("table", "step", "message"), [(False, 6, "loss is nan at step 7"), (True, 7, "w is not fin")])
def test_what_is_not_finite_stops_and_is_not_saved(tmp_path: Path, table: bool, step: int, message: str) -> None:
    built = open_build(write_build(tmp_path / "build", bigram_build()), torch.device("cpu"))
    options = Options(tmp_path / "run", data_root=write_text(tmp_path / "data"), device="cpu", measure_memory=False)
    with pytest.raises(RuntimeFault, match=message) as caught:
        train(tmp_path / "build", options, _Poisoned(built, step, table))
    assert caught.value.code == "E0520" and "step-00000004" in (caught.value.hint or "")
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004"]
    assert len(_losses(tmp_path)) == step + table


def _changed(**changes: Any) -> Build:
    return bigram_build(replace(TRAINING, **changes))


def _no_programs() -> Build:
    return replace(bigram_build(), programs={})


@pytest.mark.parametrize(
    ("build", "options", "code"),
    [
        (None, {"data_root": Path("/nonexistent")}, "E0501"),
        (None, {"resume": True}, "E0510"),
        (None, {"dump": ("nothing",)}, "E0521"),
        (_no_programs(), {}, "E0521"),
        (_changed(checkpoint=Checkpoints(to="../x")), {}, "E0504"),
        (_changed(log=Log(metrics="/x.jsonl")), {}, "E0504"),
        (replace(bigram_build(), recipe={"steps": 3}), {}, "E0500"),
    ],
)
def test_faults_before_anything_is_written(
    tmp_path: Path, build: Build | None, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(RuntimeFault) as caught:
        _train(tmp_path, build, **options)
    assert caught.value.code == code
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    _train(tmp_path)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(RuntimeFault) as caught:
        _train(tmp_path)
    assert caught.value.code == "E0514"
    with pytest.raises(RuntimeFault) as caught:
        _train(tmp_path, _changed(seed=6), resume=True)
    assert caught.value.code == "E0515"
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    _train(tmp_path, overwrite=True)
    assert len(_losses(tmp_path)) == 12


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RuntimeFault, match="cannot be written") as caught:
        _train(tmp_path)
    assert caught.value.code == "E0516"
    assert (tmp_path / "run").read_text() == "a file"


def test_a_folder_that_was_changed_is_refused(tmp_path: Path) -> None:
    built = write_build(tmp_path / "build", bigram_build())
    (built / "program.json").write_text(json.dumps({}))
    with pytest.raises(RuntimeFault) as caught:
        train(built, Options(tmp_path / "run", device="cpu"))
    assert caught.value.code == "E0523"


def test_the_record_survives_the_program_file() -> None:
    training: Training = TRAINING
    assert bigram_build(training).recipe == to_plain(training)
