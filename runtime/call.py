"""What a call of a kernel is, as data: shared by who times kernels and who foretells their time. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a kernel on tensors of a type.

    sizes  (batch, m, n, k) of a product, (heads, queries, keys, width) of attention, (rows, columns) of norms and
           softmax, (elements, tensors) of an optimizer over lists, (elements) of all else, () of what moves nothing
    flops  operations; of what is no product, one an element or so
    bytes  read and written
    """

    kernel: str
    dtype: str
    sizes: tuple[int, ...]
    flops: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Timed:
    """What one call took, in seconds."""

    call: Call
    seconds: float
