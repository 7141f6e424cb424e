"""Rows that hold whole documents: which id belongs to which document, at which place, and whether its loss counts.

In: a stream of ids, in which the id `end` (and the end of each file) ends a document. Out: rows of `length` ids and
the one after each, with the number of each id's document in its row, its place in it, and whether the id after it is of
the same document, so that predicting it means something.

`pack`: consecutive windows, full of ids; a document that a window cuts goes on in another row as one of its own.
`pad`: a document a row, in pieces of `length` where it is longer, and filled up with zeros, which are no document.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .sources import Stream

Ids = npt.NDArray[np.int64]
PIECE = 1 << 22  # ids that are searched at once


@dataclass(frozen=True, slots=True)
class Row:
    """ids [length + 1]; segment, position and counts [length]. A row that is read on over documents is one segment."""

    ids: Ids
    segment: Ids
    position: Ids
    counts: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Windows:
    """Ids `begin` … `end`-1 of a stream, cut into windows of `length` ids and one id more (the last one's target).

    stop    the id that ends a document
    apart   whether rows say where their documents are (`pack`), or read on over their ends (`chunk`)
    """

    stream: Stream
    begin: int
    end: int
    length: int
    stop: int | None = None
    apart: bool = False

    @property
    def phases(self) -> int:
        """At how many offsets the cutting may start, if every offset must give the same count of windows."""
        return self.length if self.end - self.begin >= 2 * self.length else 1

    @property
    def count(self) -> int:
        """Windows that fit, at whatever phase."""
        return (self.end - self.begin - self.phases) // self.length

    def read(self, window: int, phase: int) -> Row:
        """The row of a window."""
        assert 0 <= window < self.count and 0 <= phase < self.phases, "a window beyond the data"
        first = self.begin + phase + window * self.length
        ids = self.stream.read(first, self.length + 1)
        places = np.arange(self.length)
        if not self.apart:
            return Row(ids, np.zeros_like(places), places, np.ones(self.length, dtype=np.bool_))
        begins = np.isin(first + np.arange(self.length + 1), self.stream.ends)
        if self.stop is not None:
            begins[1:] |= ids[:-1] == self.stop
        begins[0] = True
        segment = np.cumsum(begins[:-1]) - 1
        return Row(ids, segment, places - np.flatnonzero(begins[:-1])[segment], ~begins[1:])


@dataclass(frozen=True)
class Padded:
    """Ids `begin` … `end`-1 of a stream, a document (or a piece of `length` ids of one) a row."""

    stream: Stream
    begin: int
    end: int
    length: int
    stop: int | None = None

    phases = 1

    @cached_property
    def pieces(self) -> tuple[Ids, Ids]:
        """Where each row begins and ends in the stream, found by looking at every id once."""
        ends = [self.stream.ends[(self.stream.ends > self.begin) & (self.stream.ends < self.end)], [self.end]]
        for at in range(self.begin, self.end if self.stop is not None else self.begin, PIECE):
            ids = self.stream.read(at, min(PIECE, self.end - at))
            ends.append(at + 1 + np.flatnonzero(ids == self.stop))
        stops = np.unique(np.concatenate(ends)).astype(np.int64)
        starts = np.concatenate([[self.begin], stops[:-1]])
        parts = -(-(stops - starts) // self.length)
        number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        first = np.repeat(starts, parts) + number * self.length
        return first, np.minimum(first + self.length, np.repeat(stops, parts))

    @property
    def count(self) -> int:
        """Rows that there are."""
        return len(self.pieces[0])

    def read(self, window: int, phase: int) -> Row:
        """The row of a document; the id after its last one only where the document goes on."""
        starts, stops = self.pieces
        first, stop = int(starts[window]), int(stops[window])
        many = stop - first
        on = many == self.length and stop < self.end and stop not in self.stream.ends
        on = on and (self.stop is None or int(self.stream.read(stop - 1, 1)[0]) != self.stop)
        ids = np.zeros(self.length + 1, dtype=np.int64)
        ids[: many + on] = self.stream.read(first, many + on)
        places = np.arange(self.length)
        segment = (places >= many).astype(np.int64)
        return Row(ids, segment, places - segment * many, places < many - 1 + on)


def cut(stream: Stream, begin: int, end: int, kind: str, length: int, stop: int | None) -> Windows | Padded:
    """The rows of a part of a stream, by the kind that a recipe names."""
    if kind == "pad":
        return Padded(stream, begin, end, length, stop)
    return Windows(stream, begin, end, length, stop, apart=kind == "pack")
