"""`partita bench zero`: real processes hold what ZeRO's formula says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from partita.compiler.cost.account import account
from partita.compiler.devices import partitioned
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.layout import Mesh
from partita.compiler.partition.choices import Wishes
from partita.compiler.pipeline import open_spec, step_graph
from partita.tools.bench.command import held_line
from partita.tools.bench.zero import Held, bench_zero, formula, summary
from partita.tools.bench.zero_process import Holding

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_hold_what_the_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    (found,) = bench_zero([2], [2], "tiny")
    assert found.ratio == pytest.approx(1, rel=0.01)
    held = found.holding
    assert held.gradient_bytes == pytest.approx(found.weights, rel=0.01), "two bytes each, a half of them"
    assert held.state_bytes == pytest.approx(4 * found.weights, rel=0.01)


@pytest.mark.parametrize(
    ("processes", "bytes_"),
    [(1, (16, 16, 16, 16)), (2, (16, 10, 9, 8)), (4, (16, 7, 5.5, 4)), (64, (16, 4.1875, 2.21875, 0.25))],
)
def test_the_formula_is_the_papers(processes: int, bytes_: tuple[float, ...]) -> None:
    assert tuple(formula(6400, processes, stage) / 6400 for stage in range(4)) == bytes_


def test_show_foretells_the_formula() -> None:
    spec = open_spec(ROOT / "specs/recipes/bench_step.partita")
    step, mesh = step_graph(spec, load_recipe(spec, "held_tiny")), Mesh((("data", 4),))
    weights = sum(math.prod(dim.size or 0 for dim in node.outs[0].dims) for node in step.nodes("parameter"))
    for stage in (1, 2, 3):
        found = account(partitioned([step], mesh, Wishes(zero=stage)).graph, mesh)
        total = found.parameter_bytes + found.gradient_bytes + found.state_bytes
        assert total == pytest.approx(formula(weights, 4, stage), rel=0.01), stage


def test_a_line_says_what_is_held_of_each_kind() -> None:
    found = Held(2, 1, 100, Holding(210, 190, 100, 400), formula(100, 2, 1))
    assert held_line(found) == (
        "ZeRO 1 on 2: held / formula 0.900 (900 B / 1000 B), bytes a parameter: parameter 2.10, copy 1.90, "
        "gradient 1.00, state 4.00; its gradients are scattered as they are made"
    )
    (case,) = summary([found])["cases"]  # pyright: ignore[reportGeneralTypeIssues]
    assert case["ratio"] == found.ratio
