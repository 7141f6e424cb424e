"""The documentation is true: console blocks print what they say, specs are well-formed, the reference is up to date.

A block that begins with `$ ` is run from the repository's root; `…` as a line stands for any lines, within a line for
any text. `PARTITA_ACCEPT=1` writes what was printed back where no `…` stands.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from partita.compiler.base.catalogue import catalogue
from partita.compiler.base.diagnostic import render_all
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.load import std_parsed
from partita.compiler.elaborate.schema import SCHEMAS
from partita.compiler.language import syntax as s
from partita.tools.reference.command import PAGES as REFERENCE_PAGES

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
PAGES = ("README.md", "ARCHITECTURE.md", "specs/docs/tour.md", "tools/editor/README.md")
REFERENCE = ROOT / "specs/docs"
SCRATCH = "/tmp/tour"  # what the pages write into stands for a folder of the test's own
PROGRAMS = {"partita": [sys.executable, "-m", "partita.tools.cli"], "cat": ["cat"], "sed": ["sed"], "head": ["head"]}
SLOW = ("make ", "partita train", "partita bench", "torchrun")


def commands(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of each `$ ` line."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def blocks(page: str) -> list[tuple[str, str]]:
    found = [pair for block in BLOCK.findall((ROOT / page).read_text()) for pair in commands(block)]
    return [pair for pair in found if not pair[0].startswith(SLOW)]


def printed(command: str, scratch: Path) -> str:
    """Standard output and errors of a command line; `|` joins programs, no shell is started."""
    text = ""
    for stage in command.split(" | "):
        program, *arguments = shlex.split(stage)
        line = [*PROGRAMS[program], *[a.replace(SCRATCH, f"{scratch}/tour") for a in arguments]]
        env = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
        done = subprocess.run(line, input=text, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
        text = done.stdout + done.stderr
    return text.replace(f"{scratch}/tour", SCRATCH)


def agrees(expected: str, found: str) -> bool:
    whole_lines = re.sub(r"^…\\\n", r"(?:.*\n)*?", re.escape(expected), flags=re.MULTILINE)
    pattern = whole_lines.replace("…", ".*")
    return re.fullmatch(pattern, found) is not None


@pytest.mark.parametrize("page", PAGES)
def test_console_blocks_print_what_they_say(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    wrong: list[str] = []
    for command, expected in blocks(page):
        found = printed(command, tmp_path)
        if not agrees(expected.rstrip("\n") + "\n", found.rstrip("\n") + "\n"):
            wrong.append(f"$ {command}\n{found}")
            if "…" not in expected:
                text = text.replace(f"$ {command}\n{expected}", f"$ {command}\n{found.rstrip()}\n")
    if wrong and os.environ.get("PARTITA_ACCEPT"):
        (ROOT / page).write_text(text)
    assert not wrong, "printed otherwise:\n" + "\n".join(wrong)


@pytest.mark.parametrize("page", [*PAGES, *(f"specs/docs/{name}" for name in REFERENCE_PAGES)])
def test_links_lead_somewhere(page: str) -> None:
    text = CODE.sub("", (ROOT / page).read_text())
    for target in LINK.findall(text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}, which is not here"


@pytest.mark.parametrize("page", ["README.md", "specs/docs/tour.md"])
def test_specs_shown_are_well_formed(page: str) -> None:
    specs = re.findall(r"```partita\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert specs, "the page shows a spec"
    for text in specs:
        found = check_text(text, "shown.partita")
        assert not found, f"{text}\n{render_all(found)}"


@pytest.mark.parametrize("name", REFERENCE_PAGES)
def test_the_reference_is_up_to_date(name: str) -> None:
    path, text = REFERENCE / name, REFERENCE_PAGES[name]()
    if os.environ.get("PARTITA_ACCEPT"):
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, "its source has changed: `partita docs -o specs/docs` writes it anew"


def test_the_reference_holds_everything() -> None:
    errors, records, std = ((REFERENCE / name).read_text("utf-8") for name in ("errors.md", "records.md", "std.md"))
    assert all(f"### {code}: " in errors for code in catalogue())
    assert all(f"| `{key.name}`" in records for schema in SCHEMAS.values() for key in schema.keys)
    declared = [d for p in std_parsed() for d in p.file.declarations if isinstance(d, s.Fn | s.Block)]
    assert all(f"### {decl.name}\n" in std for decl in declared)
    assert len(declared) > 50
