"""`partita lsp`: the language server, over standard input and output, for an editor to start."""

from __future__ import annotations

import argparse

EXAMPLE = "partita lsp"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None; an editor starts it."""


def run(options: argparse.Namespace) -> int:
    """Serves until the editor leaves."""
    from .server import serve  # pygls takes its time to load

    serve()
    return 0
