"""The collector of cycles, told to wait: while a graph is laid out or a plan is searched for, nothing is thrown away.

Graphs, programs and prices are many small objects without cycles that live as long as the work on them: the collector
would walk them again and again, for a seventh of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Generator[None]:
    """Without the collector of cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
