"""Trainings whose optimizer lies on the host: the losses of all on the device, and less memory there, as foretold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.lower.build import write
from partita.compiler.pipeline import compile_recipe
from partita.runtime.begin import Options
from partita.runtime.fault import RuntimeFault
from partita.runtime.metrics import Summary
from partita.runtime.train import train
from samples.layered import layered
from samples.spec_texts import text_spec


def text_of(keys: str, **sizes: int) -> str:
    return layered(f"steps = 2\n  clip = 1\n  {keys}", drop=0.1, **sizes)


def trained(folder: Path, keys: str, offload: tuple[str, ...], **sizes: int) -> Summary:
    folder.mkdir()
    spec = text_spec(text_of(keys, **sizes))
    recipe = load_recipe(spec, "t")
    recipe = dataclasses.replace(recipe, plan=dataclasses.replace(recipe.plan or Plan(), offload=offload))
    compile_recipe(spec, recipe, folder / "build")
    return train(folder / "build", Options(folder / "run", device="cpu")).summary


@pytest.mark.parametrize(
    "keys",
    [
        "optimizer = adamw()",
        "optimizer = adamw()\n precision = mixed(compute = bf16)",
        "optimizer = sgd(momentum = 0.9)\n microbatches = 2",
        "optimizer = adamw()\n precision = mixed(compute = bf16)\n microbatches = 2\n plan { recompute = full }",
    ],
)
def test_the_same_losses_in_less_memory(tmp_path: Path, keys: str) -> None:
    plain, moved = trained(tmp_path / "a", keys, ()), trained(tmp_path / "b", keys, ("optimizer",))
    assert moved.loss == plain.loss
    assert moved.peak_bytes == pytest.approx(moved.predicted["peak_bytes"], rel=0.02)
    assert moved.predicted["peak_bytes.optimizer state"] == 0 < moved.predicted["host_bytes"]
    assert moved.peak_bytes is not None
    assert plain.peak_bytes is not None
    assert moved.peak_bytes < 0.8 * plain.peak_bytes


@pytest.mark.parametrize(("recompute", "kinds"), [("none", ("activations",)), ("full", ("optimizer", "activations"))])
def test_activations_on_the_host(tmp_path: Path, recompute: str, kinds: tuple[str, ...]) -> None:
    keys = f"optimizer = adamw()\n microbatches = 2\n plan {{ recompute = {recompute} }}"
    plain, moved = (
        trained(tmp_path / name, keys, moved, tokens=64, layers=8) for name, moved in (("a", kinds[:-1]), ("b", kinds))
    )
    assert moved.loss == plain.loss
    assert moved.peak_bytes == pytest.approx(moved.predicted["peak_bytes"], rel=0.02)
    assert moved.predicted["peak_bytes.activations"] < plain.predicted["peak_bytes.activations"]


def test_a_state_of_four_budgets_trains(tmp_path: Path) -> None:
    """Parameters, gradients and the optimizer's state are more than four times what the device may hold."""
    keys = (
        "optimizer = adamw()\n precision = mixed(compute = bf16)\n log { grad_norm = true }\n plan { recompute = full }"
    )
    budget = 12 << 20
    plain = trained(tmp_path / "a", keys, (), width=256, layers=6)
    state = 16 * plain.parameters  # in float32: parameters, gradients, two moments
    assert state > 4 * budget
    tight = keys.replace("plan {", f"plan {{ budget = {budget >> 20} MiB\n")
    moved = trained(tmp_path / "b", tight, ("optimizer",), width=256, layers=6)
    assert moved.loss == plain.loss
    assert moved.peak_bytes is not None
    assert moved.peak_bytes <= budget
    with pytest.raises(SpecError, match=r"E0952.*optimizer state"):
        trained(tmp_path / "c", tight, (), width=256, layers=6)


def test_a_step_above_its_budget_is_refused_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    spec = text_spec(text_of("optimizer = adamw()\n plan { budget = 1 GiB }"))
    recipe = load_recipe(spec, "t")
    build = compile_recipe(spec, recipe, folder)
    text = (folder / "program.json").read_text("utf-8")
    assert build.recipe["budget_bytes"] == 1 << 30
    files = {
        name: (folder / name).read_text("utf-8")
        for name in json.loads((folder / "manifest.json").read_text())["sha256"]
    }
    write({**files, "program.json": text.replace(str(1 << 30), str(1 << 20))}, folder)
    with pytest.raises(RuntimeFault, match=r"E0527.*optimizer state"):
        train(folder, Options(tmp_path / "run", device="cpu"))
