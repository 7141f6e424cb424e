"""Whether a checkpoint loads is known from its headers: what `check --checkpoint` says is what loading does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe
from partita.runtime import checkpoint
from partita.runtime.fault import RuntimeFault
from partita.runtime.state import initial_store
from partita.tools.cli import main
from partita.tools.specs import open_spec

SPEC = """use std
model M : x[batch, I] -> y[batch, O] {
  dim I = 6, O = 4
  up : Linear[I, O]
  return up(x)
}
train t {
  model = M
  data { x = tensors("x.npy") }
  loss = mean(abs(y - 1.0))
  batch = 4
  steps = 3
  lr = 0.01
  optimizer = adamw()
}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "m.partita").write_text(SPEC)
    build = compile_recipe(*_recipe(tmp_path), None)
    checkpoint.save(tmp_path / "run" / "checkpoints", build, initial_store(build, 0), 7, 0)
    return tmp_path


def _recipe(folder: Path, *sets: str) -> tuple[Spec, Recipe]:

    spec = open_spec(str(folder / "m.partita"))
    return spec, load_recipe(spec, "t", list(sets))


def asked(folder: Path, *words: str) -> int:
    return main(["check", str(folder / "m.partita"), "--checkpoint", str(folder / "run"), *words])


def test_it_loads(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "p.partita").write_text("plan p {\n  mesh = [data = 2]\n  zero = 3\n}\n")
    assert asked(run) == 0
    assert asked(run, "--plan", str(run / "p.partita")) == 0
    assert "after 7 steps\nit loads on data 2: 6 tensors" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["optimizer=sgd(momentum = 0.9)", "model=N"])
def test_what_loading_refuses_is_known_before(run: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = SPEC + SPEC[: SPEC.index("train")].replace("use std", "").replace("model M", "model N").replace(
        "O = 4", "O = 5"
    )
    (run / "m.partita").write_text(text)
    assert asked(run, "--set", change) == 1
    said = capsys.readouterr().out
    build = compile_recipe(*_recipe(run, change), None)
    with pytest.raises(RuntimeFault, match="E0511") as found:
        checkpoint.load(run / "run/checkpoints/step-00000007", build, initial_store(build, 0))
    assert said.splitlines()[2].strip() in found.value.message


def test_damage_and_other_formats(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "run/checkpoints/step-00000007"
    (file,) = path.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    assert asked(run) == 1
    assert "its size is not what its header says" in capsys.readouterr().out
    file.unlink()
    assert asked(run) == 1
    assert "is listed, and in no file" in capsys.readouterr().out
    file.write_bytes(whole)
    scalars = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**scalars, "format_version": 99}))
    assert asked(run) == 1
    assert "format 99" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("mesh = [data = 2]\n  pin = [I -> data, I -> none]", ""),
        ("mesh = [pipe = 9]", "cannot be 9 chunks"),
        ("mesh = [pipe = 2]\n  balance = [5, 5]", "balance [5, 5] does not cut"),
    ],
)
def test_a_plan_that_cannot_be(run: Path, keys: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "p.partita").write_text(f"plan p {{\n  {keys}\n}}\n")
    assert asked(run, "--plan", str(run / "p.partita")) == 1
    said = capsys.readouterr().out
    assert "the plan itself cannot be" in said
    assert why in said


def test_a_plan_is_looked_at_without_a_checkpoint_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, plan = str(run / "m.partita"), run / "p.partita"
    plan.write_text("plan p {\n  for = t\n  mesh = [data = 2]\n}\n")
    assert main(["check", spec, "--plan", str(plan)]) == 0
    plan.write_text('plan p {\n  for = t\n  recompute = ["down"]\n}\n')
    assert main(["check", spec, "--plan", str(plan)]) == 2
    assert "no instance falls to `down`" in capsys.readouterr().err
    plan.write_text("plan p {\n  for = other\n  mesh = [data = 2]\n}\n")
    assert main(["check", spec, "--plan", str(plan)]) == 2
    assert "the plan is for the recipe `other`, not for `t`" in capsys.readouterr().err


def test_the_answer_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["loads"], found["model"], found["step"], found["tensors"]) == (True, "M", 7, 6)
    assert asked(run, "--json", "--set", "optimizer=sgd()") == 1
    assert json.loads(capsys.readouterr().out)["faults"]
