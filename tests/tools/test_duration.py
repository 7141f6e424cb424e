"""`partita show --time` and the catalogue of devices: figures as published, sums that add up, faults that say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from partita.compiler.clusters import catalogue, cluster_named, section_of
from partita.compiler.ir.types import DType
from partita.tools.cli import main
from partita.tools.duration import Duration, Piece, to_json

ROOT = Path(__file__).resolve().parents[2]
TOUR = str(ROOT / "specs/recipes/tour.partita")

# Published figures: memory (GiB as makers count), bandwidth (GB/s), dense bfloat16 or float16 and float32 peaks
# (TFLOP/s), and the link to neighbours, one way (GB/s). Of `laptop2` as they were timed.
PUBLISHED = """
v100         16   900    125    15.7   150
v100_32      32   900    125    15.7   150
p3_16xlarge  16   900    125    15.7   150
a100         40   1555   312    19.5   300
a100_80      80   2039   312    19.5   300
dgx_a100     80   2039   312    19.5   300
h100         80   3350   989    67     450
h100_64      80   3350   989    67     450
dgx_h100     80   3350   989    67     450
h200         141  4800   989    67     450
b200         180  8000   2250   80     900
mi300x       192  5300   1300   163.4  448
rtx3090      24   936.2  71     35.58  56.25
rtx4090      24   1008   165.2  82.58  31
rtx_a6000    48   768    154.8  38.71  56.25
tpu_v2       16   700    46     46     -
tpu_v3       32   900    123    123    -
tpu_v4       32   1200   275    275    -
laptop2      12   51     0.42   0.18   1.67
"""
ROWS = [line.split() for line in PUBLISHED.split("\n") if line]


def test_the_catalogue_is_what_is_listed_here() -> None:
    assert {name for name, _ in catalogue()} == {row[0] for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_figures_are_those_that_are_published(row: list[str]) -> None:
    name, memory, bandwidth, low, single, link = row
    section = section_of(dict(catalogue())[name], name)
    (device,) = section.sections["device"]
    assert device.values["memory"] == int(memory) << 30
    machine = cluster_named(name).machine
    assert machine.bandwidth_bytes_per_s == pytest.approx(float(bandwidth) * 1e9)
    assert machine.flops_per_s.get(DType.BF16, machine.flops_per_s.get(DType.F16)) == pytest.approx(float(low) * 1e12)
    assert machine.flops_per_s[DType.F32] == pytest.approx(float(single) * 1e12)
    if link != "-":
        assert float(str(section.sections["level"][0].values["link"])) == pytest.approx(float(link) * 1e9)


def test_sums_by_operator_and_by_layer_are_the_whole() -> None:
    pieces = (
        Piece("dot", "a", 2, 3.0, "arithmetic"),
        Piece("add", "a", 1, 1.0, "launch"),
        Piece("dot", "b", 1, 4.0, "bandwidth"),
    )
    found = Duration("m", pieces, 100, 16, 50.0)
    assert (found.seconds, found.mfu) == (8.0, 0.25)
    data = to_json(found)
    assert [(row["name"], row["seconds"], row["calls"]) for row in data["operators"]] == [
        ("dot", 7.0, 3),
        ("add", 1.0, 1),
    ]
    assert sum(row["seconds"] for row in data["layers"]) == sum(data["bounds"].values()) == 8.0


def test_a_step_on_a_device_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    seconds: dict[str, float] = {}
    for name in ("v100", "h100", f"{ROOT / 'specs/clusters/h100.partita'}:h100"):
        assert main(["show", TOUR, "--time", "--cluster", name, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        seconds[name] = found["seconds"]
        assert 0 < found["mfu"] < 1
    slow, fast, same = seconds.values()
    assert slow > fast == same


def test_a_step_on_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARTITA_CACHE", str(tmp_path))
    monkeypatch.setattr("partita.runtime.machine.BUDGET_S", 0.0)
    assert main(["show", TOUR, "--time"]) == 0
    said = capsys.readouterr().out
    assert "`partita calibrate` times kernels" in said and "matmul" in said and "MFU" in said


def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", TOUR, "--time", "--cluster", "h10"]) == 2
    assert "did you mean `h100`?" in capsys.readouterr().err
    assert main(["show", TOUR, "--time", "--cluster", f"{TOUR}:x"]) == 2
