"""What the search finds: a plan, its seconds and its bytes.

In: the choice, and what `price.py` says of it. Out: `Priced`, which the record and the command line read.
"""

from __future__ import annotations

from dataclasses import dataclass

from .space import Choice


@dataclass(frozen=True, slots=True)
class Priced:
    """A plan with its price. seconds: of a step. stage_bytes: of a device of each stage. balance: blocks a chunk.
    budget_bytes: within which as little as can be is computed again."""

    choice: Choice
    seconds: float
    stage_bytes: tuple[int, ...]
    balance: tuple[int, ...] = ()
    budget_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        """Of the device that takes most."""
        return max(self.stage_bytes)
