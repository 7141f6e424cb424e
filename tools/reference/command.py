"""`partita docs`: writes the reference pages as markdown; with `--check` only says which of them are out of date."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..arguments import write_text
from ..fault import CommandFault
from . import errors, records, std

EXAMPLE = "partita docs -o specs/docs"
PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"std.md": std.page, "records.md": records.page, "errors.md": errors.page}
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not as it would be")


def run(options: argparse.Namespace) -> int:
    """Writes every page; 2 if `--check` finds one that differs."""
    stale = [name for name, make in PAGES.items() if not _is(options.out / name, make())]
    if options.check:
        if stale:
            raise CommandFault(f"out of date: {', '.join(stale)}", f"partita docs -o {options.out}")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        write_text(options.out / name, PAGES[name]())
    print(f"{options.out}  {len(PAGES)} pages, {len(stale)} written")
    return 0


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text("utf-8") == text
