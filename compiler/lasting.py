"""The search for how much may last on a device, so that a layout also fits at its highest moment.

In: of each layout that was tried what lasts of it, and how far its peak is above the memory; or that none lasts with so
little. Out: the next bound to try. A layout that is over may last that much less the next time; where none does, what
lies between is tried by halves.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base.diagnostic import SpecError

_PATIENT = 3  # times that a layout is looked for anew for just what was too much; then for twice that, and so on
_HALVES = 4  # times that it is looked for between what is too little and what is too much


@dataclass
class Lasting:
    """bound: bytes that may last, None for any number. refused: no layout lasts with so little. enough: one does, whose
    peak is above the memory."""

    bound: int | None
    refused: int = 1
    enough: int | None = None
    tries: int = 0
    halves: int = 0

    def over(self, resident: int, excess: int) -> None:
        """A layout of which `resident` bytes last is so much above the memory."""
        self.enough = resident
        self.bound = resident - (excess << max(0, self.tries - _PATIENT))
        self.tries += 1
        if self.bound <= self.refused:
            self._halve(resident)

    def refuse(self, fault: SpecError) -> None:
        """No layout lasts with the bound. Raises the fault where nothing is left to try."""
        if self.enough is None or self.bound is None or self.halves > _HALVES:
            raise fault
        self.refused = max(self.refused, self.bound)
        self._halve(self.enough)

    def _halve(self, enough: int) -> None:
        """Between the two; at last what is refused for sure."""
        self.halves += 1
        self.bound = (self.refused + enough) // 2 if self.halves <= _HALVES else self.refused
