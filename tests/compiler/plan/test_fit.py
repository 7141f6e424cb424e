"""What makes a step fit: the cheapest of all sets that fit, and bytes that the lowered step has too."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.elaborate.recipe import Plan, Recompute
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import DType
from partita.compiler.lower.footprint import Footprint
from partita.compiler.pipeline import step_footprint
from partita.compiler.plan.fit import Fitter, Kind, Measures
from partita.compiler.plan.plan import planner
from partita.compiler.plan.space import NAMED, OFFLOADS, divisors
from partita.compiler.steps import Steps
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


@pytest.mark.parametrize(("mib", "devices"), [(9, 1), (9, 2)])
def test_nothing_that_fits_is_cheaper(mib: int, devices: int) -> None:
    ready = fitter(mib * MIB, devices)
    whole = 16 // devices
    zeros = range(4) if devices > 1 else (0,)
    kinds = [Kind(*one) for one in product(NAMED, ready.layouts, zeros, OFFLOADS)]
    tried = (ready.price(Measures(rows, whole // rows, kind)) for rows in divisors(whole) for kind in kinds)
    priced = [one for one in tried if one is not None]
    fitting = [one.seconds for one in priced if ready.fits(one)]
    found = list(ready.cheapest())
    assert all(map(ready.fits, found))
    assert min(one.seconds for one in found) <= min(fitting)
    assert ready.least().peak_bytes == min(one.peak_bytes for one in priced)


@pytest.mark.parametrize("mib", [17, 12])
def test_it_says_what_the_planner_says_of_one_device(mib: int) -> None:
    spec, ready = text_spec(SPEC), fitter(mib * MIB)
    steps = Steps(spec, "cuda")
    alone = replace(ready.cluster, levels=())
    *_, last = planner(spec, load_recipe(spec, "t"), (steps.fused, steps.unfused), alone).search()
    best = last.best[0]
    found = min((one for one in ready.cheapest() if not one.measures.kind.precision), key=lambda one: one.seconds)
    assert found.seconds == pytest.approx(best.seconds, rel=1e-12)
    alike = Kind(best.choice.unit.recompute, offload=best.choice.offload)
    same = ready.price(Measures(best.choice.unit.rows, best.choice.microbatches, alike))
    assert same is not None
    assert (same.seconds, same.peak_bytes) == (best.seconds, best.peak_bytes)


def lowered(measures: Measures, limit: int) -> Footprint:
    recipe, kind = load_recipe(text_spec(SPEC), "t"), measures.kind
    plan = Plan(
        recompute=Recompute(kind.recompute, budget_bytes=limit if kind.recompute == "budget" else None),
        offload=kind.offload,
    )
    compute = DType.BF16 if kind.precision else recipe.precision.compute
    precision = replace(recipe.precision, compute=compute)
    whole = replace(recipe, microbatches=measures.microbatches, plan=plan, precision=precision)
    return step_footprint(text_spec(SPEC), whole, device="cuda")


@pytest.mark.parametrize(
    "measures",
    [
        Measures(16, 1),
        Measures(4, 4, Kind("full", "bf16")),
        Measures(16, 1, Kind("budget")),
        Measures(16, 1, Kind(precision="bf16", offload=("optimizer",))),
        Measures(8, 2, Kind("none", offload=("optimizer", "activations"))),
        Measures(1, 16, Kind("full", offload=("activations",))),
    ],
)
def test_bytes_are_those_of_the_lowered_step(measures: Measures) -> None:
    ready = fitter(18 * MIB)
    found, step = ready.price(measures), lowered(measures, 18 * MIB)
    assert found is not None
    assert found.peak_bytes == pytest.approx(step.memory.peak_bytes, rel=0.05)
    assert found.host_bytes == pytest.approx(step.host_bytes, rel=0.05)


@pytest.mark.parametrize("kind", [Kind(), Kind("budget", offload=("optimizer",))])
def test_the_most_rows_are_the_last_that_fit(kind: Kind) -> None:
    ready = fitter(20 * MIB)
    most = ready.most_rows(kind)
    there, more = (ready.price(Measures(rows, 1, kind), (rows,)) for rows in (most, most + 1))
    assert there is not None
    assert ready.fits(there)
    assert more is None or not ready.fits(more)
    assert ready.largest()[0] >= most


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.partita"
    file.write_text(SPEC)
    assert main(["fit", str(file), "--memory", "9MiB", "--device", "a100"]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "fastest that fits:" in said
    assert main(["fit", str(file), "--memory", "1MiB"]) == 1
    assert "at the least" in capsys.readouterr().err


def test_sizes() -> None:
    assert size_of("24GiB") == 24 << 30
    assert size_of("1.5 GB") == 1_500_000_000
