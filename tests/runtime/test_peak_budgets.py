"""What a step holds when it runs, as the allocator counts it: never above its budget, and less where that is less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Plan, Recipe, Recompute
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe
from partita.compiler.recompute.fit import MIB
from partita.runtime.begin import Options
from partita.runtime.metrics import Summary
from partita.runtime.train import train
from samples.layered import layered
from samples.spec_texts import text_spec

SPEC = layered("steps = 2\n  microbatches = 2\n  optimizer = sgd()", width=32, layers=3, tokens=64, rows=8, drop=0.1)
BUDGETS = 8 if settings().max_examples > 1000 else 3  # of `make fuzz` more


def trained(spec: Spec, recipe: Recipe, recompute: Recompute, folder: Path) -> Summary:
    compile_recipe(spec, replace(recipe, plan=Plan(recompute=recompute)), folder / "build")
    return train(folder / "build", Options(folder / "run", device="cpu")).summary


def test_a_smaller_budget_never_gives_a_larger_peak(tmp_path: Path) -> None:
    spec = text_spec(SPEC)
    recipe = load_recipe(spec, "t")
    whole = trained(spec, recipe, Recompute("none"), tmp_path / "none")
    with pytest.raises(SpecError, match="E0951") as refused:
        trained(spec, recipe, Recompute("budget", (), 1), tmp_path / "least")
    least = int(float(str(refused.value).partition("budget(")[2].partition(" MiB")[0]) * MIB)
    assert whole.peak_bytes is not None and least < 0.9 * whole.peak_bytes
    peaks: list[int] = []
    for at in range(BUDGETS):
        budget = least + (whole.peak_bytes - least) * at // (BUDGETS - 1)
        found = trained(spec, recipe, Recompute("budget", (), budget), tmp_path / str(at))
        assert found.loss == whole.loss and found.peak_bytes is not None
        assert found.peak_bytes <= budget
        peaks.append(found.peak_bytes)
    assert peaks == sorted(peaks) and len(set(peaks)) > 1
