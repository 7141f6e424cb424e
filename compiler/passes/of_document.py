"""What is asked of a document as a whole: its length, a sum over its tokens, one of its tokens.

In: the numbers of a row's documents, each token's place in its own, and values of tokens. Out: for each token what its
document gives, so that what had no tokens' axis has one: a sum over T of x[batch, T, D] is

    y[batch, t, D] = Σ over the s of t's document of x[batch, s, D]

and whatever is made of it goes on token by token, the same for all tokens of a document.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.types import Dim, Dims, DType, Phase, Use
from ..ops.build import Builder


@dataclass
class Rows:
    """Documents in rows. segment, position: i64[row, tokens], the number of each token's document, its place in it."""

    build: Builder
    row: Dim
    tokens: Dim
    segment: Use
    position: Use
    pairs: dict[tuple[Dim, Dim], Use] = field(default_factory=dict[tuple[Dim, Dim], Use])
    lengths: dict[DType, Use] = field(default_factory=dict[DType, Use])

    @property
    def others(self) -> Dim:
        """The tokens' axis by another name: the tokens that a token meets."""
        return Dim(f"{self.tokens.name}.met", self.tokens.size)

    def pair(self, here: Dim, there: Dim) -> Use:
        """[row, here, there]: whether two tokens are of one document."""
        if (here, there) not in self.pairs:
            with self.build.within(path="", layer=None, origin=()):
                ends = (self.segment.relabel({self.tokens: dim}) for dim in (here, there))
                self.pairs[here, there] = self.build.one("eq", *ends, hint="rows/same")
        return self.pairs[here, there]

    def length(self, dtype: DType) -> Use:
        """[row, tokens]: how many tokens each token's document has."""
        if dtype not in self.lengths:
            with self.build.within(path="", layer=None, origin=()):
                wide = dtype if dtype.is_float else DType.F32
                met = self.build.one("cast", self.pair(self.tokens, self.others), to=wide, hint="rows/met")
                found = self.build.one("sum", met, over=(self.others,), hint="rows/length")
                self.lengths[dtype] = (
                    found if wide is dtype else self.build.one("cast", found, to=dtype, hint="rows/count")
                )
        return self.lengths[dtype]

    def total(self, x: Use, axis: Dim) -> Use:
        """[row, tokens, …]: the sum of x over each token's document; `axis` are x's tokens."""
        there = self.others if axis == self.tokens else axis
        met = self.build.one("cast", self.pair(self.tokens, there), to=x.dtype, hint="rows/met")
        return self.build.one("dot", met, x.relabel({axis: there}), over=(there,), hint="rows/total")

    def share(self, x: Use, width: int) -> Use:
        """x / length, as a share of `width`: what is to be divided by the row's width counts the document's tokens."""
        whole = self.build.constant(float(width), x.dtype, hint="rows/width")
        rate = self.build.one("div", whole, self.length(x.dtype), hint="rows/rate")
        return self.build.one("mul", x, rate, hint="rows/share")

    def picked(self, x: Use, axis: Dim, ids: Use) -> Use:
        """[row, tokens, …]: x at place `ids` of each token's document, zero where that has no such place."""
        there = self.others if axis == self.tokens else axis
        with self.build.within(phase=Phase.PREPARE, path="", layer=None, origin=()):
            begin = self.build.one("start", hint="rows/start", dim=self.tokens)
        at = self.build.one("index", begin, dim=self.tokens, hint="rows/at")
        first = self.build.one("sub", at, self.position, hint="rows/first")  # where each document begins
        place = self.build.one("add", first, ids, hint="rows/place")
        ends = (0, (self.tokens.size or 1) - 1)
        low, high = (self.build.constant(end, DType.I64, hint="rows/end") for end in ends)
        above = self.build.one("maximum", place, low, hint="rows/above")
        inside = self.build.one("minimum", above, high, hint="rows/inside")
        seen = self.build.one("gather", self.segment.relabel({self.tokens: there}), inside, dim=there, hint="rows/seen")
        right = self.build.one("eq", seen, self.segment, hint="rows/right")
        whole = self.build.one("eq", place, inside, hint="rows/whole")
        found = self.build.one("gather", x.relabel({axis: there}), inside, dim=there, hint="rows/picked")
        own = self.build.one("logical_and", right, whole, hint="rows/both")
        nothing = self.build.constant(0.0, x.dtype, hint="rows/nothing")
        return self.build.one("where", own, found, nothing, hint="rows/own")


def in_front(row: Dim, dims: Dims, new: Dims) -> Dims:
    """The axes with new ones behind the row's, or in front of all."""
    new = tuple(dim for dim in new if dim not in dims)
    ahead = tuple(dim for dim in dims if dim == row)
    return (*ahead, *new, *(dim for dim in dims if dim not in ahead))
