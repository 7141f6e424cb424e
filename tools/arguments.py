"""Arguments that several commands share: the spec, its size, model and recipe, `--set`; and reading texts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from ..compiler.base.diagnostic import Diagnostic, SpecError
from ..compiler.base.span import Source
from ..compiler.language.parse import read_source
from .fault import CommandFault

STDIN = "-"


def add_spec(parser: argparse.ArgumentParser, help: str = "a .partita file") -> None:
    """SPEC, --size and --set."""
    parser.add_argument("spec", metavar="SPEC", help=help)
    add_choices(parser)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """--size and --set."""
    parser.add_argument("--size", metavar="NAME", help="a row of the model's `sizes` table")
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="sets",
        help="change one value; may be repeated",
    )


def add_which(parser: argparse.ArgumentParser) -> None:
    """--model and --recipe."""
    parser.add_argument("--model", metavar="NAME", help="which model, where the spec has several")
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")


def add_update(parser: argparse.ArgumentParser) -> None:
    """--update, of what shows a step: it is one of the updates that a recipe may have."""
    parser.add_argument("--update", metavar="NAME", help="which update, where the recipe has several (default: first)")


def add_kernels(parser: argparse.ArgumentParser) -> None:
    """--allow-kernels, of every command that runs a model."""
    parser.add_argument(
        "--allow-kernels", metavar="PACKAGE", action="append", default=[],
        help="let this Python package compute what the spec names of it; may be repeated",
    )  # fmt: skip


def kernels_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The packages that `--allow-kernels` names, one by one or with commas between."""
    return tuple(name.strip() for text in options.allow_kernels for name in text.split(",") if name.strip())


def sets_of(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """The (path, value text) pairs of `--set`, in order."""
    found: list[tuple[str, str]] = []
    for text in options.sets:
        path, equals, value = text.partition("=")
        if not equals or not path.strip() or not value.strip():
            raise CommandFault(f"`--set {text}` is not PATH=VALUE", "for instance --set steps=100")
        found.append((path.strip(), value.strip()))
    return tuple(found)


def read_text(name: str) -> Source:
    """The text of a file, or of standard input for `-`. Raises SpecError where it cannot be read."""
    if name != STDIN:
        return read_source(name)
    data = sys.stdin.buffer.read()
    try:
        return Source("<stdin>", data.decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        raise SpecError(Diagnostic("E0011", f"standard input is not UTF-8 at byte {fault.start}")) from None


def write_text(path: Path, text: str) -> None:
    """Writes beside and renames, so that the file is whole at every moment; keeps its permissions."""
    target = path.resolve()
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as fault:
        raise CommandFault(f"cannot write {path}: {fault.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(beside, target.stat().st_mode & 0o7777 if target.exists() else 0o644)
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
