"""Times the kernels of this machine by shape and element type: what the compiler's predictions interpolate.

In: a device and types. Out: `Timed` points and the machine's `Rates`. Every kernel is called as generated modules call
it, and described by what it dispatches to (`calls.py`). The best of several runs counts, because everything that
disturbs a run makes it slower; each point has a budget, so that the whole takes well under a minute, or, with less
effort, a few seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .call import Timed
from .calls import traced
from .execute import DTYPES
from .machine import clock

aten = torch.ops.aten
MOST_RUNS = 200
SIDES = (16, 64, 256, 1024, 4096)
ELEMENTS = tuple(1 << n for n in (4, 10, 13, 16, 18, 20, 22, 24))


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured: a point's budget after its first call, the runs of it, the largest products and tensors."""

    budget_s: float = 0.02
    least_runs: int = 3
    cpu_flops: float = 2.2e9
    cuda_flops: float = 3e12
    elements: int = 1 << 24

    def products(self, device: torch.device) -> float:
        """FLOPs of the largest product that is timed."""
        return self.cuda_flops if device.type == "cuda" else self.cpu_flops


THOROUGH = Effort()
QUICK = Effort(0.001, 2, 2e8, 1e11, 1 << 22)


def calibrate(
    device: str, dtypes: Sequence[str], say: Callable[[str], None] | None = None, effort: Effort = THOROUGH
) -> list[Timed]:
    """All points of a device, type by type."""
    found: list[Timed] = []
    where = torch.device(device)
    for dtype in dtypes:
        for name, calls in FAMILIES:
            if say is not None:
                say(f"{dtype} {name}")
            found.extend(timed(call, where, effort) for call in calls(where, DTYPES[dtype], effort))
    return found


def timed(call: Callable[[], object], device: torch.device, effort: Effort = THOROUGH) -> Timed:
    """The least seconds of a call within the budget, described by the last thing that it dispatches to."""
    described = traced(call)[-1]
    with torch.no_grad():
        call()
        best, begin, runs = float("inf"), time.perf_counter(), 0
        repeat = max(1, min(64, int(2e-4 / max(1e-7, _once(call, device)))))
        while runs < effort.least_runs or (time.perf_counter() - begin < effort.budget_s and runs < MOST_RUNS):
            best = min(best, _once(call, device, repeat))
            runs += 1
    return Timed(described, best)


def _once(call: Callable[[], object], device: torch.device, repeat: int = 1) -> float:
    now = clock(device)
    start = now()
    for _ in range(repeat):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (now() - start) / repeat


Calls = Iterator[Callable[[], object]]


