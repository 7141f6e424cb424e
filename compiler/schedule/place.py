"""Places a chain of blocks on devices: which consecutive blocks are a chunk, so that the slowest device is fastest.

In: what each block takes, the device of each chunk, each device's memory, how many microbatches are in flight there.
Out: where to cut. A device takes, for one microbatch, the forward and backward of its blocks, the messages of their
outputs to the next device and of gradients to the previous one. With one chunk a device this is a dynamic program over
(chunks, blocks):

    slowest(k, j) = min over i < j of max(slowest(k - 1, i), time of blocks i … j - 1 as chunk k - 1)

With several, a device's chunks add up; then it is an integer program (HiGHS). Both are exact; where the solver's time
is up, `proven` is false, and the dynamic program over chunks is taken where it is better. Embeddings and heads are
blocks like any other, at the ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import le

from ..integer import Integer
from .actions import Kind, Schedule

WORK = 5e6  # of one search, see `Integer.best`
_ENDS = frozenset({Kind.BACKWARD, Kind.WEIGHT})  # of what a microbatch keeps
FIRST = 2  # columns of the integer program before y


@dataclass(frozen=True, slots=True)
class Block:
    """What one block takes for one microbatch (seconds), and its memory.

    transfer_s, latency_s  of its output to the next block, if that is on another device
    static_bytes           parameters, their gradients, optimizer state
    kept_bytes             activations from forward to backward; `held_bytes`: what the weights' half needs of them
    hosted_bytes           of activations that lie on the host from forward to backward
    """

    name: str
    forward_s: float
    input_s: float
    weight_s: float
    transfer_s: float = 0.0
    latency_s: float = 0.0
    static_bytes: int = 0
    kept_bytes: int = 0
    held_bytes: int = 0
    hosted_bytes: int = 0

    @property
    def compute_s(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.input_s + self.weight_s

    @property
    def message_s(self) -> float:
        """A message from this block to the next, or the gradient's way back."""
        return self.transfer_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Placed:
    """`cuts[c]` is chunk c's blocks [begin, end); `seconds[d]` what device d takes for a microbatch.

    proven  nothing is better; false for cuts by hand, and where the solver's time was up
    """

    cuts: tuple[tuple[int, int], ...]
    seconds: tuple[float, ...]
    proven: bool = False

    @property
    def slowest_s(self) -> float:
        """What the slowest device takes."""
        return max(self.seconds)


class PlaceFault(ValueError):
    """Blocks that cannot be placed: why, and what would help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


InFlight = Sequence[
    Sequence[Sequence[int]]
]  # device -> what can be in flight at one time: so many of each of its chunks


def in_flight(schedule: Schedule) -> list[list[tuple[int, ...]]]:
    """For each device the largest numbers in flight at one time, chunk by chunk; those below others are left out."""
    found: list[list[tuple[int, ...]]] = []
    for device, actions in enumerate(schedule.actions):
        at = {chunk: place for place, chunk in enumerate(schedule.shape.chunks(device))}
        alive, seen = [0] * len(at), set[tuple[int, ...]]()
        for action in actions:
            if action.kind is Kind.FORWARD:
                alive[at[action.chunk]] += 1
                seen.add(tuple(alive))
            elif action.kind in _ENDS:
                alive[at[action.chunk]] -= 1
        found.append(_largest(seen))
    return found


def _largest(seen: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those that no other one is above: it would have the larger sum."""
    found: list[tuple[int, ...]] = []
    for one in sorted(seen, key=sum, reverse=True):
        if not any(all(map(le, one, other)) for other in found):
            found.append(one)
    return sorted(found)


def place(
    blocks: Sequence[Block], placement: Sequence[int], memory_bytes: Sequence[int] | None = None,
    flights: InFlight | None = None, fill: float = 1e-4,
) -> Placed:  # fmt: skip
    """The best cuts. `memory_bytes[d]` and `flights[d]` (see `in_flight`) bound device d.

    With several chunks a device, what is least is the slowest device plus `fill` times the slowest chunk: (p - 1)/m is
    what the way of the first microbatch adds to a step of m. Raises PlaceFault.
    """
    chunks, devices = len(placement), max(placement) + 1
    if len(blocks) < chunks:
        raise PlaceFault(f"{len(blocks)} blocks cannot be {chunks} chunks", f"at most {len(blocks)} chunks")
    chain = _Chain(blocks, placement, memory_bytes, flights)
    ends, proven = (_by_program(chain), True) if chunks == devices else _by_solver(chain, fill)
    if ends is None:
        need, worst = max((block.static_bytes + block.kept_bytes, block.name) for block in blocks)
        hint = f"`{worst}` alone takes {need:,} bytes with one microbatch; more devices, smaller microbatches"
        raise PlaceFault("no way to cut the model fits into the devices' memory", hint)
    return replace(by_hand(blocks, placement, [end - begin for begin, end in pairwise(ends)]), proven=proven)


