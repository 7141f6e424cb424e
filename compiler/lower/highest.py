"""How high the memory of a walk reaches, and who is alive there.

In: the books of what is alive, moment by moment. Out: the peak with the line that runs there, the height within the
last instruction, and, at a moment that was asked for, whose all of it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..cost.memory import Owner, Share
from .memories import Block, Memories


@dataclass(slots=True)
class Highest:
    """Moments are counted; at the one that is `wanted` it is noted who is alive.

    peak_bytes, at, place  the highest moment so far, its number, and the line that runs there
    high_bytes, owners     the highest since `begin`, and each owner's part of it
    host_bytes             the most that lay on the host
    """

    memories: Memories
    wanted: int = -1
    moments: int = 0
    peak_bytes: int = -1
    at: int = -1
    place: str = ""
    high_bytes: int = 0
    owners: Mapping[Owner, int] = field(default_factory=dict[Owner, int])
    host_bytes: int = 0
    alive: tuple[Block, ...] = ()

    def begin(self) -> None:
        """An instruction begins with what is there."""
        self.high_bytes, self.owners = self.memories.total, dict(self.memories.shared)

    def mark(self, place: str, workspace: int = 0) -> None:
        """Here the sum stands at its highest for a moment."""
        workspace = self.memories.rounded(workspace)
        reached = self.memories.total + workspace
        self.host_bytes = max(self.host_bytes, self.memories.host_bytes)
        if reached > self.high_bytes:
            shared = self.memories.shared
            self.high_bytes, self.owners = reached, {**shared, Owner.WORKSPACE: shared[Owner.WORKSPACE] + workspace}
        if reached > self.peak_bytes:
            self.peak_bytes, self.at, self.place = reached, self.moments, place
        if self.moments == self.wanted:
            self.alive = (*self.memories.alive.values(), Block(workspace, Owner.WORKSPACE, place))
        self.moments += 1

    def shares(self) -> tuple[Share, ...]:
        """Who had how much at the moment that was wanted, the largest first."""
        found: Counter[tuple[Owner, str]] = Counter()
        for block in self.alive:
            if not block.host:
                found[block.owner, block.path] += block.bytes
        shares = (Share(owner, path, size) for (owner, path), size in found.items() if size)
        return tuple(sorted(shares, key=lambda s: (-s.bytes, s.owner.value, s.path)))
