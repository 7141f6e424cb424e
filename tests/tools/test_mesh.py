"""--mesh: what a device holds and sends, the picture with layouts, the reasons for one, and words that are no mesh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from partita.tools.cli import main
from samples.spec_texts import ROOT

TOUR = str(ROOT / "specs/recipes/tour.partita")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_show_says_what_each_device_holds(capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(said(capsys, "show", TOUR, "--mesh", "data=1", "--json"))["device"]
    for stage, held in enumerate((1.0, 0.5, 0.5, 0.5)):
        found = json.loads(said(capsys, "show", TOUR, "--mesh", "data=2", "--zero", str(stage), "--json"))["device"]
        assert found["state_bytes"] == held * whole["state_bytes"]
        assert found["parameter_bytes"] == (0.5 if stage == 3 else 1) * whole["parameter_bytes"]
        assert found["sent_bytes"]["data"] > 0
        assert found["gap"] < 1e-3
    text = said(capsys, "show", TOUR, "--mesh", "data=3,tensor=2", "--pin", "V=tensor")
    assert "on data 3 × tensor 2, each device" in text
    assert "sends along tensor" in text
    assert "uneven: batch = 4 over 3" in text


def test_show_has_a_row_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("show", TOUR, "--mesh", "data=2,pipe=2", "--microbatches", "2")
    whole = json.loads(said(capsys, *words, "--json"))
    stages = whole["stages"]
    assert sum(stage["parameter_bytes"] for stage in stages) == whole["device"]["parameter_bytes"]
    assert [stage["in_flight"] for stage in stages] == [2, 1]
    assert all(set(stage["sent_bytes"]) == {"data", "pipe"} for stage in stages)
    assert "0: embed" in said(capsys, *words)


def test_render_draws_layouts_and_collectives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "step.dot"
    words = ("--mesh", "data=2,tensor=2", "--pin", "V=tensor", "-o", str(out))
    said(capsys, "render", TOUR, "--stage", "partitioned", *words)
    text = out.read_text()
    assert "all-reduce over tensor" in text
    assert "[batch:data T V:tensor]" in text
    assert "over data" in text and "over tensor" in text  # the legend of colours


def test_explain_gives_alternatives_and_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "explain", TOUR, "head.dot", "--mesh", "data=2,tensor=2")
    assert "head.dot: dot  specs/std/linear.partita:6" in text.replace(str(ROOT) + "/", "")
    assert "[batch:data T V]" in text.splitlines()[1]
    assert "tensor cuts V" in text and " ms " in text


@pytest.mark.parametrize(
    ("mesh", "hint"),
    [
        ("data=8", "batch = 4: an axis of 4 would do"),
        ("data=2,spare=2", "pin one to spare, or leave spare out"),
        ("tensor=512", "V = 256 is the longest"),
    ],
)
def test_an_axis_of_no_use_is_told(mesh: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", TOUR, "--mesh", mesh]) == 0
    words = capsys.readouterr().err
    assert "warning[E0948]" in words and "cuts nothing" in words and hint in words


def test_explain_says_what_decided(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--mesh", "data=2,tensor=2", "--pin", "V=tensor")
    text = said(capsys, "explain", TOUR, "head.w", *words)
    assert "because" in text and "the pin V -> tensor leaves" in text
    assert "  +" in text and "−" not in text, "others take more time, and as much memory: they gather it for the step"
    text = said(capsys, "explain", TOUR, "sgd.m/head.w", *words)
    assert "  +" in text and "−2 KiB" in text, "a state that lies cut takes more time and less memory"
    text = said(capsys, "explain", TOUR, "sgd.m/head.w", "--mesh", "data=2", "--zero", "1")
    assert "ZeRO stage 1 leaves" in text


def test_a_build_explains_itself_as_its_spec_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A build folder keeps the question that its layout answers; the spec is not needed."""
    spec, build = tmp_path / "tour.partita", tmp_path / "build"
    spec.write_text(Path(TOUR).read_text())
    words = ("--mesh", "data=2,tensor=2", "--pin", "V=tensor")
    said(capsys, "compile", str(spec), *words, "-o", str(build))
    wanted = said(capsys, "explain", str(spec), "head.dot", *words)
    spec.unlink()
    assert said(capsys, "explain", str(build), "head.dot") == wanted
    text = said(capsys, "explain", str(build))
    first = text.splitlines()[1]
    assert text.startswith("on data 2 × tensor 2, ")
    assert "all_gather" in text or "all_reduce" in text or "reduce_scatter" in text
    assert "linear.partita:" in first or "tour.partita:" in first
    assert main(["explain", str(build), "head.dott"]) == 2
    assert "did you mean `head.dot`" in capsys.readouterr().err
    (build / "layout/question.json").write_text('{"format": 99}')
    assert main(["explain", str(build), "head.dot"]) == 2
    assert "format 99" in capsys.readouterr().err
    assert main(["explain", str(tmp_path), "head.dot"]) == 2
    assert "has no layout to explain" in capsys.readouterr().err


def test_where_there_are_stages_alone_explain_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "compile", TOUR, "--mesh", "pipe=2", "-o", str(tmp_path / "build"))
    for which, stages in (
        ([str(tmp_path / "build")], "stage 0: embed.table … head.b; stage 1: no parameter"),
        ([TOUR, "--mesh", "pipe=2"], "stage 0: embed … head; stage 1: loss"),
    ):
        assert main(["explain", which[0], "head.dot", *which[1:]]) == 2
        words = capsys.readouterr().err
        assert "on pipe 2 a stage is one device" in words and "nothing is laid out" in words and stages in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh", "data"], "`data` is not AXIS=SIZE"),
        (["--mesh", "data=2,data=2"], "`data=2` stands there twice"),
        (["--mesh", "data=0"], "`data=0` is not AXIS=SIZE"),
        (["--zero", "1"], "need a mesh"),
        (["--schedule", "gpipe"], "a pipeline needs a mesh"),
        (["--mesh", "data=2", "--schedule", "gpipe"], "the mesh has no axis `pipe`"),
        (["--mesh", "pipe=2", "--schedule", "gpip"], "no schedule `gpip`"),
        (["--mesh", "pipe=2", "--balance", "1,1,1"], "3 numbers of blocks for the 2 chunks"),
        (["--mesh", "pipe=2", "--balance", "1,x"], "is not a list of numbers"),
        (["--mesh", "data=2", "--pin", "V"], "`--pin V` is not DIM=AXIS"),
        (["--mesh", "data=2", "--pin", "V=tensor"], "the mesh has no axis tensor"),
        (["--mesh", "tensor=2", "--pin", "batch=tensor", "--pin", "T=tensor"], "has both dims, and an axis cuts one"),
    ],
)
def test_words_that_are_no_mesh(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", TOUR, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--mesh", "data=2"]])
def test_what_is_computed_again_reaches_the_build(tmp_path: Path, where: list[str]) -> None:
    clones: list[int] = []
    spec = str(ROOT / "specs/recipes/bench_step.partita")
    for choice in ("none", "full"):
        words = ["compile", spec, "--recipe", "tiny", "--recompute", choice, *where, "-o", str(tmp_path / choice)]
        assert main(words) == 0
        clones.append(sum(text.read_text().count("again/") for text in (tmp_path / choice / "modules").glob("*.py")))
    assert clones[0] == 0 < clones[1]
