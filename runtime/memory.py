"""Peak memory of one call, from the allocator's own events, never from the process's resident size.

On CUDA the caching allocator counts; on the CPU `torch.profiler` records each allocation and release. The figure is
what the tensors held before the call plus the highest sum of what was allocated during it. Where the CPU stands for the
device, what runs on its host is left out: what that holds on to is not the allocator's (`host.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch.profiler import ProfilerActivity, profile

from .host import HOST_RUN

Result = TypeVar("Result")
_QUIET = "KINETO_LOG_LEVEL"  # the profiler's library writes notes to the terminal below level 99


def measure_peak(call: Callable[[], Result], held: Iterable[torch.Tensor], device: torch.device) -> tuple[Result, int]:
    """Run `call`; its result and the peak in bytes, `held` (the tensors that were there before) included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = call()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device)
    before = held_bytes(held)
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    return result, before + _peak_of(recorded)


def held_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages that tensors hold, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def owners_of(foretold: Mapping[str, float]) -> list[tuple[str, float]]:
    """Whose the peak was to be, with its bytes, the largest first (a build's predictions, `peak_bytes.OWNER`)."""
    head = "peak_bytes."
    sizes = {key.removeprefix(head): size for key, size in foretold.items() if key.startswith(head) and size}
    return sorted(sizes.items(), key=lambda one: (-one[1], one[0]))


def _peak_of(recorded: profile) -> int:
    """The highest running sum of allocations less releases, while nothing runs on the host."""
    events: list[Any] = list(cast("Any", recorded).profiler.kineto_results.events())
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    hosts = [(event.start_ns(), event.end_ns()) for event in events if event.name() == HOST_RUN]
    total = peak = 0
    for when, size in sorted(changes, key=lambda change: change[0]):
        total += size
        if not any(begin <= when <= end for begin, end in hosts):
            peak = max(peak, total)
    return peak


@contextmanager
def quiet() -> Generator[None]:
    """Within it, the profiler's library says nothing on the terminal."""
    before = os.environ.get(_QUIET)
    os.environ[_QUIET] = "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = before
