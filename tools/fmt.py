"""`partita fmt`: rewrites specs in their one canonical form; with `--check` only says which are not in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..compiler.base.diagnostic import SpecError
from ..compiler.language.format import format as formatted
from .arguments import STDIN, read_text, write_text
from .fault import CommandFault

EXAMPLE = "partita fmt specs/models/gpt2.partita"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", help="files to rewrite; `-` writes standard input's form")
    parser.add_argument("--check", action="store_true", help="write nothing; leave with 1 where a file would change")


def run(options: argparse.Namespace) -> int:
    """Formats every file; one that cannot be read does not keep the others from it."""
    changed, faults = 0, list[SpecError]()
    for name in options.specs:
        try:
            changed += one(name, options.check)
        except SpecError as fault:
            faults.append(fault)
    if faults:
        raise SpecError(d for fault in faults for d in fault.diagnostics)
    return 1 if options.check and changed else 0


def one(name: str, check: bool) -> bool:
    """Formats one file; gives whether its text changes."""
    source = read_text(name)
    text = formatted(source.text, source.path)
    differs = text != source.text
    if check:
        if differs:
            print(f"would rewrite {source.path}", file=sys.stderr)
    elif name == STDIN:
        sys.stdout.write(text)
    elif differs:
        try:
            write_text(Path(name), text)
        except OSError as fault:
            raise CommandFault(f"cannot write {name}: {fault.strerror}", exit_code=1) from fault
        print(f"rewrote {name}", file=sys.stderr)
    return differs