def by_hand(blocks: Sequence[Block], placement: Sequence[int], balance: Sequence[int]) -> Placed:
    """`balance[c]` blocks for chunk c. Raises PlaceFault where they are not all blocks, or a chunk has none."""
    if len(balance) != len(placement) or sum(balance) != len(blocks) or min(balance) < 1:
        raise PlaceFault(
            f"balance {list(balance)} does not cut {len(blocks)} blocks into {len(placement)} chunks",
            f"{len(placement)} numbers from 1 on that make {len(blocks)}",
        )
    chain = _Chain(blocks, placement, None, None)
    cuts = tuple(pairwise((0, *accumulate(balance))))
    seconds = [0.0] * (max(placement) + 1)
    for chunk, (begin, end) in enumerate(cuts):
        seconds[placement[chunk]] += chain.seconds(chunk, begin, end)
    return Placed(cuts, tuple(seconds))


class _Chain:
    """Prefix sums over the blocks: any chunk's time and memory at once."""

    def __init__(
        self, blocks: Sequence[Block], placement: Sequence[int], memory: Sequence[int] | None, flights: InFlight | None
    ) -> None:
        self.blocks, self.placement, self.memory, self.flights = blocks, placement, memory, flights
        self.compute = [0.0, *accumulate(block.compute_s for block in blocks)]
        self.static = [0, *accumulate(block.static_bytes for block in blocks)]
        self.kept = [0, *accumulate(block.kept_bytes for block in blocks)]

    def sends(self, chunk: int) -> bool:
        """Whether a chunk's output leaves its device."""
        return chunk + 1 < len(self.placement) and self.placement[chunk + 1] != self.placement[chunk]

    def seconds(self, chunk: int, begin: int, end: int) -> float:
        """What blocks [begin, end) take as a chunk."""
        out = self.blocks[end - 1].message_s if self.sends(chunk) else 0.0
        back = self.blocks[begin - 1].message_s if chunk and self.sends(chunk - 1) else 0.0
        return self.compute[end] - self.compute[begin] + out + back

    def unbound(self) -> _Chain:
        """The same with each chunk on a device of its own, and memory without end."""
        return _Chain(self.blocks, range(len(self.placement)), None, None)

    def cost(self, ends: Sequence[int], fill: float) -> float:
        """The slowest device, and `fill` times the slowest chunk."""
        devices, slowest = [0.0] * (max(self.placement) + 1), 0.0
        for chunk, (begin, end) in enumerate(pairwise(ends)):
            devices[self.placement[chunk]] += self.seconds(chunk, begin, end)
            slowest = max(slowest, self.compute[end] - self.compute[begin])
        return max(devices) + fill * slowest

    def fits_all(self, ends: Sequence[int]) -> bool:
        """Whether every device has room for all of its chunks."""
        for device, memory in enumerate(self.memory or ()):
            own = [c for c, home in enumerate(self.placement) if home == device]
            static = sum(self.static[ends[c + 1]] - self.static[ends[c]] for c in own)
            kept = [self.kept[ends[c + 1]] - self.kept[ends[c]] for c in own]
            flights = self.flights[device] if self.flights is not None else [[1] * len(own)]
            if any(static + sum(n * k for n, k in zip(one, kept, strict=True)) > memory for one in flights):
                return False
        return True

    def fits(self, chunk: int, begin: int, end: int) -> bool:
        """Whether blocks [begin, end) fit, as the only chunk of its device."""
        if self.memory is None:
            return True
        device = self.placement[chunk]
        most = max((one[0] for one in self.flights[device]), default=1) if self.flights is not None else 1
        need = self.static[end] - self.static[begin] + most * (self.kept[end] - self.kept[begin])
        return need <= self.memory[device]


def _by_program(chain: _Chain) -> list[int] | None:
    """The cuts 0 = e0 < e1 < … < ek; None if nothing fits. Of equal ones, those whose devices are the most alike."""
    count, chunks = len(chain.blocks), len(chain.placement)
    best: list[dict[int, tuple[float, float]]] = [{0: (0.0, 0.0)}]
    origin: list[dict[int, int]] = [{}]
    for chunk in range(chunks):
        now: dict[int, tuple[float, float]] = {}
        came: dict[int, int] = {}
        for end in range(chunk + 1, count - (chunks - chunk - 1) + 1):
            for begin in range(end - 1, chunk - 1, -1):
                before = best[chunk].get(begin)
                time = chain.seconds(chunk, begin, end)
                if end in now and time > now[end][0] + chain.blocks[begin - 1].message_s:
                    break  # longer chunks take longer still, but for the message that they begin with
                if before is None or not chain.fits(chunk, begin, end):
                    continue
                value = (max(before[0], time), before[1] + time * time)
                if end not in now or value < now[end]:
                    now[end], came[end] = value, begin
        best.append(now)
        origin.append(came)
    if count not in best[chunks]:
        return None
    ends = [count]
    for chunk in range(chunks, 0, -1):
        ends.append(origin[chunk][ends[-1]])
    return ends[::-1]


