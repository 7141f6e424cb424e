"""What goes wrong while a program runs through no fault of ours: data, folders, checkpoints, devices.

A `RuntimeFault` is data like the compiler's diagnostics (code, message, hint), kept apart because the runtime imports
nothing of the compiler. The command line prints it and exits with 1. Codes are E0500 to E0599; `CODES` lists them.
"""

from __future__ import annotations

from types import MappingProxyType

CODES = MappingProxyType(
    {
        "E0500": "the build's training record is malformed",
        "E0501": "the data was not found",
        "E0502": "the data is empty or too short for one row",
        "E0503": "a token is out of range",
        "E0504": "a path leaves the folder that was named",
        "E0505": "the runtime does not know this source, row rule or column",
        "E0506": "a data file cannot be read",
        "E0510": "there is no checkpoint to resume from",
        "E0511": "the checkpoint is of another model",
        "E0512": "the checkpoint cannot be written",
        "E0513": "the checkpoint is damaged or of another format",
        "E0514": "the run's folder already holds checkpoints",
        "E0515": "the run was begun with another seed",
        "E0516": "the run's folder cannot be written",
        "E0520": "the loss is not finite",
        "E0521": "the build lacks a program",
        "E0522": "an initializer is unknown",
        "E0523": "the folder is not a build, or was changed since",
        "E0524": "a build that runs foreign code",
        "E0525": "a foreign kernel that is not what the spec says",
        "E0526": "the loss is far above those of the steps before",
        "E0527": "a step took more memory than its budget",
        "E0530": "an optional package is missing",
        "E0531": "there are more or fewer processes than the build's mesh has devices",
        "E0532": "a process of the mesh ended",
        "E0533": "a process waited for another that is gone or too late",
        "E0540": "the prompt does not fit the model",
        "E0541": "the model sees what is still to come",
        "E0550": "a file of weights cannot be read",
        "E0551": "the weights do not fit the model",
        "E0552": "the weights cannot be written",
    }
)


class RuntimeFault(Exception):
    """A fault of the data, the machine or the request. `code` is a key of `CODES`, `hint` says what would mend it."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        assert code in CODES, f"{code} is not in the catalogue"
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"error[{self.code}]: {self.message}{tail}"
