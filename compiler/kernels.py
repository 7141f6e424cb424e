"""What nodes of a step take on this machine: its kernels as they were timed, for planners.

In: a table, a device's kind; a step as it is laid out on a mesh. Out: seconds of a run of each node of rank 0's part,
with what is fused into it, read off the lowered step. Modules of steps that are compared are mostly the same, and made
once. torch is loaded when the first step comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .cost.table import Table
from .ir.graph import Graph
from .ir.layout import Mesh

if TYPE_CHECKING:
    from .lower.library import Library
    from .lower.timing import Part


@dataclass
class TimedKernels:
    """The table of a device, and the modules that were made so far."""

    table: Table
    device: str = "cpu"
    _library: Library | None = field(default=None, init=False)
    _known: dict[str, list[Part]] = field(default_factory=dict[str, "list[Part]"], init=False)

    def __call__(self, step: Graph, mesh: Mesh) -> Mapping[str, float]:
        """Seconds of nodes of forward, backward and update. Raises SpecError."""
        from .lower.build import timed_nodes
        from .lower.library import Library
        from .lower.outside import ALONE
        from .lower.spread import spread

        self._library = self._library or Library(self.device)
        graphs, lying = ({step.name: step}, ALONE) if mesh.devices == 1 else spread({step.name: step}, mesh)
        return timed_nodes(step.name, graphs[step.name], self._library, lying, self.table, self._known)
