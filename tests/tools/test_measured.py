"""A step's parts as they ran beside what was foretold: read off the program, written by rank, drawn together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from oracles.pipelines import PipedMLP, rows
from partita.compiler.pipeline import compile_recipe
from partita.compiler.schedule.actions import COMPUTE, Kind
from partita.compiler.schedule.forms import build as form_schedule
from partita.compiler.schedule.forms import parse_form
from partita.runtime.folder import load
from partita.runtime.layout import Mesh
from partita.runtime.program import Build, Run
from partita.runtime.state import initial_store
from partita.runtime.stopwatch import Stretch, read, stretches, timed, write
from partita.tools.cli import main
from partita.tools.measured import MEASURED, PREDICTED, said, schedule_of, timelines
from partita.tools.measured import write as draw
from samples.recipes import recipe_over
from samples.spread_mlp import SpreadMLP

NO_MESH = Mesh(())


def calls(build: Build, rank: int) -> Iterator[tuple[float, float]]:
    """One a second, for half a second."""
    program = build.programs_of(rank)["step"]
    everything = [program.prepare, *(part for _, _, part in program.turns()), program.update]
    count = sum(isinstance(i, Run) for part in everything for i in part)
    return ((at, at + 0.5) for at in range(count))


@pytest.mark.parametrize("form", ["gpipe", "interleaved(2)", "zero_bubble", "zero_bubble_v"])
def test_the_schedule_is_read_off_the_programs(form: str) -> None:
    build = PipedMLP(SpreadMLP(NO_MESH, layers=4, microbatches=4, batch=8), 2, form).built().build
    found = schedule_of([build.programs_of(rank)["step"] for rank in range(2)])
    wanted = form_schedule(parse_form(form), 2, 4)
    assert found.shape == wanted.shape
    if form != "zero_bubble_v":  # its order follows from prices
        assert found.actions == wanted.actions


def test_measured_stands_above_foretold(tmp_path: Path) -> None:
    build = PipedMLP(SpreadMLP(NO_MESH, layers=4, microbatches=3), 2, "zero_bubble").built().build
    seconds = {"prepare": 1.0, "update": 2.0}
    seconds |= {f"{kind.value} {chunk}": 1.0 for kind in (Kind.FORWARD, Kind.INPUT, Kind.WEIGHT) for chunk in (0, 1)}
    build = replace(build, predictions={f"part_seconds.{name}": n for name, n in seconds.items()})
    for rank in range(2):
        write(tmp_path, rank, tuple(stretches(build.programs_of(rank)["step"], list(calls(build, rank)))))
        assert read(tmp_path, rank)
    found = timelines(build, tmp_path)
    assert list(found) == [MEASURED, PREDICTED]
    for timeline in found.values():
        for device, spans in enumerate(timeline.spans):
            ran = list(dict.fromkeys(span.action for span in spans if span.action.kind in COMPUTE))
            assert ran == [action for action in timeline.schedule.actions[device] if action.kind in COMPUTE]
            assert all(one.end <= other.begin for one, other in pairwise(spans))
    foretold = found[PREDICTED]
    assert foretold.makespan == 1 + (3 * 3 + 1) + 2, "ZB-H1: (p - 1)(F + B - W) beyond the work"
    assert said(found).startswith("measured: step ")
    draw(tmp_path / "a.html", found, "tiny")
    page = (tmp_path / "a.html").read_text().removeprefix("<!doctype html>\n")
    told = "".join(ElementTree.fromstring(page).itertext())
    assert "tiny, measured" in told and "tiny, predicted" in told
    draw(tmp_path / "a.svg", found, "tiny")
    ElementTree.parse(tmp_path / "a.svg")
    draw(tmp_path / "a.json", found, "tiny")
    events = json.loads((tmp_path / "a.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {
        "tiny, measured",
        "tiny, predicted",
    }


def test_a_timed_run_gives_what_any_run_gives(tmp_path: Path) -> None:
    spec, recipe = recipe_over("gpt2", "GPT2", batch=4, microbatches=2)
    compile_recipe(spec, recipe, tmp_path / "one")
    one = load(tmp_path / "one")
    stores = [initial_store(one.build, 0) for _ in range(2)]
    data = rows(one, "step", 0)
    plain = one.run("step", stores[0], data)
    again, found = timed(one, "step", lambda it: it.run("step", stores[1], data))
    assert plain["loss"].equal(again["loss"])
    assert {(one.part, one.microbatch) for one in found} >= {("microbatch", 0), ("microbatch", 1), ("update", -1)}
    assert all(isinstance(one, Stretch) and 0 <= one.begin <= one.end for one in found)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--timeline", "a.png", "--mesh", "pipe=2"], "cannot draw"), (["--timeline", "a.svg"], "is of a pipeline")],
)
def test_what_cannot_be_drawn_is_refused(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tour = str(Path(__file__).resolve().parents[2] / "specs/recipes/tour.partita")
    assert main(["train", tour, "--out", str(tmp_path / "run"), *words]) == 2
    assert told in capsys.readouterr().err
