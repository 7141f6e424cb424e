"""What a run writes down: one JSON object a line, and TensorBoard if asked.

In: records of steps and evaluations, and the summary. Out: `metrics.jsonl` (flushed after each line, floats printed so
that they read back the same) and event files. A resumed run drops the lines that the crash left beyond its checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .fault import RuntimeFault


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of training. `step` counts from 1; `seconds_left` is a guess; `scalars` are the other outputs."""

    step: int
    steps: int
    loss: float
    seconds: float
    tokens_per_second: float
    memory_bytes: int | None
    seconds_left: float
    scalars: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """The held-out loss after `step` steps, in nats an id; `bits_per_byte` where ids are bytes."""

    step: int
    loss: float
    bits_per_byte: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What was foretold beside what was measured, at a run's end. None where there is no figure."""

    name: str
    steps: int
    parameters: int
    step_seconds: float | None
    peak_bytes: int | None
    tokens_per_second: float | None
    flops_per_second: float | None
    loss: float | None
    held_out: EvalRecord | None
    predicted: dict[str, float]


def bits_per_byte(loss: float) -> float:
    """Nats an id to bits a byte, where an id is a byte: loss / ln 2."""
    return loss / math.log(2)


class _EventWriter(Protocol):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


class Metrics:
    """The open files of a run. Use as a context manager."""

    def __init__(self, path: Path, tensorboard: Path | None = None, resume_after: int | None = None) -> None:
        """Raises `RuntimeFault` E0530 if TensorBoard is asked for and missing."""
        events = _event_writer(tensorboard) if tensorboard else None
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume_after is not None and path.exists():
            _drop_after(path, resume_after)
        self._file = path.open("a" if resume_after is not None else "w")
        self._events = events

    def step(self, record: StepRecord) -> None:
        """A step's line."""
        self._line("step", asdict(record))
        self._scalars(
            record.step,
            {"train/loss": record.loss, "train/tokens_per_second": record.tokens_per_second, **record.scalars},
        )

    def evaluation(self, record: EvalRecord) -> None:
        """An evaluation's line."""
        self._line("eval", asdict(record))
        self._scalars(record.step, {"eval/loss": record.loss})

    def warning(self, step: int, message: str) -> None:
        """Something that the user should see, and the run went on."""
        self._line("warning", {"step": step, "message": message})

    def summary(self, summary: Summary) -> None:
        """The last line."""
        self._line("summary", {"step": summary.steps, **asdict(summary)})

    def _line(self, kind: str, data: dict[str, Any]) -> None:
        known = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in data.items()
        }
        self._file.write(json.dumps({"kind": kind, **known}) + "\n")
        self._file.flush()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items() if self._events else ():
            assert self._events is not None, "checked above"
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file; a torn last line is left out."""
    found: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def read_summary(path: Path) -> Summary:
    """The summary of the run that a metrics file is of; it has come to its end."""
    found = [line for line in read_metrics(path) if line["kind"] == "summary"]
    assert found, f"{path} has no summary"
    fields = {key: value for key, value in found[-1].items() if key not in ("kind", "step")}
    held_out = fields.pop("held_out")
    return Summary(**fields, held_out=None if held_out is None else EvalRecord(**held_out))


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to a step (no summary): what a resumed run will write again."""
    kept = [line for line in read_metrics(path) if line.get("step", 0) <= step and line.get("kind") != "summary"]
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(beside, path)


def _event_writer(folder: Path) -> _EventWriter:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter  # optional, and slow to load
    except ImportError as fault:
        raise RuntimeFault(
            "E0530", "the recipe logs to TensorBoard, which is not installed", "pip install 'partita[tensorboard]'"
        ) from fault
    return SummaryWriter(str(folder))
