"""The build folder: what is in it, how it is replaced, and that code which was changed by hand is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from generators.models import deep_stack
from partita.compiler.lower.build import lower
from partita.runtime.folder import BuildError, load
from partita.runtime.program import Run
from partita.runtime.program_json import from_json


def written(folder: Path, layers: int = 3) -> Path:
    lower({"predict": deep_stack(layers)}, {}, {"parameters": 1.0}, folder, files={"plan.txt": "none\n"})
    return folder


def test_a_folder_holds_the_program_its_modules_and_their_hashes(tmp_path: Path) -> None:
    folder = written(tmp_path / "build")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"program.json", "manifest.json", "plan.txt"} <= names
    build = from_json((folder / "program.json").read_text())
    called = {i.module for i in build.programs["predict"].microbatch if isinstance(i, Run)}
    assert {f"modules/{name}.py" for name in called} <= names


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = written(tmp_path / "build", layers=1)
    (folder / "stray.txt").write_text("left over")
    written(folder, layers=2)
    assert not (folder / "stray.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = [(written(tmp_path / name) / "manifest.json").read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]


def test_a_loaded_folder_runs(tmp_path: Path) -> None:
    runnable = load(written(tmp_path / "build"))
    store = {p.name: torch.randn(p.shape) for p in runnable.build.parameters}
    x = torch.randn(4, 8)
    h = x
    for at in range(3):
        h = h + torch.tanh(h @ store[f"blocks.{at}.w"])
    out = runnable.run("predict", store, [{"x": x}])
    torch.testing.assert_close(out["loss"], h.mean())


@pytest.mark.parametrize("name", ["program.json", "modules"])
def test_what_was_changed_by_hand_is_refused(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "build")
    path = folder / name if name.endswith(".json") else sorted((folder / name).glob("*.py"))[0]
    path.write_text(path.read_text() + "\n")
    with pytest.raises(BuildError, match="compile again"):
        load(folder)


def test_what_is_no_build_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not a build folder"):
        load(tmp_path)
