"""Training on a pipeline in processes: one device's losses, checkpoints that leave it, a process that is killed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from oracles.processes import run_processes
from oracles.training import Losses, assert_close, compiled, launched, losses, trained, trained_together
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.layout import Mesh
from partita.compiler.pipeline import compile_recipe, open_spec
from partita.runtime.checkpoint import latest, load
from partita.runtime.program import Program
from partita.runtime.state import initial_store
from samples.layered import layered
from samples.spec_texts import ROOT, text_spec

KILLER = """
import os, signal
from partita.runtime import execute
run, count = execute.Executable._run, [0]
def counted(self, instructions, frame):
    for instruction in instructions:
        count[0] += 1
        if count[0] == {at} and os.environ.get("RANK") == "{rank}":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from run(self, [instruction], frame)
execute.Executable._run = counted
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    folder = tmp_path_factory.mktemp("alone")
    return trained(compiled(folder / "build", {}, 6)[0], folder / "run")


def test_a_run_goes_from_a_pipeline_to_one_device_and_to_a_mesh(tmp_path: Path, alone: Losses) -> None:
    run = tmp_path / "run"
    wide = compiled(tmp_path / "wide", {"data": 2, "pipe": 2}, 2, zero=1, schedule="zero_bubble")[0]
    trained_together(tmp_path / "first", wide, run, 4)
    trained(compiled(tmp_path / "one", {}, 4)[0], run, resume=True)
    narrow = compiled(tmp_path / "narrow", {"pipe": 2}, 6)[0]
    trained_together(tmp_path / "second", narrow, run, 2, resume=True)
    assert_close(losses(run), alone)


def test_a_resume_clears_away_what_a_kill_in_a_save_left(tmp_path: Path) -> None:
    """Also where nothing is left to save."""
    build, run = compiled(tmp_path / "build", {}, 1)[0], tmp_path / "run"
    trained(build, run)
    (left := run / "checkpoints" / ".partial-step-00000001").mkdir()
    (left / "shard-00000-model-00001-of-00001.safetensors").write_bytes(b"half")
    trained(build, run, resume=True)
    assert not left.exists()


def test_each_rank_saves_what_it_alone_holds(tmp_path: Path) -> None:
    """Names that rank 0 does not know are in the checkpoint too, and one device reads all of it."""
    spec = open_spec(ROOT / "specs/recipes/bench_step.partita")
    recipe = load_recipe(spec, "tiny", ["steps=1", "microbatches=2"])
    compile_recipe(spec, recipe, tmp_path / "build", mesh=Mesh((("pipe", 2),)))
    trained_together(tmp_path / "ran", tmp_path / "build", tmp_path / "run", 2)
    whole = compile_recipe(spec, recipe, None)
    store = initial_store(whole, 1)
    load(latest(tmp_path / "run" / "checkpoints"), whole, store)
    assert not store["ln_f.b"].eq(0).all(), "it was updated"


def test_two_stages_train_a_state_of_four_budgets(tmp_path: Path) -> None:
    """One device's losses, within the budget, at the peak that was foretold; a stage holds no parameters of others."""
    keys = "steps = 2\n microbatches = 4\n optimizer = adamw()\n precision = mixed(compute = bf16)\n plan { "
    budget = 4 << 20
    tight = f"budget = {budget >> 20} MiB, mesh = [pipe = 2], recompute = full, offload = [optimizer, activations]"
    for name, plan in (("one", ""), ("two", tight)):
        spec = text_spec(layered(f"{keys}{plan} }}", width=128, layers=8, tokens=64, drop=0.1))
        build = compile_recipe(spec, load_recipe(spec, "t"), tmp_path / name)
    assert 16 * build.predictions["parameters"] > 4 * budget
    words = {"build": str(tmp_path / "two"), "run": str(tmp_path / "run")}
    for one in run_processes(tmp_path / "ran", 2, "oracles.training:measured_peak", **words):
        assert int(one["peak"]) <= budget
        assert int(one["peak"]) == pytest.approx(build.predictions["peak_bytes"], rel=0.02)
    assert build.predictions["host_bytes"] > 12 * build.predictions["parameters"] / 2
    alone = trained_together(tmp_path / "lone", tmp_path / "one", tmp_path / "alone", 1)  # one thread too: it is bf16
    assert_close(losses(tmp_path / "run"), alone)


def instructions(program: Program) -> int:
    """How many a device runs in a step."""
    between = sum(len(part) for _, _, part in program.turns())
    return len(program.prepare) + between + len(program.update)


@pytest.mark.parametrize("seed", range(1))
def test_a_process_killed_at_any_instruction_ends_all(
    seed: int, tmp_path: Path, alone: Losses, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever misses it leaves within the time that it was given; the run goes on with the same losses."""
    draw, run = random.Random(seed), tmp_path / "run"
    folder, build = compiled(tmp_path / "build", {"pipe": 2}, 6)
    rank = draw.randrange(2)
    killer = KILLER.format(at=1 + draw.randrange(6 * instructions(build.programs_of(rank)["step"])), rank=rank)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(killer)
    with monkeypatch.context() as within:
        within.syspath_prepend(str(tmp_path / "site"))
        code, said = launched(capfd, folder, "--out", str(run), "--timeout", "20")
    assert code == 1, said
    assert re.search(rf"E0532.*rank {rank} .*SIGKILL", said), said
    saved = (run / "checkpoints" / "step-00000002").exists()
    code, said = launched(capfd, folder, "--out", str(run), "--resume" if saved else "--overwrite")
    assert code == 0, said
    assert_close(losses(run), alone)
