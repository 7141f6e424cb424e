"""Which token slices a step takes least time with: the dynamic program's, equal ones, or none at all.

In: what each chunk of a pipeline takes for a slice of any length behind any context, how many microbatches there are,
how many devices may work at once. Out: the lengths whose simulated schedule ends first. The dynamic program
(`slices.py`) takes a pipeline of K stages for Σ t_i + (K - 1) max t_i: true of equal stages with a core each. So what
it finds for K and for fewer stages is simulated with each stage's own prices, on the cores that there are, beside the
equal slices and the whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .forms import TOKEN_SLICES, Form, build, computing
from .shared import shared_seconds
from .simulate import Price, makespan
from .slices import cut

EQUAL = (2, 4, 8, 16)  # numbers of equal slices that are tried
UNITS = 32  # of a row: slices of other lengths are multiples of it
NEAR = 1e-3  # of a step's work: how near the dynamic program comes to its best
STEADY = 2  # times the stages: after so many microbatches a schedule repeats itself

SlicePrice = Callable[[int, int, int], Price]  # (chunk, length, context)


@dataclass(frozen=True)
class Pipe:
    """A pipeline with a chunk on each device. tokens: of a row. price: of a slice of a microbatch.

    abreast: so many devices work at once at the pace that they are priced at; None: all of them
    distinct: chunks that every other one takes as long as one of, where that is known
    """

    stages: int
    microbatches: int
    tokens: int
    price: SlicePrice
    abreast: float | None = None
    distinct: Sequence[int] = ()

    def seconds(self, lengths: Sequence[int]) -> float:
        """Of a step with these slices; a single one is the whole row."""
        form = Form(TOKEN_SLICES, slices=tuple(lengths)) if lengths[1:] else Form("1f1b")
        table = self.table(lengths)
        few = min(self.microbatches, STEADY * self.stages)
        work = [sum(map(compute_s, row)) for row in table]
        more = self.microbatches - few

        def prices(chunk: int, microbatch: int, part: int) -> Price:
            return table[chunk][part]

        if self.abreast is None or self.abreast >= self.stages:
            return float(makespan(computing(form, self.stages, few, prices), prices)) + more * max(work)
        there = shared_seconds(build(form, self.stages, few, prices), prices, self.abreast)
        return there + more * max(*work, sum(work) / self.abreast)

    def table(self, lengths: Sequence[int]) -> list[list[Price]]:
        """chunk -> slice -> its price."""
        begins = [0, *accumulate(lengths)]
        return [
            [self.price(chunk, length, begin) for length, begin in zip(lengths, begins, strict=False)]
            for chunk in range(self.stages)
        ]


def compute_s(price: Price) -> float:
    """Of a device."""
    return float(price.forward) + float(price.input) + float(price.weight)


def equal_lengths(tokens: int, most: int | None = None) -> list[tuple[int, ...]]:
    """The equal slices that a row may be cut into, the fewest first."""
    return [(tokens // n,) * n for n in EQUAL if tokens % n == 0 and tokens // n > 0 and n <= (most or n)]


def unit_of(tokens: int, shortest: int = 1) -> int:
    """No slice of the dynamic program has fewer tokens."""
    unit = max(1, tokens // UNITS)
    return unit * -(-max(shortest, 1) // unit)


def candidates(pipe: Pipe, shortest: int = 1) -> list[tuple[int, ...]]:
    """Whole, in equal slices, and as the dynamic program cuts for pipelines of 2, 4, … and all of its stages."""
    least = max(shortest, 1)
    unit = unit_of(pipe.tokens, shortest)

    def slowest(_: int, length: int, context: int) -> float:
        found = [pipe.price(chunk, length, context) for chunk in pipe.distinct or range(pipe.stages)]
        return max(compute_s(one) + 2 * float(one.transfer) for one in found)

    found = [(pipe.tokens,), *equal_lengths(pipe.tokens, pipe.tokens // least)]
    near = NEAR * slowest(1, pipe.tokens, 0)
    sizes = sorted({pipe.stages, *(1 << k for k in range(1, pipe.stages.bit_length()))})
    few = min(pipe.microbatches, STEADY * pipe.stages)
    for stages in sizes:
        best = cut(few, pipe.tokens // unit * unit, stages, slowest, unit, near, row_counts=[1])
        first, *others = best.microbatches[0].lengths
        found.append((first + pipe.tokens % unit, *others))
    return list(dict.fromkeys(found))


def best_slices(pipe: Pipe, shortest: int = 1) -> tuple[int, ...]:
    """Lengths of the slices of a row for which a step takes least; a single one: not cut. shortest: of a slice."""
    return min(candidates(pipe, shortest), key=lambda lengths: (pipe.seconds(lengths), len(lengths)))
