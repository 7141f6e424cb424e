"""`partita help`: explains an error code at length, or lists the codes."""

from __future__ import annotations

import argparse
import sys

from ..compiler.base.catalogue import catalogue, explain

EXAMPLE = "partita help E0001"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("code", metavar="CODE", nargs="?", help="an error's code; without one, all are listed")


def run(options: argparse.Namespace) -> int:
    """Prints the entry, or the list. Raises SpecError for a code that does not exist."""
    if options.code is None:
        for code, entry in catalogue().items():
            print(f"{code}  {entry.title}")
    else:
        sys.stdout.write(explain(options.code))
    return 0
