"""What a person sees while a model trains: a bar on a terminal, plain lines elsewhere, and at the end what came of it.

In: the records of a run (step, evaluation, summary) as they come. Out: text on a stream. MFU is the model FLOPs of a
step over its seconds and this machine's measured matrix peak.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..runtime.memory import owners_of
from ..runtime.metrics import EvalRecord, StepRecord, Summary
from .numbers import bytes_text, compact, seconds_text

PLAIN_LINES = 20  # of a whole run, where the stream is no terminal


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a step's figures are held against: its model FLOPs and the machine's matrix peak (0 where unknown)."""

    step_flops: float = 0.0
    flops_per_s: float = 0.0

    def mfu(self, seconds: float) -> float | None:
        """Model FLOPs utilization of a step."""
        known = self.step_flops > 0 and self.flops_per_s > 0 and seconds > 0
        return self.step_flops / seconds / self.flops_per_s if known else None


def step_words(record: StepRecord, yardstick: Yardstick) -> list[str]:
    """A step's figures, each with its name."""
    mfu = yardstick.mfu(record.seconds)
    words = [f"loss {record.loss:.4f}", f"{compact(record.tokens_per_second)} tokens/s"]
    words += [f"MFU {100 * mfu:.1f}%"] if mfu is not None else []
    words += [bytes_text(record.memory_bytes)] if record.memory_bytes else []
    return [*words, f"{seconds_text(record.seconds_left)} left"] if record.step < record.steps else words


def evaluation_words(record: EvalRecord) -> str:
    """The held-out loss, in bits a byte where ids are bytes."""
    bits = f" = {record.bits_per_byte:.3f} bits a byte" if record.bits_per_byte is not None else ""
    return f"held-out loss {record.loss:.4f}{bits}"


def comparison(summary: Summary) -> str:
    """What was foretold beside what was measured, what the step's time rests on, and whose the peak was to be."""
    foretold: Mapping[str, float] = summary.predicted
    pairs: list[tuple[str, float | None, float | None, Callable[[float], str]]] = [
        ("parameters", foretold.get("parameters"), summary.parameters, "{:,.0f}".format),
        ("step time", foretold.get("step_seconds"), summary.step_seconds, seconds_text),
        ("peak memory", foretold.get("peak_bytes"), summary.peak_bytes, bytes_text),
    ]
    parts = [
        f"{name} {'?' if before is None else say(before)} / {'?' if after is None else say(after)}"
        for name, before, after, say in pairs
    ]
    return "predicted / measured: " + ", ".join(parts) + _basis(foretold) + _owners(foretold)


def _basis(foretold: Mapping[str, float]) -> str:
    """What was known of the machine."""
    kernels = foretold.get("timed_kernels")
    if kernels is None:
        return ""
    timed = f"by {kernels:,.0f} kernels timed on this machine"
    return f"\nstep time {timed if kernels else 'by a roofline, a bound from below: `partita calibrate` times kernels'}"


def _owners(foretold: Mapping[str, float]) -> str:
    """Whose the peak was to be, the largest first; what lies on the host beside."""
    peak, sizes = foretold.get("peak_bytes"), owners_of(foretold)
    if not peak or not sizes:
        return ""
    words = [f"{owner} {100 * size / peak:.0f}%" for owner, size in sizes]
    host = f"\non the host: {bytes_text(foretold['host_bytes'])}" if foretold.get("host_bytes") else ""
    return f"\nwhose the peak is: {', '.join(words)}{host}"


@dataclass
class TrainingDisplay:
    """Shows a run on a stream: call `step` and `evaluation` as records come, `close` when there are no more."""

    yardstick: Yardstick = field(default_factory=Yardstick)
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    _bar: Progress | None = field(default=None, init=False)
    _task: TaskID | None = field(default=None, init=False)

    def step(self, record: StepRecord) -> None:
        """A step is done."""
        if self.stream.isatty():
            self._draw(record)
            return
        every = max(1, record.steps // PLAIN_LINES)
        if record.step == 1 or record.step % every == 0 or record.step == record.steps:
            self.say(f"step {record.step}/{record.steps}  " + "  ".join(step_words(record, self.yardstick)))

    def evaluation(self, record: EvalRecord) -> None:
        """An evaluation is done."""
        self.say(f"step {record.step}  {evaluation_words(record)}")

    def say(self, line: str) -> None:
        """A line of text, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, record: StepRecord) -> None:
        if self._bar is None:
            columns = (BarColumn(bar_width=24), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=Console(file=self.stream))
            self._task = self._bar.add_task("", total=record.steps)
            self._bar.start()
        assert self._task is not None, "made with the bar"
        words = "  ".join(step_words(record, self.yardstick))
        self._bar.update(self._task, completed=record.step, description=words)
