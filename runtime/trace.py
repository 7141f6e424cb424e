"""A profile of some steps as a Chrome trace: what each operator and kernel took, to be read in Perfetto or
chrome://tracing.

In: which steps (`trace { at, steps }`). Out: `trace/steps-FIRST-LAST.json` in the run's folder, of each process of a
mesh its own. Steps that are traced are slower, so no timing counts them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .recipe import Trace


@dataclass(slots=True)
class Tracer:
    """Begins before the first of the steps and writes after the last, or where the run ends before it."""

    trace: Trace | None
    folder: Path
    device: torch.device
    whose: str = ""
    first: int = 0
    last: int = 0
    profiler: profile | None = field(default=None, init=False)

    @property
    def active(self) -> bool:
        """Whether the step that runs is traced."""
        return self.profiler is not None

    @contextmanager
    def step(self, number: int) -> Generator[None]:
        """Around a step, which counts from 1."""
        trace = self.trace
        if trace is None or not trace.at <= number < trace.at + trace.steps:
            yield
            return
        if self.profiler is None:
            cuda = [ProfilerActivity.CUDA] if self.device.type == "cuda" else []
            self.profiler, self.first = profile(activities=[ProfilerActivity.CPU, *cuda]), number
            self.profiler.start()
        with record_function(f"step {number}"):
            yield
        self.last = number

    def finish(self, number: int) -> None:
        """After a step, when its times are taken: the trace is written if that was the last of it."""
        if self.trace is not None and number >= self.trace.at + self.trace.steps - 1:
            self.close()

    def close(self) -> None:
        """Write what was traced. Raises OSError."""
        profiler, self.profiler = self.profiler, None
        if profiler is None:
            return
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"steps-{self.first:08d}-{self.last:08d}{self.whose}.json"
        partial = path.with_name(f".partial-{path.name}")
        profiler.export_chrome_trace(str(partial))
        os.replace(partial, path)
