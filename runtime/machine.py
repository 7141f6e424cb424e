"""What this machine reaches: the matrix peak that MFU is reckoned by, bandwidth, elementwise rate, cost of a launch.

In: a device and an element type. Out: `Rates`, measured in about two seconds by running the very things that a step
is made of; the best of several runs counts, because everything that disturbs a run makes it slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .execute import DTYPES

BUDGET_S = 0.4  # for each of the four measurements
COPY_BYTES = 1 << 25
ELEMENTS = 1 << 20
GELU_FLOPS = 8  # a result, as the compiler's cost of gelu_tanh counts them


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured figures of one device and one element type; see `compiler/cost/roofline.py` for their meaning."""

    device: str
    dtype: str
    flops_per_s: float
    elementwise_per_s: float
    bandwidth_bytes_per_s: float
    launch_s: float


def measure(device: str = "cpu", dtype: str = "f32") -> Rates:
    """Measures this machine. The matrix product is square and large enough that its edges do not show."""
    where, kind = torch.device(device), DTYPES[dtype]
    side = 8192 if where.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
    product = torch.empty_like(a)
    seconds = _best(lambda: torch.mm(a, b, out=product), where)
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    copying = _best(lambda: target.copy_(source), where)
    values = torch.randn(ELEMENTS, device=where).to(kind)
    result = torch.empty_like(values)
    bending = _best(lambda: torch.ops.aten.gelu.out(values, approximate="tanh", out=result), where)
    little = torch.zeros(8, device=where)
    launching = _best(lambda: little.add_(1.0), where, repeat=100)
    return Rates(
        str(where), dtype, 2 * side**3 / seconds, GELU_FLOPS * ELEMENTS / bending, 2 * COPY_BYTES / copying, launching
    )


def clock(device: torch.device) -> Callable[[], float]:
    """What kernels are timed by, in seconds. On one thread of a CPU that thread's own time, which others' work on the
    machine does not stretch; else the time on the wall."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def _best(call: Callable[[], object], device: torch.device, repeat: int = 1) -> float:
    """The least seconds of one call within the budget; at least three are made."""
    call()
    now = clock(device)
    best, begin, runs = float("inf"), time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - begin < BUDGET_S:
        start = now()
        for _ in range(repeat):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (now() - start) / repeat)
        runs += 1
    return best
