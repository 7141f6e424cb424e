"""Trains a build: batches in, steps, evaluations, checkpoints and metrics out. Prints nothing; callbacks tell.

The loss of a step follows from the build, the seed and the step alone, so that a run which was killed and resumed gives
the same losses, bit for bit. How a run begins is said in `begin.py`.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from . import checkpoint, stopwatch, weights
from .allocator import keep_freed_memory
from .begin import Options, check_build, checkpoint_folder, inside, open_build, open_metrics, start
from .blame import first_bad
from .budget import cap_memory, keep_to, on_device
from .data import Data
from .exchange import export_weights
from .execute import Executable as Interpreter
from .fault import RuntimeFault
from .feed import Executable, open_feeds, step_data
from .judge import Judge
from .memory import measure_peak
from .mesh import Place, highest, join_mesh, leads, ways_of
from .metrics import EvalRecord, Metrics, StepRecord, Summary, bits_per_byte, read_summary
from .process import Leave, leave_on_signals, own_device, process_group
from .program import Build
from .recipe import Training, Turn, from_plain
from .state import Store, parameter_count
from .trace import Tracer

WARM_UP = 3  # steps of a process that no timing counts
MEASURED = 1  # the first step of a process, from 0, whose memory is measured (it is slower, so no timing counts it)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `exit_code` is 0, 130 (SIGINT) or 143 (SIGTERM); `checkpoint` the newest there is."""

    summary: Summary
    checkpoint: Path | None
    exit_code: int


def train(build_folder: Path, options: Options, executable: Executable | None = None) -> Result:
    """Train a build to its last step or until a signal. Raises `RuntimeFault`; then no file was overwritten."""
    keep_freed_memory()
    device = own_device(options.device)
    if executable is None:
        executable = open_build(build_folder, device, options.compiled, options.kernels)
    training = from_plain(executable.build.recipe)
    check_build(executable, training, options)
    cap_memory(device, training.budget_bytes)
    try:
        with process_group(device, options.timeout_s), leave_on_signals() as leave:
            return _train(executable, training, options, leave)
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise RuntimeFault("E0516", f"{options.folder} cannot be written: {reason}", "name another folder") from fault


def _train(executable: Executable, training: Training, options: Options, leave: Leave) -> Result:
    """The same within a process group, of which nothing is held when it returns."""
    build = executable.build
    ways = ways_of(build) if executable.device.type == "cuda" else ()
    place = join_mesh(build.mesh, executable.device, options.timeout_s, ways)
    if place is not None:
        assert isinstance(executable, Interpreter), "only the interpreter knows of a mesh"
        executable = replace(executable, communicator=place.processes)
    data = open_feeds(training, build, place.rank if place else None, options.data_root)
    begin = start(executable, training, options, place)
    with open_metrics(training, options, begin.done) as metrics:
        run = _Run(executable, training, options, data, begin.store, metrics, leave, begin.done, place)
        run.judge.watcher.begin(begin.losses)
        return run.go()


