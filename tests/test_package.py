"""What is installed is what lies here: the listed packages are the folders, and the wheel holds every file of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("compiler", "runtime", "tools")


def source_files() -> set[str]:
    """Every file that an installed package must hold, relative to the package."""
    found = {"__init__.py", "compiler/language/grammar.lark"}
    for folder in FOLDERS:
        found |= {str(f.relative_to(ROOT)) for f in (ROOT / folder).rglob("*.py")}
    return found | {str(f.relative_to(ROOT)) for f in (ROOT / "specs").rglob("*.partita")}


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {f.parent.relative_to(ROOT) for folder in FOLDERS for f in (ROOT / folder).rglob("*.py")}
    expected = {"partita", "partita.specs"} | {"partita." + ".".join(f.parts) for f in folders}
    assert listed == expected


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "__init__.py"):
        shutil.copy(ROOT / name, copy / name)
    for folder in (*FOLDERS, "specs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("partita-*.whl")
    packed = {n.removeprefix("partita/") for n in zipfile.ZipFile(wheel).namelist() if n.startswith("partita/")}
    assert packed == source_files()
