"""What travels together: of a collective's bucket, the members that one message carries, and those that go alone.

gloo sends from where a tensor lies, so only small members are worth a copy. Its all-reduce costs, beside what it sends,
as much processor time as packing some megabytes, and the sums are read in the pack; a message from device to device
costs less, and what it brings is copied once more. NCCL's launches are dearer than its copies: everything goes at once.
The rule reads nothing that differs among the devices of a collective. Imports neither torch nor the compiler.
"""

from __future__ import annotations

import math

from .program import Collective

SMALL_BYTES = 256 << 10  # of the whole of a member that gloo does not send alone
SMALL_SUM_BYTES = 2 << 20  # the same of an all-reduce (17 of 1 MiB took 26 ms alone, together 17 ms and 2 for packing)


def parcels(sent: Collective, itemsize: int, gloo: bool) -> tuple[tuple[int, ...], ...]:
    """The members of a bucket by place, message by message."""
    if sent.groups:  # one, and what says where its rows go
        return ((0,),)
    everything = range(len(sent.inputs))
    if not gloo:
        return (tuple(everything),)
    limit = SMALL_SUM_BYTES if sent.kind == "all_reduce" else SMALL_BYTES
    small = tuple(at for at in everything if whole_bytes(sent, at, itemsize) <= limit)
    alone = tuple((at,) for at in everything if at not in small)
    return (small, *alone) if small else alone


def whole_bytes(sent: Collective, at: int, itemsize: int) -> int:
    """Bytes of a member before it is scattered, or when it is gathered."""
    shape = list(sent.shapes[at])
    if sent.kind == "reduce_scatter":
        shape[sent.dims[at]] = sent.sizes[at]
    return math.prod(shape) * itemsize
