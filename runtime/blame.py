"""What made a step's loss or gradients infinite or NaN: a parameter, the data, or a value that an operator gave.

In: a step that updated nothing, to be run again. Out: one sentence that names the first such value. On a mesh every
process looks at what is its own, and all say the same: what the first of them found, in the order of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from .finite import Watch
from .state import Store

LONGEST = 2048  # bytes of what a process says
STORE, DATA, RUN, NOTHING = range(4)  # the order in which a value comes to be


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What a process found. `rank`: of several that found something at once, the first speaks."""

    kind: int
    order: int
    rank: int
    words: str


def first_bad(
    store: Store, data: Sequence[Mapping[str, torch.Tensor]], again: Callable[[], object], rank: int = 0
) -> str | None:
    """The first value that is not finite, in words; None where everything is. Every process of a mesh calls it."""
    found = _given(store, STORE, rank, "before the step")
    for number, microbatch in enumerate(data):
        where = f"in microbatch {number + 1}" if len(data) > 1 else "of the data"
        found = found or _given(microbatch, DATA, rank, where)
    with Watch() as watch:  # all of a mesh run, whatever one has found
        again()
    if found is None and watch.bad is not None:
        found = Finding(RUN, watch.order, rank, str(watch.bad))
    first = agreed(found or Finding(NOTHING, 0, rank, ""))
    where = f", on rank {first.rank}" if first.kind != NOTHING and _processes() > 1 else ""
    return first.words + where or None


def _given(tensors: Mapping[str, torch.Tensor], kind: int, rank: int, where: str) -> Finding | None:
    """A tensor that the step is given with something else than numbers in it."""
    for order, (name, tensor) in enumerate(tensors.items()):
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor)
        count = int(bad.sum())
        if count:
            at = bad.nonzero()[0].tolist()
            value = float(tensor[tuple(at)])
            many = f"{count:,} of its {tensor.numel():,} elements are not finite, the first at {at}"
            return Finding(kind, order, rank, f"`{name}` {where} holds {value} ({many})")
    return None


def agreed(mine: Finding) -> Finding:
    """The first of what all processes found."""
    if _processes() == 1:
        return mine
    text = json.dumps([mine.kind, mine.order, mine.rank, mine.words[: LONGEST // 8]]).encode()
    said = torch.zeros(LONGEST, dtype=torch.uint8)
    said[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    heard = [torch.empty_like(said) for _ in range(_processes())]
    dist.all_gather(heard, said)
    return min(Finding(*json.loads(bytes(one.tolist()).rstrip(b"\0"))) for one in heard)


def _processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1
