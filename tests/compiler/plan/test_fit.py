"""What makes a step fit: the cheapest of all sets that fit, and bytes that the lowered step has too."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.elaborate.recipe import Plan, Recipe, Recompute
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import DType
from partita.compiler.lower.footprint import Footprint
from partita.compiler.pipeline import step_footprint
from partita.compiler.plan.fit import Fitter, Measures
from partita.compiler.plan.space import divisors
from partita.tools.cli import main
from partita.tools.fit import fitter_of, size_of
from samples.layered import layered
from samples.spec_texts import text_spec

SPEC = layered("steps = 4\n  optimizer = adamw()", width=128, tokens=64, rows=16)
MIB = 1 << 20


def fitter(limit: int, devices: int = 1) -> Fitter:
    spec = text_spec(SPEC)
    cluster = replace(H100_NODES, memory_bytes=limit)
    return fitter_of(spec, load_recipe(spec, "t"), cluster, devices)


@pytest.mark.parametrize(("mib", "devices"), [(18, 1), (9, 1), (9, 2)])
def test_nothing_that_fits_is_cheaper(mib: int, devices: int) -> None:
    ready = fitter(mib * MIB, devices)
    whole = 16 // devices
    kinds = product(
        divisors(whole), ("cheap", "selective", "full"), ready.layouts, range(4) if devices > 1 else (0,), (False, True)
    )
    priced = [ready.price(Measures(kind[0], whole // kind[0], *kind[1:])) for kind in kinds]
    fitting = [one.seconds for one in priced if ready.fits(one)]
    assert min(one.seconds for one in ready.cheapest()) == min(fitting)
    assert ready.least().peak_bytes <= min(one.peak_bytes for one in priced)


def lowered(recipe: Recipe, measures: Measures) -> Footprint:
    plan = Plan(
        recompute=Recompute(measures.recompute),
        offload=("optimizer",) if measures.offload else (),
    )
    compute = DType.BF16 if measures.precision else recipe.precision.compute
    precision = replace(recipe.precision, compute=compute)
    whole = replace(recipe, microbatches=measures.microbatches, plan=plan, precision=precision)
    return step_footprint(text_spec(SPEC), whole, device="cuda")


@pytest.mark.parametrize(
    "measures",
    [
        Measures(16, 1),
        Measures(4, 4, "full", "bf16"),
        Measures(16, 1, offload=True),
        Measures(16, 1, precision="bf16", offload=True),
    ],
)
def test_bytes_are_those_of_the_lowered_step(measures: Measures) -> None:
    found, step = fitter(1 << 40).price(measures), lowered(load_recipe(text_spec(SPEC), "t"), measures)
    assert found.peak_bytes == pytest.approx(step.memory.peak_bytes, rel=0.05)
    assert found.host_bytes == pytest.approx(step.host_bytes, rel=0.05)


def test_the_most_rows_are_the_last_that_fit() -> None:
    ready = fitter(20 * MIB)
    most = ready.most_rows(Measures(1, 1))
    assert ready.fits(ready.price(Measures(most, 1)))
    assert not ready.fits(ready.price(Measures(most + 1, 1)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.partita"
    file.write_text(SPEC)
    assert main(["fit", str(file), "--memory", "9MiB", "--device", "a100"]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "cheapest:" in said
    assert main(["fit", str(file), "--memory", "1MiB"]) == 1
    assert "at the least" in capsys.readouterr().err


def test_sizes() -> None:
    assert size_of("24GiB") == 24 << 30
    assert size_of("1.5 GB") == 1_500_000_000