@dataclass(slots=True)
class _Run:
    """The loop's own state: `done` steps are done, `began` of them before this process."""

    executable: Executable
    training: Training
    options: Options
    data: Data
    store: Store
    metrics: Metrics
    leave: Leave
    began: int
    place: Place | None = None
    done: int = 0
    saved_step: int = 0
    seconds: list[float] = field(default_factory=list[float])
    peak_bytes: int | None = None
    measured: int | None = None  # the step, from 0, whose memory is measured
    loss: float | None = None
    held_out: EvalRecord | None = None
    saved: Path | None = None
    tracer: Tracer = field(init=False)
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(self.training)
        whose = f"-rank-{self.place.rank}" if self.place else ""
        self.tracer = Tracer(self.training.trace, self.options.folder / "trace", self.executable.device, whose)

    def go(self) -> Result:
        """All steps that are left, or those before a signal."""
        self.done = self.saved_step = self.began
        while self.done < self.training.steps and not self._leaving():
            self._step()
            last = self.done == self.training.steps
            if last or _due(self.done, self.training.evaluate.every if self.training.evaluate else 0):
                self._evaluate()
            exports = self.training.export is not None and (last or _due(self.done, self.training.export.every))
            if last or exports or _due(self.done, self.training.checkpoint.every):
                self._save()
            if exports:
                self._export()
        self.tracer.close()
        if self.leave.signal and self.training.checkpoint.on_signal and self.done > self.saved_step:
            self._save()
        if self.done == self.training.steps and self.held_out is None:
            self._evaluate()  # resumed at the end
        summary = self._summary()
        self.metrics.summary(summary)
        return Result(summary, self.saved or self._newest(), self.leave.exit_code)

    def _leaving(self) -> bool:
        """Whether a signal asked any process of the mesh to leave: then all do, after the same step."""
        number = int(highest(self.leave.signal or 0))
        self.leave.signal = signal.Signals(number) if number else None
        return bool(number)

    def _step(self) -> None:
        begin = time.perf_counter()
        with self.tracer.step(self.done + 1):
            outputs = self._run_step()
            loss = float(outputs["loss"])
        seconds, traced = time.perf_counter() - begin, self.tracer.active
        self.tracer.finish(self.done + 1)
        self._watch(loss)
        if self.done == self.began:
            self._dump(outputs)
        self.done, self.loss = self.done + 1, loss
        if not traced:
            self.seconds.append(seconds)
        record = StepRecord(
            self.done,
            self.training.steps,
            loss,
            seconds,
            self.training.tokens_per_step / seconds,
            self.peak_bytes,
            (self.training.steps - self.done) * (self._step_seconds() or seconds),
            {k: float(v) for k, v in outputs.items() if k != "loss" and v.ndim == 0},
        )
        if _due(self.done, self.training.log.every) or self.done == self.training.steps:
            self.metrics.step(record)
        if self.options.on_step and leads():
            self.options.on_step(record)

    def _watch(self, loss: float) -> None:
        """Says so where the loss is far above the last ones, and keeps the checkpoint from before."""
        spike = self.judge.watcher.see(self.done + 1, loss) if self.training.on_spike else None
        if spike is None or not leads():
            return
        newest = self._newest()
        if newest is not None:
            checkpoint.spare(newest, str(spike))
        message = str(spike) + ("; nothing was updated" if self.judge.skips_spikes else "")
        message += f"; {newest.name} is kept" if newest else ""
        self.metrics.warning(spike.step, message)
        if self.options.on_warning:
            self.options.on_warning(message)

    def _judge(self, turn: Turn, number: int, count: int, outputs: dict[str, torch.Tensor]) -> None:
        """Stops at a loss or gradients that are not as the recipe wants them; nothing of theirs was written."""
        found = self.judge.fault(turn, outputs)
        if found is None:
            return
        message = f"{found} at step {self.done + 1}" + (f" of `{turn.name}`" if turn.name else "")
        if not self.judge.refused(outputs):  # a program without a check: the parameters are another's already
            raise self._not_finite(message)
        if self.judge.spiked(turn, outputs):
            self._save_before(number)
            spike = self.judge.watcher.spike(self.done + 1, float(outputs["loss"]))
            raise RuntimeFault("E0526", str(spike), f"nothing was updated{self._kept()}")
        rank = self.place.rank if self.place else 0
        data = step_data(self.data.train, number)
        bad = first_bad(self.store, data, lambda: self._run_program(turn, number, count), rank)
        self._save_before(number)
        raise self._not_finite(f"{message}: {bad or 'it was not so when the step was run again'}")

    def _save_before(self, number: int) -> None:
        """What the steps before have made, beside the checkpoints that there are; `number` is the run that failed."""
        if number != self.done * self.training.runs_per_step:
            return  # another update of the same step has written already
        finite = all(bool(torch.isfinite(t).all()) for t in self.store.values() if t.is_floating_point())
        if self.done > self.saved_step and not highest(float(not finite)):
            self._write_checkpoint(keep=0)

    def _run_step(self) -> dict[str, torch.Tensor]:
        """Every update of a step in its turn: what the first gives, and what a named one gives under its name."""
        outputs: dict[str, torch.Tensor] = {}
        number = self.done * self.training.runs_per_step
        for turn in self.training.turns:
            found: dict[str, torch.Tensor] = {}
            for again in range(turn.repeat):
                count = self.done * turn.repeat + again
                found = self._run_program(turn, number, count)
                self._judge(turn, number, count, found)
                number += 1
            named = {f"{turn.name}.{key}": value for key, value in found.items()} if turn.name else {}
            outputs = {**found, **outputs, **named}
        return outputs

    def _run_program(self, turn: Turn, number: int, count: int) -> dict[str, torch.Tensor]:
        """One run of an update on the batch of that number; `count` of its runs are done."""
        data, bound, seed = step_data(self.data.train, number), self.judge.bound(turn), self.training.seed

        def call(executable: Executable = self.executable) -> dict[str, torch.Tensor]:
            return executable.run(turn.program, self.store, data, step=count, seed=seed, bound=bound)

        if self.options.timeline and self.done == self.training.steps - 1 and turn is self.training.turns[0]:
            assert isinstance(self.executable, Interpreter), "other executables are one call"
            outputs, found = stopwatch.timed(self.executable, turn.program, call)
            stopwatch.write(self.options.folder, self.executable.rank, found)
            return outputs
        if self._measures():
            build = self.executable.build
            held = [*on_device(build, self.store), *(tensor for rows in data for tensor in rows.values())]
            outputs, peak = measure_peak(call, held, self.executable.device)
            self.peak_bytes = max(self.peak_bytes or 0, int(highest(peak)))
            keep_to(self.training.budget_bytes, self.peak_bytes, self.done + 1, build)
            return outputs
        return call()

    def _measures(self) -> bool:
        """Whether this step's memory is measured: the first from `MEASURED` on that no profile is taken of."""
        if self.measured is None and self.done - self.began >= MEASURED and not self.tracer.active:
            self.measured = self.done if self.options.measure_memory else None
        return self.measured == self.done

    def _evaluate(self) -> None:
        held_out = self.data.held_out
        if held_out is None:
            return
        total, terms = 0.0, 0
        for number in range(held_out.steps):
            data = step_data(held_out, number)
            # The same random numbers each time, so that evaluations compare; others for each batch.
            outputs = self.executable.run("evaluate", self.store, data, step=number, seed=self.training.seed)
            count = held_out.terms(number)
            total, terms = total + float(outputs["loss"]) * count, terms + count
        loss = total / max(1, terms)
        bits = bits_per_byte(loss) if self._reads_bytes() else None
        self.held_out = EvalRecord(self.done, loss, bits)
        self.metrics.evaluation(self.held_out)
        if self.options.on_evaluate and leads():
            self.options.on_evaluate(self.held_out)

    def _reads_bytes(self) -> bool:
        evaluate = self.training.evaluate
        source = (evaluate.source if evaluate else None) or self.training.source
        return source is not None and source.kind in ("text", "corpus")

    def _save(self) -> None:
        for name, tensor in self.store.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise self._not_finite(f"{name} is not finite after step {self.done}")
        self._write_checkpoint(self.training.checkpoint.keep)

    def _write_checkpoint(self, keep: int) -> None:
        folder = checkpoint_folder(self.training, self.options.folder)
        build, seed, losses = self.executable.build, self.training.seed, self.judge.watcher.losses
        self.saved = checkpoint.save(folder, build, self.store, self.done, seed, keep, self.place, losses)
        self.saved_step = self.done
        if self.options.on_checkpoint and leads():
            self.options.on_checkpoint(self.saved)

    def _export(self) -> None:
        """The checkpoint of this step under the names of others; of a mesh, one process writes it."""
        export, saved = self.training.export, self.saved
        assert export is not None and saved is not None, "what is exported was saved"
        if leads():
            folder = self.options.folder / "export" / saved.name
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier run that was begun anew
            export_weights(weights.from_plain(export.weights), saved, folder)

    def _not_finite(self, message: str) -> RuntimeFault:
        return RuntimeFault(
            "E0520", message, f"a lower learning rate, a longer warm-up or clipping may help{self._kept()}"
        )

    def _kept(self) -> str:
        newest = self._newest()
        return f"; the last good checkpoint is {newest}" if newest else ""

    def _newest(self) -> Path | None:
        found = checkpoint.checkpoints(checkpoint_folder(self.training, self.options.folder))
        return found[-1] if found else None

    def _dump(self, outputs: dict[str, torch.Tensor]) -> None:
        if not self.options.dump:
            return
        from safetensors.torch import save_file  # needed for this alone

        folder = self.options.folder / "dump"
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in self.options.dump if name in outputs]  # a stage of a pipeline has its own
        tensors = {name: outputs[name].detach().cpu().contiguous() for name in there}
        whose = f"-rank-{self.place.rank}" if self.place else ""
        save_file(tensors, folder / f"step-{self.done + 1:08d}{whose}.safetensors")

    def _step_seconds(self) -> float | None:
        """The median of the steps that count: not the first ones, not the one whose memory was measured."""
        counted = self.seconds[max(WARM_UP, MEASURED + 1) :] or self.seconds[-1:]
        return statistics.median(counted[-1000:]) if counted else None

    def _summary(self) -> Summary:
        build, seconds = self.executable.build, self._step_seconds()
        flops = build.predictions.get("step_flops")
        return Summary(
            name=build.name,
            steps=self.done,
            parameters=parameter_count(build),
            step_seconds=seconds,
            peak_bytes=self.peak_bytes,
            tokens_per_second=self.training.tokens_per_step / seconds if seconds else None,
            flops_per_second=flops / seconds if flops and seconds else None,
            loss=self.loss,
            held_out=self.held_out,
            predicted=dict(build.predictions),
        )


def result_of(build: Build, folder: Path) -> Result:
    """How a run that other processes ran to its end ended: what they wrote down in its folder."""
    training = from_plain(build.recipe)
    saved = checkpoint.checkpoints(checkpoint_folder(training, folder))
    return Result(read_summary(inside(folder, training.log.metrics)), saved[-1] if saved else None, 0)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
