"""What one device of a mesh needs of the others: collectives and messages that it begins and waits for.

In: collectives and messages of a program, with this device's tensors. Out: what the others gave. The interpreter
(`execute.py`) knows these two protocols alone, so that real processes (`collectives.py`) and all devices in one process
(`virtual.py`) run the same program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from .program import Collective, Receive, Send


class Pending(Protocol):
    """A collective that was begun."""

    def ready(self) -> bool:
        """Whether `results` can be asked for. Where asking blocks until they are there, always."""
        ...

    def results(self) -> Sequence[torch.Tensor]:
        """The collective's outputs."""
        ...


class Communicator(Protocol):
    """What carries the collectives of one device of a mesh."""

    @property
    def rank(self) -> int:
        """Which device this is."""
        ...

    def begin(
        self, collective: Collective, operands: Sequence[torch.Tensor], into: Sequence[torch.Tensor] = ()
    ) -> Pending:
        """Begin a collective; its operands, and what it gathers `into`, must not be written until it is waited for."""
        ...

    def send(self, message: Send, number: int, tensor: torch.Tensor) -> None:
        """Begin to send a microbatch's tensor, which nobody writes any more. Number -1 is of no microbatch."""
        ...

    def receive(self, message: Receive, number: int, into: torch.Tensor) -> Pending:
        """Begin to receive a microbatch's tensor."""
        ...

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        ...
