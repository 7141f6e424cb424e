"""`partita show --memory`: the rows add up to the peak, names find their layers, and the picture is well formed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from partita.compiler.cost.memory import Memory, Owner, Share
from partita.compiler.lower.footprint import Footprint, Level
from partita.tools.cli import main
from partita.tools.occupied import layer_of, rows_of, who_owns
from partita.tools.timeline import COLUMNS, timeline

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("linear.partita:6 blocks.0.mlp.up.add", "blocks.0"),
        ("gpt.partita:12 grad/blocks.11.attn", "blocks.11"),
        ("adamw.m/decoder.layers.3.ln.gain", "decoder.layers.3"),
        ("wte.table", "wte"),
        ("loss.cross_entropy", "loss"),
        ("", ""),
    ],
)
def test_a_value_has_a_layer(path: str, layer: str) -> None:
    assert layer_of(path) == layer


def memory_of(*shares: Share) -> Memory:
    return Memory(sum(share.bytes for share in shares), "x.partita:3 blocks.0.h", shares)


def test_rows_are_the_shares_of_a_layer_the_largest_first() -> None:
    memory = memory_of(
        Share(Owner.ACTIVATION, "x.partita:3 blocks.0.h", 60),
        Share(Owner.PARAMETER, "wte.table", 30),
        Share(Owner.STATE, "adamw.m/blocks.0.w", 10),
    )
    assert [(row.name, row.bytes) for row in rows_of(memory)] == [("blocks.0", 70), ("wte", 30)]
    assert who_owns(memory) == "activations 60%, parameters 30%, optimizer state 10%"


def test_the_command_tells_the_peak_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show", str(ROOT / "specs/recipes/tour.partita"), "--memory"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["owners"].values()) == found["peak_bytes"] == max(one["peak_bytes"] for one in found["course"])
    sums = [sum(size for key, size in row.items() if key != "layer") for row in found["layers"]]
    assert sum(sums) == found["peak_bytes"] and sums == sorted(sums, reverse=True)
    picture = tmp_path / "memory.svg"
    assert main([*words, "-o", str(picture)]) == 0
    assert "at the peak of a step" in capsys.readouterr().out
    assert len(ET.fromstring(picture.read_text()).findall(f"{SVG}polygon")) >= 4


def test_what_lies_on_the_host_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(ROOT / "specs/recipes/tour.partita"), "--memory", "--set", "plan.offload=optimizer"]
    assert main(["show", *words]) == 0
    assert "on the host: " in capsys.readouterr().out
    assert main(["show", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host_bytes"] > 2 * 4 * 4352


def test_a_model_without_a_recipe_has_gradients_too(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"--set=dims.{name}" for name in ("L=2", "D=32", "H=2", "F=64", "V=100", "T=8")]
    assert main(["show", str(ROOT / "specs/models/gpt2.partita"), "--size=small", "--memory", "--json", *sizes]) == 0
    owners = json.loads(capsys.readouterr().out)["owners"]
    assert owners["gradients"] > 0 and owners["optimizer state"] == 2 * owners["parameters"]


@pytest.mark.parametrize("words", [["-o", "a.svg"], ["--memory", "-o", "a.txt"], ["--memory", "--device", "abacus"]])
def test_what_cannot_be_shown_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(ROOT / "specs/recipes/tour.partita"), *words]) == 2
    assert "--memory" in capsys.readouterr().err or "--device" in words


def test_a_long_course_is_thinned_and_keeps_its_peak() -> None:
    def level(size: int) -> Level:
        return Level("microbatch", "f", size, 0, {Owner.ACTIVATION: size})

    sizes = [1000 + (7 * i) % 13 for i in range(3 * COLUMNS)]
    sizes[1234] = 5000
    memory = Memory(5000, "<a> & b", (Share(Owner.ACTIVATION, "x", 5000),))
    root = ET.fromstring(timeline("<model>", Footprint(memory, tuple(level(size) for size in sizes))))
    (band,) = root.findall(f"{SVG}polygon")
    assert len(band.attrib["points"].split()) <= 4 * COLUMNS
    assert any("4.88 KiB at <a> & b" in (text.text or "") for text in root.findall(f"{SVG}text"))
