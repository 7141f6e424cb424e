"""`partita calibrate` and what reads its table: written once, found again, passed over where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from oracles.processes import launch_module
from partita.compiler.cost.table import Table, to_json
from partita.compiler.elaborate.load import load
from partita.compiler.ir.layout import Mesh
from partita.compiler.language.parse import read_source
from partita.runtime import calibrate as runtime
from partita.runtime.metrics import Summary
from partita.tools import calibration
from partita.tools.calibration import cached, fits, quick_table, read_table, table_for, write_table
from partita.tools.cli import main
from partita.tools.machines import cluster_from
from partita.tools.progress import comparison
from samples.layered import layered
from samples.spec_texts import ROOT

TOUR = str(ROOT / "specs/recipes/tour.partita")


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and few points with no budget: what is tested is the way, not the figures."""
    monkeypatch.setenv("PARTITA_CACHE", str(tmp_path / "cache"))
    at_once = partial(runtime.calibrate, effort=runtime.Effort(0.0, 1))
    for user in ("calibrate", "calibration"):
        monkeypatch.setattr(f"partita.tools.{user}.calibrate", at_once)
    monkeypatch.setattr(runtime, "SIDES", (16, 64))
    monkeypatch.setattr(runtime, "ELEMENTS", (64, 2048))
    monkeypatch.setattr("partita.runtime.machine.BUDGET_S", 0.0)
    return tmp_path


