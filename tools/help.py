"""`partita help`: explains an error code at length, or lists the codes."""

from __future__ import annotations

import argparse

from ..compiler.base.catalogue import CATALOGUE, entry_text
from ..compiler.base.diagnostic import did_you_mean
from .fault import CommandFault

EXAMPLE = "partita help E0001"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("code", metavar="CODE", nargs="?", help="an error's code; without one, all are listed")


def run(options: argparse.Namespace) -> int:
    """Prints the entry, or the list."""
    if options.code is None:
        for code, entry in sorted(CATALOGUE.items()):
            print(f"{code}  {entry.title}")
        return 0
    code = options.code.upper()
    if code not in CATALOGUE:
        raise CommandFault(f"no error has the code `{options.code}`", did_you_mean(code, CATALOGUE) or "`partita help`")
    print(entry_text(code))
    return 0
