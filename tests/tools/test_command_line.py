"""The frame around all commands: help with examples, exit codes, no traceback, nothing heavy loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from partita.compiler.base.diagnostic import Diagnostic, SpecError
from partita.runtime.fault import RuntimeFault
from partita.tools.cli import COMMANDS, dispatch, guarded, main
from partita.tools.fault import CommandFault


def partita(*words: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "partita.tools.cli", *words]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env={**os.environ}
    )


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "hint"), [(["tran"], "`train`"), (["--bogus"], "--help"), (["fmt", "--chek", "x"], "")]
)
def test_a_wrong_command_line_leaves_with_2(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and hint in said and "Traceback" not in said


def test_no_command_leaves_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (SpecError(Diagnostic("E0001", "wrong")), 2),
        (RuntimeFault("E0502", "the data is empty"), 1),
        (CommandFault("no"), 2),
        (CommandFault("no", exit_code=1), 1),
        (KeyboardInterrupt(), 130),
        (AssertionError("we erred"), 1),
    ],
)
def test_faults_become_messages_and_codes(fault: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise fault

    assert guarded(work) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ("internal fault" in said and "--debug" in said) == isinstance(fault, AssertionError)
    assert (said == "") == isinstance(fault, KeyboardInterrupt)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise AssertionError("we erred")

    assert guarded(work, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["--version"]) == 0
    assert capsys.readouterr().out.startswith("partita ")


def test_fmt_rewrites_in_place_and_twice_changes_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "a.partita"
    spec.write_text("fn   double( x )=x+x\n")
    spec.chmod(0o640)
    assert partita("fmt", "--check", str(spec)).returncode == 1
    assert spec.read_text() == "fn   double( x )=x+x\n"
    assert partita("fmt", str(spec)).returncode == 0
    once = spec.read_text()
    assert once != "fn   double( x )=x+x\n"
    assert spec.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["a.partita"]
    assert partita("fmt", "--check", str(spec)).returncode == 0
    assert partita("fmt", "-", stdin="fn   double( x )=x+x\n").stdout == once


def test_fmt_says_what_is_wrong_and_leaves_the_file(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.partita", tmp_path / "good.partita"
    bad.write_text("fn double(x = \n")
    good.write_text("fn   double( x )=x+x\n")
    done = partita("fmt", str(bad), str(good), str(tmp_path / "none.partita"))
    assert done.returncode == 2
    assert "bad.partita:1" in done.stderr and "none.partita" in done.stderr and "Traceback" not in done.stderr
    assert bad.read_text() == "fn double(x = \n"
    assert good.read_text() != "fn   double( x )=x+x\n"


@pytest.mark.parametrize("text", ["\x00\xff", "\u202e", "((((" * 400])
def test_any_text_gives_a_diagnostic(text: str) -> None:
    done = partita("fmt", "-", stdin=text)
    assert done.returncode == 2 and done.stderr.startswith("error[") and "Traceback" not in done.stderr
