"""Which part of a tensor lies on which device: the mesh, the chunk rule, and parts of shapes.

In: a mesh, a layout (per mesh axis `replicate`, `shard:<position>` or `at:<places>`), a rank. Out: offsets and
sizes. A dim of n over an axis of k is cut in chunks of ceil(n / k), as DTensor and `torch.chunk` cut it; the last
shards may be empty. A dim that several axes cut is cut by one after another, in mesh order.
Neither torch nor the compiler is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

REPLICATE = "replicate"
SHARD = "shard:"
FACTOR = "."  # between an axis and the number of its factor
AT = "at:"

Layout = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Devices in a grid of named axes, the first outermost; a rank is the row-major index of its coordinate.

    Without axes it is one device. `tensor.1` and `tensor.2` are factors of one axis `tensor`, whose name means both.
    """

    axes: tuple[tuple[str, int], ...] = ()

    @property
    def size(self) -> int:
        """How many devices there are."""
        return math.prod(size for _, size in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """The axes' names, outermost first."""
        return tuple(name for name, _ in self.axes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many devices lie along each axis."""
        return tuple(size for _, size in self.axes)

    def coordinate(self, rank: int) -> tuple[int, ...]:
        """Where a rank stands on each axis."""
        assert 0 <= rank < self.size, f"rank {rank} of {self.size}"
        found: list[int] = []
        for size in reversed(self.sizes):
            rank, at = divmod(rank, size)
            found.append(at)
        return tuple(reversed(found))

    def rank(self, coordinate: Sequence[int]) -> int:
        """Who stands there."""
        found = 0
        for at, size in zip(coordinate, self.sizes, strict=True):
            found = found * size + at
        return found

    @property
    def lengths(self) -> dict[str, int]:
        """How many devices lie along each axis, and along each whole that axes are factors of."""
        found = dict(self.axes)
        for name, size in self.axes:
            whole, dot, _ = name.partition(FACTOR)
            if dot:
                found[whole] = found.get(whole, 1) * size
        return found

    def along(self, rank: int, axis: str) -> tuple[int, tuple[int, ...]]:
        """A rank's place on an axis, and all who differ from it along that axis alone, in order."""
        where = self.coordinate(rank)
        free = [axis in (name, name.partition(FACTOR)[0]) for name in self.names]
        ways = [range(n) if one else (at,) for n, one, at in zip(self.sizes, free, where, strict=True)]
        peers = tuple(self.rank(other) for other in product(*ways))
        return peers.index(rank), peers


ONE_DEVICE = Mesh()


def chunk(size: int, parts: int, index: int) -> tuple[int, int]:
    """(offset, size) of part `index` of a dim: [min(i·c, n), min((i + 1)·c, n)) with c = ceil(n / k)."""
    each = -(-size // parts)
    begin = min(index * each, size)
    return begin, min(begin + each, size) - begin


def part(shape: Sequence[int], layout: Layout, mesh: Mesh, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and sizes of what `rank` holds of a tensor of global `shape`. An empty layout is a whole copy."""
    offsets, sizes = [0] * len(shape), list(shape)
    if layout:
        for (_, devices), at, cut in zip(mesh.axes, mesh.coordinate(rank), layout, strict=True):
            if cut.startswith(SHARD):
                position = shard_position(cut)
                begin, sizes[position] = chunk(sizes[position], devices, at)
                offsets[position] += begin
    return tuple(offsets), tuple(sizes)


def at_places(places: Iterable[int]) -> str:
    """The layout of what only the devices at these places of an axis have."""
    return AT + ",".join(map(str, sorted(places)))


def held(layout: Layout, mesh: Mesh, rank: int) -> bool:
    """Whether a rank has any of a tensor that lies so."""
    pairs = zip(mesh.coordinate(rank), layout, strict=True) if layout else ()
    return all(str(at) in cut.removeprefix(AT).split(",") for at, cut in pairs if cut.startswith(AT))


def shard_position(cut: str) -> int:
    """The position in `shard:<position>`."""
    assert cut.startswith(SHARD), f"{cut!r} is no layout"
    return int(cut.removeprefix(SHARD))
