"""`partita schedule`: what it prints and writes, what it refuses, and how fast it answers for a large model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from partita.compiler.schedule.actions import COMPUTE
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.simulate import Price, by_chunk, simulate
from partita.compiler.schedule.verify import verify
from partita.tools.cli import main
from partita.tools.gantt import chrome_trace, svg, text

MODELS = Path(__file__).resolve().parents[2] / "specs/models"
TOUR = MODELS.parent / "recipes/tour.partita"
GPT2 = [str(MODELS / "gpt2.partita"), "--size", "small"]
FORMS = ["gpipe", "1f1b", "interleaved(2)", "zero_bubble", "zero_bubble_v", "list(2)", "token_slices(4)"]


@pytest.mark.parametrize("form", FORMS)
def test_every_schedule_is_shown_and_written(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, trace = tmp_path / "a.svg", tmp_path / "a.json"
    words = ["--stages", "3", "--microbatches", "4", "--schedule", form, "-o", str(out), "--trace", str(trace)]
    assert main(["schedule", *GPT2, *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{form}: 3 devices, 4 microbatches")
    assert all(f"device {d}: " in said for d in range(3))
    assert "ln_f" in said
    ElementTree.parse(out)
    assert {e["ph"] for e in json.loads(trace.read_text())["traceEvents"]} == {"M", "X"}


def test_the_terminal_shows_a_row_a_device() -> None:
    timeline = simulate(build(parse_form("1f1b"), 2, 2), by_chunk([Price(1, 1, 1)] * 2))
    assert timeline.makespan == 9
    assert text(timeline, 9).splitlines() == ["0 FF..Bb.Bb", "1 .FBbFBb.."]


def test_pictures_hold_every_action() -> None:
    schedule = build(parse_form("zero_bubble"), 3, 4)
    timeline = simulate(schedule, by_chunk([Price(1, 1, 1, transfer=0.25)] * 3))
    actions = [a for actions in schedule.actions for a in actions if a.kind in COMPUTE]
    events = [e for e in json.loads(chrome_trace({"one": timeline}))["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(actions) + len(timeline.messages)
    assert all(e["dur"] > 0 and e["ts"] >= 0 for e in events)
    drawn = svg({"a < b": timeline})
    assert all(f"<title>{action}:" in drawn for action in actions)
    assert "a &lt; b" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--schedule", "2f2b"], "no schedule `2f2b`"),
        (["--stages", "16"], "15 blocks cannot be 16 chunks"),
        (["--stages", "0"], "a pipeline has"),
        (["--microbatches", "0"], "at least one"),
        (["--stages", "2", "--memory", "0.5"], "no way to cut"),
        (["--stages", "2", "--balance", "3,4"], "does not cut"),
        (["--stages", "2", "--balance", "3;4"], "not a list of numbers"),
        (["--schedule", "token_slices(512, 511)"], "do not make up T = 1024"),
        (["-o", "a.png"], "cannot draw"),
    ],
)
def test_what_cannot_be_says_why(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *GPT2, *words]) == 2
    assert said in capsys.readouterr().err


def test_the_recipes_plan_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["plan.mesh=[pipe = 3]", "plan.schedule=gpipe", "plan.microbatches=2", "plan.balance=[1, 1, 1]"]
    words = ["schedule", str(TOUR), *(word for pair in sets for word in ("--set", pair))]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("gpipe: 3 devices, 2 microbatches")
    other = ["--stages", "2", "--microbatches", "4", "--schedule", "1f1b", "--balance", "2,1"]
    assert main([*words, *other]) == 0
    assert capsys.readouterr().out.startswith("1f1b: 2 devices, 4 microbatches")


def test_a_page_holds_the_picture_and_what_each_device_does(tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    assert main(["schedule", *GPT2, "--stages", "2", "--microbatches", "3", "-o", str(out)]) == 0
    page = ElementTree.fromstring(out.read_text().removeprefix("<!doctype html>\n"))
    titles = [element.text or "" for element in page.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("forward of microbatch" in title for title in titles) == 6
    text = "".join(page.itertext())
    assert "device 1: " in text and "bubble" in text
    assert not [e for e in page.iter() if {"src", "href"} & set(e.attrib)], "nothing is read from elsewhere"


def test_token_slices_need_a_causal_model(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["schedule", str(MODELS / "bert.partita"), "--model", "BERTEncoder", "--size", "base"]
    assert main([*words, "--schedule", "token_slices(2)"]) == 2
    said = capsys.readouterr().err
    assert "E0917" in said
    assert "every token sees all of S" in said


def test_slices_are_priced_by_what_they_attend_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Few large slices where launches count; the later they come, the shorter the best ones are."""
    words = ["schedule", *GPT2, "--stages", "3", "--microbatches", "1", "--cluster", "v100"]
    steps: dict[str, float] = {}
    for form in ("token_slices(1)", "token_slices(4)", "token_slices(64)"):
        assert main([*words, "--schedule", form]) == 0
        said = capsys.readouterr().out
        steps[form] = float(said.partition("step ")[2].partition(" ms")[0])
        best = said.partition("the best slices: ")[2].strip()
    assert steps["token_slices(4)"] < min(steps["token_slices(1)"], steps["token_slices(64)"])
    lengths = [int(part) for part in best[len("token_slices(") : -1].split(",")]
    assert sum(lengths) == 1024
    assert lengths == sorted(lengths, reverse=True)
    assert main([*words, "--schedule", best]) == 0
    found = float(capsys.readouterr().out.partition("step ")[2].partition(" ms")[0])
    assert found <= 1.02 * steps["token_slices(4)"]  # the program takes every stage for the slowest


def test_a_cluster_is_what_it_is_priced_on(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    for name in ("h100", "v100"):
        assert main(["schedule", *GPT2, "--stages", "2", "--cluster", name]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]
    assert main(["schedule", *GPT2, "--cluster", "v1000"]) == 2


def test_it_never_loads_torch() -> None:
    words = ["schedule", *GPT2, "--schedule", "interleaved(2)"]
    code = f"import sys; from partita.tools.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).returncode == 0


def test_64_stages_and_512_microbatches_are_proven_quickly() -> None:
    """Processor seconds, which other processes do not add to; bounds with room for a slow machine."""
    begin = time.process_time()
    schedule = build(parse_form("1f1b"), 64, 512)
    built = time.process_time()
    assert verify(schedule) == []
    assert built - begin < 4
    assert time.process_time() - built < 6