def test_a_table_is_made_and_found_again(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = quick / "my box.partita"
    assert main(["calibrate", "-o", str(out)]) == 0
    assert "points" in capsys.readouterr().out
    table = read_table(cached("cpu"))
    assert fits(table, "cpu") and table_for("cpu") == table == read_table(out.with_suffix(".json"))
    kernels = {(point.call.kernel, point.call.dtype) for point in table.points}
    assert {("matmul", "f32"), ("matmul", "bf16"), ("matmul.tn", "f32"), ("add_", "f32"), ("view", "")} <= kernels
    assert {("attention_backward.causal", "bf16"), ("native_layer_norm", "f32"), ("_fused_adamw", "f32")} <= kernels
    spec, found = load(read_source(str(out)))
    assert spec is not None and not found
    assert main(["check", str(out)]) == 0


def test_messages_are_timed_and_priced(
    quick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real processes time kernels at once, then messages; the record, the table and `here` say the same."""
    monkeypatch.setattr("partita.tools.calibrate.MOST_BYTES", 1024)
    monkeypatch.setattr("partita.tools.calibrate.EFFORT", runtime.Effort(0.0, 1, 1e6, 1e6, 1 << 10))
    monkeypatch.setattr("partita.tools.calibrate.launch_module", launch_module)
    out = quick / "desk.partita"
    assert main(["calibrate", "--processes", "2", "--dtype", "f32", "-o", str(out)]) == 0
    assert "8 collectives among 2 processes" in capsys.readouterr().out
    table, desk, here = read_table(cached("cpu", processes=2)), cluster_from(str(out)), cluster_from("here:2")
    assert table.points and (table.processes, table.threads) == (2, max(1, table.cores // 2))
    assert fits(table, "cpu", 2) and not fits(table, "cpu")
    assert desk.messages == here.messages == table.cluster().messages
    assert {message.kind for message in here.messages} == {"all_reduce", "all_gather", "reduce_scatter", "all_to_all"}
    assert [level.members for level in desk.levels] == [level.members for level in here.levels] == [2]
    assert desk.levels[0].link.latency_s == pytest.approx(here.levels[0].link.latency_s, rel=1e-3)
    assert desk.memory_bytes == pytest.approx(table.memory_bytes / 2, rel=1e-4)
    mesh, message = Mesh((("data", 2),)), here.messages[0]
    assert desk.collective_s(message.kind, message.bytes_, mesh, "data") == pytest.approx(message.seconds, rel=1e-2)
    assert main(["show", TOUR, "--mesh", "data=2", "--cluster", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["seconds"] > message.seconds


def test_machines_that_are_not_there_say_so(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wanted, said in {
        "here": "calibrate --processes 2",
        "here:4": "calibrate --processes 4",
        "here:x": "from 2 to 64 processes",
        "h101": "did you mean `h100`?",
        str(ROOT / "specs/clusters/h100.partita:h65"): "has no cluster",
    }.items():
        assert main(["show", TOUR, "--mesh", "data=2", "--cluster", wanted]) != 0
        assert said in capsys.readouterr().err
    assert main(["show", TOUR, "--mesh", "data=16", "--cluster", "h100"]) == 2
    assert "the cluster has 8" in capsys.readouterr().err
    assert main(["calibrate", "--processes", "0"]) == 2


def test_layouts_are_priced_on_the_cluster_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Between hosts of 25 Gbit/s a message takes longer than inside of one; the recipe's record says the same."""
    taken: dict[str, float] = {}
    for name in ("h100", "dgx_h100", "p3_16xlarge"):
        assert main(["show", TOUR, "--mesh", "data=8", "--cluster", name, "--json"]) == 0
        taken[name] = json.loads(capsys.readouterr().out)["device"]["seconds"]
    assert taken["h100"] == taken["dgx_h100"] < taken["p3_16xlarge"]
    assert main(["show", TOUR, "--mesh", "data=8", "--set", "cluster=p3_16xlarge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["seconds"] == taken["p3_16xlarge"]


def test_a_long_run_times_kernels_once_and_keeps_them(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "calibrate", lambda *_, effort: runtime.calibrate("cpu", ("f32",), effort=effort))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    found = quick_table("cpu", "f32")
    assert found.points and not table_for("cpu").points, "what is coarse is no table for all"
    monkeypatch.setattr(calibration, "calibrate", None)
    assert quick_table("cpu", "f32") == found
    thorough = replace(found, points=found.points[:5])
    write_table(thorough, cached("cpu"))
    assert quick_table("cpu", "f32") == thorough == table_for("cpu")


@pytest.mark.parametrize("change", [{"device": "cpu: another"}, {"torch": "0.1"}, {"threads": 4096}, {"probes": 1}])
def test_a_table_of_another_machine_is_passed_over(
    quick: Path, change: dict[str, str | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = calibration.bare_table("cpu", [calibration.measure("cpu")])
    stranger: Table = replace(bare, memory_bytes=7, **change)  # pyright: ignore[reportArgumentType]
    path = quick / "other.json"
    path.write_text(to_json(stranger))
    monkeypatch.setattr(calibration, "cached", lambda device: path)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    assert table_for("cpu").memory_bytes != 7


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"format": 1}', b"[" * 5000])
def test_a_spoilt_table_is_passed_over(quick: Path, content: bytes) -> None:
    path = cached("cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert table_for("cpu").torch == torch.__version__


def test_a_bench_without_a_table_says_what_to_do(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "predict"]) == 1
    assert "partita calibrate" in capsys.readouterr().err
    assert main(["calibrate", "-o", str(quick / "a.json")]) == 2


def test_the_end_of_a_run_tells_whose_the_peak_was() -> None:
    foretold = {
        "peak_bytes": 100.0,
        "peak_bytes.activations": 75.0,
        "peak_bytes.parameters": 25.0,
        "peak_bytes.data": 0.0,
    }
    summary = Summary("m", 1, 10, 0.5, 101, 1.0, 1.0, 1.0, None, foretold)
    assert comparison(summary).splitlines()[1] == "whose the peak is: activations 75%, parameters 25%"


@pytest.mark.parametrize(("kernels", "said"), [(0.0, "a bound from below"), (825.0, "by 825 kernels timed on this")])
def test_the_end_of_a_run_tells_what_its_prediction_rests_on(kernels: float, said: str) -> None:
    foretold = {"step_seconds": 1.0, "timed_kernels": kernels}
    assert said in comparison(Summary("m", 1, 10, 0.5, 101, 1.0, 1.0, 1.0, None, foretold)).splitlines()[1]


def test_without_a_gpu_a_build_is_made_for_one_and_nothing_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = tmp_path / "small.partita"
    spec.write_text(layered("steps = 1\n  optimizer = adamw()"), "utf-8")
    assert main(["compile", str(spec), "--device", "cuda", "-o", str(tmp_path / "build")]) == 0
    said = capsys.readouterr().out
    assert "peak memory" in said
    assert " in about" not in said and "no less than" not in said
    timed = ["show", str(spec), "--recipe", "t", "--time"], ["calibrate"], ["train", str(spec)]
    for words in timed:
        assert main([*words, "--device", "cuda"]) == 1
        assert "there is no device `cuda` here" in capsys.readouterr().err
    assert main(["compile", str(spec), "--device", "tpu"]) == 2
