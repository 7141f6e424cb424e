"""Which pieces of memory are alive, who holds them, and how much they come to: the books that a walk keeps.

In: sizes in bytes with their owners, and who holds or drops which memory. Out: the sum that is alive, and each owner's
part of it. A memory is a number; it may have several names (views share it) and goes when the last one is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..cost.memory import Owner


@dataclass(slots=True)
class Block:
    """A piece of memory that is alive, on the device or on its host."""

    bytes: int
    owner: Owner
    path: str
    host: bool = False


@dataclass(slots=True)
class Memories:
    """What is alive, by number.

    rounding_bytes  what the allocator rounds up to
    named           how many hold each memory, by a name or without
    total, shared   bytes alive on the device, of all and of each owner
    host_bytes      bytes alive on the host
    made            how many were ever made
    """

    rounding_bytes: int
    named: Counter[int] = field(default_factory=Counter[int])
    alive: dict[int, Block] = field(default_factory=dict[int, Block])
    total: int = 0
    shared: Counter[Owner] = field(default_factory=Counter[Owner])
    host_bytes: int = 0
    made: int = 0

    def rounded(self, size: int) -> int:
        """Bytes that the allocator takes for so many."""
        return -(-size // self.rounding_bytes) * self.rounding_bytes

    def new(self, size: int, owner: Owner, path: str, host: bool = False) -> int:
        """The number of a new memory, which lives until nobody holds it and it is released."""
        self.made += 1
        if host:
            self.alive[self.made] = Block(size, owner, path, host)
            self.host_bytes += size
            return self.made
        rounded = self.rounded(size)
        self.alive[self.made] = Block(rounded, owner, path)
        self.total += rounded
        self.shared[owner] += rounded
        return self.made

    def hold(self, memories: Sequence[int], times: int) -> None:
        """Somebody without a name needs memories, or no longer."""
        for memory in memories:
            self.named[memory] += times
        self.release(memories)

    def release(self, memories: Iterable[int]) -> None:
        """Free those that nobody holds."""
        for memory in memories:
            if self.named[memory] <= 0 and memory in self.alive:
                block = self.alive.pop(memory)
                if block.host:
                    self.host_bytes -= block.bytes
                else:
                    self.total -= block.bytes
                    self.shared[block.owner] -= block.bytes
