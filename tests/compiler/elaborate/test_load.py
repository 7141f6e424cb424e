"""Loading: files beside the spec and in folders below, never outside; cycles, clashes, the standard library."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.base.span import Source
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.load import Spec, load
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.language.parse import read_source
from samples.spec_texts import ROOT

WIDE = "use std\nblock Wide[D] : x[D] -> [D] {\n  f : Linear[D, D]\n  return f(x)\n}\n"
USES = "use parts.wide\nmodel M : x[D] -> [D] {\n  w : Wide[D]\n  return w(x)\n}\n"


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".partita")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder / "main.partita"


def codes(path: Path) -> list[str]:
    spec, found = load(read_source(path))
    assert (spec is None) == bool(found)
    return [item.code for item in found]


def loaded(path: Path) -> Spec:
    spec, found = load(read_source(path))
    assert spec is not None, found
    return spec


def test_a_file_in_a_folder_below(tmp_path: Path):
    spec = loaded(write(tmp_path, main=USES, parts__wide=WIDE))
    assert elaborate_model(spec, dims={"D": 3})[1].parameters == 12
    assert [module.name for module in spec.modules] == ["main", "wide", "std"]


def test_a_file_that_is_not_there(tmp_path: Path):
    assert codes(write(tmp_path, main=USES)) == ["E0103"]


def test_nothing_outside_of_the_folder(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    write(tmp_path, secret=WIDE)
    (tmp_path / "inner" / "secret.partita").symlink_to(tmp_path / "secret.partita")
    assert codes(write(tmp_path / "inner", main="use secret\n")) == ["E0103"]


def test_a_circle(tmp_path: Path):
    assert codes(write(tmp_path, main="use a\n", a="use b\n", b="use a\n")) == ["E0104"]


def test_a_folder_is_no_file(tmp_path: Path):
    (tmp_path / "a.partita").mkdir()
    assert codes(write(tmp_path, main="use a\n")) == ["E0103"]


def test_faults_of_a_used_file_are_reported_there(tmp_path: Path):
    _, found = load(read_source(write(tmp_path, main="use a\n", a="block 3\n")))
    assert found[0].span is not None
    assert found[0].span.source.path.endswith("a.partita")


def test_own_names_first_and_clashes_are_qualified(tmp_path: Path):
    model = "model M : x[D] -> [D] {{\n  w : {name}[D]\n  return w(x)\n}}\n"
    own = WIDE.removeprefix("use std\n").replace("Wide", "Linear").replace("Linear[D, D]", "std.Linear[D, D]")
    path = write(tmp_path, main="use std\n" + own + model.format(name="Linear"))
    assert elaborate_model(loaded(path), dims={"D": 3})[1].parameters == 12
    clash = write(tmp_path, main="use a\nuse b\n" + model.format(name="Wide"), a=WIDE, b=WIDE)
    text = clash.read_text("utf-8")
    assert [item.code for item in check_text(text, str(clash))] == ["E0106"]
    qualified = check_text(text.replace("w : Wide", "w : b.Wide"), str(clash))
    assert "E0106" not in {item.code for item in qualified}


def test_records_of_used_files_are_seen(tmp_path: Path):
    train = "train a {\n  steps = 3\n}\n"
    spec = loaded(write(tmp_path, main="use other\n", other=train))
    assert ("train", "a") in spec.records


@pytest.mark.parametrize("text", ["use std\nuse std\n", "use std\n"])
def test_std_is_found_without_a_file(text: str):
    spec, found = load(Source("nowhere/at/all.partita", text))
    assert spec is not None
    assert found == []
    assert {"Linear", "attention", "adamw"} <= spec.main.visible()


LLAMA = "use models.llama3\n"


def test_a_model_that_comes_with_partita(tmp_path: Path):
    spec = loaded(write(tmp_path, main=LLAMA))
    assert "Llama3" in spec.models
    assert spec.modules[1].source.path == "specs/models/llama3.partita"


def test_a_file_beside_comes_before_it(tmp_path: Path):
    spec = loaded(write(tmp_path, main=LLAMA, models__llama3=WIDE))
    assert "Wide" in spec.main.visible()
    assert not spec.models


def test_what_it_uses_comes_with_partita_too(tmp_path: Path):
    spec = loaded(write(tmp_path, main="use models.lora\n", llama3=WIDE))
    assert {"Llama3", "LlamaLoRA"} <= spec.models.keys()
    assert "Wide" not in spec.main.visible()


def test_it_is_read_once(tmp_path: Path):
    spec = loaded(write(tmp_path, main="use models.lora\nuse models.llama3\n"))
    assert [module.name for module in spec.modules] == ["main", "lora", "llama3", "llama", "std"]


@pytest.mark.parametrize("name", ["models.nothing", "models", "models.a.b", "llama3"])
def test_no_such_model(tmp_path: Path, name: str):
    _, found = load(read_source(write(tmp_path, main=f"use {name}\n")))
    assert [item.code for item in found] == ["E0103"]
    assert name != "llama3" or "use models.llama3" in str(found[0].hint)


@pytest.mark.parametrize("path", sorted((ROOT / "specs/recipes").glob("*.partita")), ids=lambda path: path.stem)
def test_recipes_that_come_with_partita(path: Path):
    assert check_text(path.read_text("utf-8"), str(path)) == ()
