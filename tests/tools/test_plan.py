"""`partita plan`: what it prints, that its record is a plan for `train`, what it refuses; that it loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from partita.compiler.language.format import format
from partita.compiler.plan.plan import Planner
from partita.compiler.plan.search import Progress
from partita.tools.cli import main

RECIPES = Path(__file__).resolve().parents[2] / "specs/recipes"
TOUR = str(RECIPES / "tour.partita")
CLUSTER = """cluster small {
  device Chip {
    memory    = 1 GiB
    bandwidth = 1 TB/s
    f32       = 10 TFLOP/s
    launch    = 1 us
  }
  level node { of = 4 * Chip, link = 100 GB/s, latency = 1 us }
}
"""

NUMBERS = [("tensor", "x"), ("data", "0"), ("zero", "4"), ("pipe", "9" * 5000)]


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    file = tmp_path / "small.partita"
    file.write_text(CLUSTER)
    return str(file)


def test_the_record_is_a_plan_for_other_commands(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.partita"
    words = [TOUR, "--cluster", cluster, "--set", "data=2", "--set", "batch=8"]
    assert main(["plan", *words, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "plan tour {" in said
    assert "with data = 2: " in said
    assert format(out.read_text()) == out.read_text()
    assert main(["schedule", TOUR, "--plan", str(out)]) == 2  # of commands that lay a step on a mesh alone
    assert main(["show", TOUR, "--plan", str(out), "--set", "batch=8"]) == 0


def test_every_value_of_a_choice_has_its_cost(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TOUR, "--cluster", cluster, "--why", "tensor"]) == 0
    said = capsys.readouterr().out
    rows = said[said.index("\ntensor:") :].splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["1", "2", "4"]
    assert any("as fast" in row for row in rows)


def test_ctrl_c_takes_the_best_so_far(
    cluster: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Planner.search

    def stopped(self: Planner, pins: Mapping[str, int | str] | None = None) -> Iterator[Progress]:
        for found in whole(self, pins):
            yield found
            if found.best:
                raise KeyboardInterrupt

    monkeypatch.setattr(Planner, "search", stopped)
    assert main(["plan", TOUR, "--cluster", cluster]) == 0
    said = capsys.readouterr()
    assert said.err == "interrupted: the best so far\n"
    assert "plan tour {" in said.out
    assert "no plan takes less than" in said.out


def test_figures_as_json(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TOUR, "--cluster", cluster, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert 1 <= len(plans) <= 10
    assert plans[0]["seconds"] == min(plan["seconds"] for plan in plans)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "plan.budget=0.001 MiB"], "no plan fits: a device holds"),
        (["--set", "plan.mesh=[data = 3]"], "cannot be cut so"),
        *((["--set", f"{key}={value}"], "a whole number from") for key, value in NUMBERS),
        (["--set", "rows=3"], "rows = 3: a batch of"),
        (["--set", "plan.balance=[1, 1]"], "balance = [1, 1] makes 2 blocks, the model has"),
        (["--set", "pipe=2", "--set", "schedule=interleaved(3)"], "no such schedule"),
        (["-o", "nowhere/plan.partita"], "cannot write nowhere/plan.partita: No such file"),
        (["--set", "recompute=some"], "no such choice"),
        (["--set", "offload=all"], "no such choice"),
        (["--set", "schedule=never"], "no schedule `never`"),
        (["--set", 'plan.recompute=["*"]'], "are not priced yet"),
        (["--set", "offload=activations", "--set", "pipe=2"], "are not priced yet in a pipeline"),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], said: str, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", TOUR, "--cluster", cluster, *words]) != 0
    assert said in capsys.readouterr().err


def test_planning_loads_no_torch(cluster: str) -> None:
    code = (
        "import sys; from partita.tools.cli import main\n"
        f"assert main(['plan', {TOUR!r}, '--cluster', {cluster!r}]) == 0 and 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
