"""A step's time is the sum of its calls; microbatches multiply what they repeat; a machine twice as fast halves it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from partita.compiler.cost.host import USUAL
from partita.compiler.cost.roofline import Machine
from partita.compiler.cost.table import Table
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import DType
from partita.compiler.lower.build import compile_graphs, graph_time
from partita.compiler.lower.outside import ALONE
from partita.compiler.lower.timing import StepTime
from partita.compiler.offloaded import offloaded
from partita.compiler.pipeline import open_spec, step_graph

TOUR = Path(__file__).resolve().parents[3] / "specs/recipes/tour.partita"


def bare(speed: float = 1.0, launch_s: float = 0.0) -> Table:
    return Table("cpu", "2", 1, 1, Machine({DType.F32: 1e11 * speed}, 1e10 * speed, 1e10 * speed, launch_s))


@cache
def timed(speed: float = 1.0, launch_s: float = 0.0, *sets: str) -> StepTime:
    spec = open_spec(TOUR)
    return graph_time(step_graph(spec, load_recipe(spec, "tour", list(sets))), bare(speed, launch_s))


def test_a_step_is_the_sum_of_its_parts() -> None:
    found = timed()
    assert found.seconds == pytest.approx(sum(part.seconds for part in found.parts))
    assert {"matmul", "gelu", "_log_softmax", "view", "embedding"} <= {part.kernel for part in found.parts}
    assert any(part.place == "tour.partita:12 gelu" and part.kernel == "gelu" for part in found.parts)
    assert timed(2.0).seconds == pytest.approx(found.seconds / 2)


def test_microbatches_repeat_their_part() -> None:
    found = timed(1.0, 0.0, "microbatches=4")
    calls = {part.phase: part.calls for part in found.parts}
    assert calls["microbatch"] == 4 and calls["update"] == 1


def test_launches_are_counted() -> None:
    calls = sum(part.calls for part in timed().parts)
    assert timed(1.0, 1.0).seconds == pytest.approx(calls + timed().seconds)


def test_copies_to_the_host_and_back_take_time() -> None:
    spec = open_spec(TOUR)
    step = step_graph(spec, load_recipe(spec, "tour"))
    moved, _ = offloaded({"step": step}, ALONE, ("optimizer",))
    found, usual = graph_time(moved["step"], bare()), timed()
    copies = [part for part in found.parts if part.kernel == "copy_"]
    sizes = 4 * (2 * 256 * 8 + 256)  # the gradients go down, the parameters come up
    assert sum(part.seconds for part in copies) == pytest.approx(2 * 2 * sizes / 1e10)
    assert found.seconds > usual.seconds


def test_copies_beside_a_device_take_what_computing_does_not_hide() -> None:
    """The update runs in the host's memory, and a link that is slow against the kernels is what a step waits for."""
    spec = open_spec(TOUR)
    step = step_graph(spec, load_recipe(spec, "tour"))
    moved, _ = offloaded({"step": step}, ALONE, ("optimizer",))
    for speed, waits in ((1e-6, False), (1e9, True)):
        found = graph_time(moved["step"], replace(bare(speed), device="cuda"))
        copies = sum(part.seconds for part in found.parts if part.kernel == "copy_")
        sizes = 4 * (2 * 256 * 8 + 256)
        assert copies == pytest.approx(2 * sizes / USUAL.link_bytes_per_s if waits else 0, rel=1e-3)
        there = [part for part in found.parts if part.bound == "host memory"]
        assert there and all(part.phase == "update" for part in there)


def test_a_build_foretells_its_seconds_and_whose_the_peak_is() -> None:
    spec = open_spec(TOUR)
    graph = step_graph(spec, load_recipe(spec, "tour"))
    twice = {"turns": [{"program": "step", "repeat": 2}]}
    build, _ = compile_graphs({"step": graph}, twice, {}, table=bare())
    foretold = build.predictions
    assert foretold["step_seconds"] == pytest.approx(2 * timed().seconds)
    owners = sum(size for key, size in foretold.items() if key.startswith("peak_bytes."))
    assert owners == foretold["peak_bytes"]
