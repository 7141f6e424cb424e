"""What goes wrong in a command itself: an exception that the command line prints and leaves with its code."""

from __future__ import annotations


class CommandFault(Exception):
    """`hint` says what would mend it; `exit_code` is 2 for a wrong command line, 1 for a run that failed."""

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"error: {self.message}" + (f"\n  hint: {self.hint}" if self.hint else "")