def _products(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    """Products with either operand turned, as the gradients have them; shapes on a grid, flat and deep ones too."""
    shapes = [(m, n, k) for m in SIDES for n in SIDES for k in SIDES]
    most = effort.products(device)
    for m, n, k in (shape for shape in shapes if 2.0 * math.prod(shape) <= most):
        a, b = (torch.randn(*s, device=device).to(dtype) for s in ((m, k), (k, n)))
        yield lambda a=a, b=b: aten.mm.default(a, b)
        if min(m, n, k) < SIDES[1]:
            continue
        turned_b, turned_a = b.t().contiguous().t(), a.t().contiguous().t()
        yield lambda a=a, b=turned_b: aten.mm.default(a, b)
        yield lambda a=turned_a, b=b: aten.mm.default(a, b)


def _batched(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    for batch in (8, 64):
        for m, n, k in ((32, 32, 32), (128, 128, 32), (128, 32, 128), (256, 256, 64)):
            a, b = (torch.randn(batch, *s, device=device).to(dtype) for s in ((m, k), (k, n)))
            yield lambda a=a, b=b: aten.bmm.default(a, b)


def _attention(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    """Through the kernel that this device's modules call, forward and backward."""
    if device.type != "cpu":
        return
    forward = aten._scaled_dot_product_flash_attention_for_cpu.default
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    for heads, length, width in ((8, 32, 32), (64, 32, 32), (8, 128, 64), (64, 128, 32), (8, 512, 64), (32, 256, 64)):
        q, k, v, dy = (torch.randn(1, heads, length, width, device=device).to(dtype) for _ in range(4))
        yield lambda q=q, k=k, v=v: forward(q, k, v, 0.0, True)
        y, lse = forward(q, k, v, 0.0, True)
        yield lambda dy=dy, q=q, k=k, v=v, y=y, lse=lse: backward(dy, q, k, v, y, lse, 0.0, True)


def _norms(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    for rows, columns in ((64, 64), (1024, 64), (512, 256), (4096, 256), (512, 768), (4096, 1024)):
        x, dy = (torch.randn(rows, columns, device=device).to(dtype) for _ in range(2))
        gain, bias = (torch.ones(columns, device=device, dtype=x.dtype) for _ in range(2))
        yield lambda x=x, g=gain, b=bias: aten.native_layer_norm.default(x, [x.shape[1]], g, b, 1e-5)
        _, mean, rstd = aten.native_layer_norm.default(x, [columns], gain, bias, 1e-5)
        yield lambda dy=dy, x=x, m=mean, r=rstd, g=gain, b=bias: aten.native_layer_norm_backward.default(
            dy, x, [x.shape[1]], m, r, g, b, [True, True, True]
        )
    for rows, columns in ((64, 256), (512, 256), (128, 4096), (512, 4096), (128, 32768)):
        x = torch.randn(rows, columns, device=device).to(dtype)
        yield lambda x=x: aten._log_softmax.default(x, 1, False)


def _elementwise(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    """One operator of each kind, over few and many elements."""
    for count in (count for count in ELEMENTS if count <= effort.elements):
        x, y = (torch.rand(count, device=device).to(dtype) for _ in range(2))
        wide = x.float() if dtype != torch.float32 else x
        other = torch.bfloat16 if dtype == torch.float32 else torch.float32
        yield lambda x=x, y=y: aten.add.Tensor(x, y)
        yield lambda x=x, y=y: aten.mul.Tensor(x, y)
        into = torch.zeros_like(x)
        yield lambda z=into, y=y: aten.add_.Tensor(z, y)
        yield lambda z=into: aten.mul_.Tensor(z, 0.5)
        yield lambda x=x, z=into: aten.exp.out(x, out=z)
        yield lambda x=x, y=y, z=into: aten.gelu_backward.grad_input(x, y, approximate="tanh", grad_input=z)
        yield lambda x=x: aten.exp.default(x)
        yield lambda x=x: aten.neg.default(x)
        yield lambda x=x: aten.clone.default(x)
        yield lambda x=x, o=other: aten._to_copy.default(x, dtype=o)
        yield lambda x=x: aten.gelu.default(x, approximate="tanh")
        yield lambda x=x, y=y: aten.gelu_backward.default(x, y, approximate="tanh")
        yield lambda x=x: aten.silu.default(x)
        yield lambda x=x: aten.sigmoid.default(x)
        yield lambda w=wide: aten.dot.default(w, w)
        yield lambda x=x: aten.sum.default(x)
        if count >= 1024:
            table = x.view(-1, 64)
            yield lambda t=table: aten.sum.dim_IntList(t, [0])
            ids = torch.randint(table.shape[0], (table.shape[0],), device=device)
            yield lambda t=table, i=ids: aten.embedding.default(t, i)
            rows = y.view(-1, 64)
            yield lambda g=rows, i=ids, t=table: aten.index_add_.default(g, 0, i, t)


def _views(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    x = torch.zeros(4, 8, device=device, dtype=dtype)
    yield lambda: x.view([32])


def _optimizer(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    """Fused AdamW over lists, float32 as parameters are."""
    if dtype != torch.float32:
        return
    step, lr = torch.ones((), device=device), torch.full((), 1e-3, device=device)
    for tensors, count in ((2, 1 << 8), (16, 1 << 12), (64, 1 << 14), (16, 1 << 18), (32, 1 << 19)):
        lists = [[torch.rand(count, device=device) for _ in range(tensors)] for _ in range(4)]
        steps = [step] * tensors
        yield lambda a=lists, s=steps: aten._fused_adamw_.tensor_lr(
            a[0], a[1], a[2], a[3], [], s, lr=lr, beta1=0.9, beta2=0.95, weight_decay=0.1, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip


FAMILIES: tuple[tuple[str, Callable[[torch.device, torch.dtype, Effort], Calls]], ...] = (
    ("views", _views),
    ("elementwise", _elementwise),
    ("norms", _norms),
    ("attention", _attention),
    ("optimizer", _optimizer),
    ("batched products", _batched),
    ("products", _products),
)
