"""Training on meshes: the losses of one device, checkpoints that go from mesh to mesh, processes that are killed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from oracles.training import Losses, assert_close, compiled, launched, losses, trained, trained_together


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    folder = tmp_path_factory.mktemp("alone")
    return trained(compiled(folder / "build", {}, 6)[0], folder / "run")


def test_a_run_goes_from_mesh_to_mesh_to_one_device(tmp_path: Path, alone: Losses) -> None:
    run = tmp_path / "run"
    data, built = compiled(tmp_path / "data", {"data": 2}, 2, zero=3)
    assert any("shard" in cut for item in built.parameters for cut in item.layout), "ZeRO 3 shards parameters"
    trained_together(tmp_path / "first", data, run, 2)
    tensor, built = compiled(tmp_path / "tensor", {"tensor": 2}, 4)
    assert any("shard" in cut for item in built.parameters for cut in item.layout), "the vocabulary is cut"
    trained_together(tmp_path / "second", tensor, run, 2, resume=True)
    assert_close(trained(compiled(tmp_path / "one", {}, 6)[0], run, resume=True), alone)


KILLER = """
import os, signal
from partita.runtime import train
number, rank = {number}, os.environ.get("RANK")
step = train._Run._step
def stepped(self):
    step(self)
    if self.done == {step} and rank == "{rank}" and not self.options.resume:
        os.kill({target}, number)
train._Run._step = stepped
"""


def killer(folder: Path, number: int, step: int, rank: int, target: str) -> None:
    """A sitecustomize that sends a signal after a step."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILLER.format(number=number, step=step, rank=rank, target=target))


def test_a_killed_process_ends_all_and_the_run_goes_on(
    tmp_path: Path, alone: Losses, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    build, run = compiled(tmp_path / "build", {"data": 2}, 6)[0], tmp_path / "run"
    killer(tmp_path / "site", signal.SIGKILL, 3, 1, "os.getpid()")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    code, said = launched(capfd, build, "--out", str(run))
    assert code == 1, said
    assert re.search(r"E0532.*rank 1 .*SIGKILL", said), said
    code, said = launched(capfd, build, "--out", str(run), "--resume")
    assert code == 0, said
    assert_close(losses(run), alone)
    trained_together(tmp_path / "whole", build, tmp_path / "never killed", 2)
    assert losses(run) == losses(tmp_path / "never killed"), "on the same mesh, bit for bit"