def _by_solver(chain: _Chain, fill: float) -> tuple[list[int] | None, bool]:
    """The same as an integer program, exact for several chunks a device.

    y[c, b] = 1 where block b lies in chunk c or a later one: y[0] = 1, y[c, b] ≤ y[c, b + 1], y[c + 1, b + 1] ≤ y[c, b]
    (so that no chunk is empty). Chunk c holds block b where y[c, b] - y[c + 1, b] = 1, and begins with it where
    y[c, b] - y[c, b - 1] = 1: times, messages and memory are linear in y. Least T + fill · U, with T ≥ each device's
    time, U ≥ each chunk's.
    """
    import numpy as np  # late: loading it takes a fifth of checking a spec

    count, chunks = len(chain.blocks), len(chain.placement)
    rows = list(_rows(chain))
    width = FIRST + chunks * count
    low, high = np.zeros(width), np.ones(width)
    high[:FIRST] = np.inf
    for c in range(chunks):
        row = FIRST + c * count
        low[row + count - (chunks - c) : row + count] = 1  # a block for each chunk that is left
        high[row : row + c] = 0  # and for each that went before
    low[FIRST : FIRST + count] = 1
    cost = np.zeros(width)
    cost[:FIRST] = 1, fill
    bounded = [([*row], [*row.values()], -np.inf, bound) for row, bound in rows]
    found = Integer(list(cost), bounded, (FIRST, width), high).best(low, work=WORK)
    ways: list[list[int]] = []
    if found.x is not None:
        chosen = np.round(found.x[FIRST:]).reshape(chunks, count)
        ways.append([*(count - int(chosen[c].sum()) for c in range(chunks)), count])
    even = None if found.proven else _by_program(chain.unbound())
    if even is not None and chain.fits_all(even):
        ways.append(even)
    return min(ways, key=lambda ends: chain.cost(ends, fill), default=None), found.proven


Row = tuple[dict[int, float], float]  # Σ coefficient · column ≤ bound


def _rows(chain: _Chain) -> Iterator[Row]:
    """The rows of the integer program; column 0 is T, 1 is U, FIRST + c · blocks + b is y[c, b]."""
    count, chunks = len(chain.blocks), len(chain.placement)
    scale = chain.compute[-1] or 1.0

    def held(row: dict[int, float], chunk: int, weights: Sequence[float]) -> None:
        """Adds Σ weights[b] over the blocks of a chunk."""
        for b, weight in enumerate(weights):
            row[FIRST + chunk * count + b] = row.get(FIRST + chunk * count + b, 0.0) + weight
            if chunk + 1 < chunks:
                following = FIRST + (chunk + 1) * count + b
                row[following] = row.get(following, 0.0) - weight

    def message(row: dict[int, float], chunk: int) -> None:
        """Adds the message into a chunk, Σ message[b - 1] (y[c, b] - y[c, b - 1])."""
        for b in range(1, count):
            for at, sign in ((b, 1.0), (b - 1, -1.0)):
                column = FIRST + chunk * count + at
                row[column] = row.get(column, 0.0) + sign * chain.blocks[b - 1].message_s / scale

    for device in range(max(chain.placement) + 1):
        own = [c for c, home in enumerate(chain.placement) if home == device]
        row: dict[int, float] = {0: -1.0}
        for chunk in own:
            held(row, chunk, [block.compute_s / scale for block in chain.blocks])
            for cut in (chunk, chunk + 1):
                if cut and chain.sends(cut - 1):
                    message(row, cut)
        yield row, 0.0
        if chain.memory is not None:
            flights = chain.flights[device] if chain.flights is not None else [[1] * len(own)]
            room = float(chain.memory[device])
            for numbers in flights:
                row = {}
                for chunk, number in zip(own, numbers, strict=True):
                    held(row, chunk, [(b.static_bytes + number * b.kept_bytes) / max(room, 1.0) for b in chain.blocks])
                yield row, 1.0 if room > 0 else 0.0
    for chunk in range(chunks):
        row = {1: -1.0}
        held(row, chunk, [block.compute_s / scale for block in chain.blocks])
        yield row, 0.0
    for chunk in range(1, chunks):
        for b in range(count - 1):
            yield {FIRST + chunk * count + b: 1.0, FIRST + chunk * count + b + 1: -1.0}, 0.0
        for b in range(count - 1):
            yield {FIRST + chunk * count + b + 1: 1.0, FIRST + (chunk - 1) * count + b: -1.0}, 0.0
