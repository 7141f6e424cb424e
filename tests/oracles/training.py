"""A small recipe compiled for a mesh, and trained in real processes or in this one."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.ir.layout import Mesh
from partita.compiler.partition.choices import Wishes
from partita.compiler.pipeline import compile_recipe
from partita.runtime.begin import Options
from partita.runtime.execute import Executable, Store
from partita.runtime.fault import RuntimeFault
from partita.runtime.launch import launch
from partita.runtime.metrics import read_metrics
from partita.runtime.program import Build
from partita.runtime.train import train
from partita.tools.cli import guarded
from partita.tools.specs import open_spec, recipe_of

from .processes import ROOT, run_processes

Losses = dict[str, torch.Tensor]

SPEC = ROOT.parent / "specs" / "recipes" / "tour.partita"


def compiled(
    folder: Path, axes: Mapping[str, int], steps: int, zero: int | None = None, schedule: str = "1f1b"
) -> tuple[Path, Build]:
    """The recipe for a mesh: rows over `data`, the vocabulary over `tensor`, layers over `pipe`."""
    spec = open_spec(str(SPEC))
    sets = [("steps", str(steps)), ("checkpoint.every", "2"), ("checkpoint.keep", "9")]
    recipe = recipe_of(spec, (*sets, ("microbatches", "2" if "pipe" in axes else "1")), None, None)
    assert recipe is not None, "a train record"
    recipe = replace(recipe, plan=Plan(schedule=schedule))
    pins = {"batch": ("data",) if "data" in axes else (), "V": ("tensor",) if "tensor" in axes else ()}
    mesh = Mesh(tuple(axes.items()))
    build = compile_recipe(spec, recipe, folder, mesh=mesh, wishes=Wishes(pins, zero))
    return folder, build


def trained(build: str | Path, run: str | Path, resume: bool = False) -> dict[str, torch.Tensor]:
    """In this process, alone or one of a mesh: the losses of the whole run's steps."""
    train(Path(build), Options(Path(run), resume=resume, measure_memory=False, device="cpu"))
    return losses(Path(run))


def losses(run: Path) -> dict[str, torch.Tensor]:
    """Of every step that was written down."""
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "step"]
    return {str(line["step"]): torch.tensor(line["loss"], dtype=torch.float64) for line in lines}


def measured_peak(build: str, run: str) -> dict[str, torch.Tensor]:
    """One process of a mesh trains to the end: the highest peak of any, in bytes."""
    summary = train(Path(build), Options(Path(run), device="cpu")).summary
    return {"peak": torch.tensor(summary.peak_bytes)}


def trained_together(folder: Path, build: Path, run: Path, count: int, resume: bool = False) -> dict[str, torch.Tensor]:
    """The same in processes of their own."""
    run_processes(folder, count, "oracles.training:trained", build=str(build), run=str(run), resume=resume)
    return losses(run)


def refused(build: str, run: str, weight: str, rank: int, step: int) -> dict[str, torch.Tensor]:
    """One process of a mesh, of which one has an infinite weight in a step (from 0): the fault, as bytes."""
    whole, spoiled = Executable.run, dict[str, torch.Tensor]()

    def touched(self: Executable, name: str, store: Store, *rest: Any, **named: Any) -> dict[str, torch.Tensor]:
        if not spoiled:  # before anybody looks
            spoiled[weight] = torch.full_like(store[weight], math.inf)
        if self.rank == rank and name == "step" and named["step"] == step:
            store = {**store, **spoiled}
        return whole(self, name, store, *rest, **named)

    Executable.run = touched
    try:
        trained(build, run)
    except RuntimeFault as fault:
        return {"fault": torch.tensor(list(fault.message.encode()), dtype=torch.uint8)}
    return {}


def assert_close(found: Losses, wanted: Losses) -> None:
    """Float32 losses that differ by the order of sums alone."""
    assert found.keys() == wanted.keys()
    for step, loss in wanted.items():
        torch.testing.assert_close(found[step], loss, rtol=2e-6, atol=0, msg=f"step {step}")


def launched(capfd: pytest.CaptureFixture[str], build: Path, *words: str) -> tuple[int, str]:
    """Two processes of a build, started as the command line starts them: the exit code, and what they said."""
    paths = os.pathsep.join(p for p in sys.path if p)
    with patch.dict(os.environ, {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}):
        capfd.readouterr()
        code = guarded(lambda: launch(build, 2, [*words, "--device", "cpu"]), debug=False)
    return code, capfd.readouterr().err
