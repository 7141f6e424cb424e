"""Times the kernels of this machine by shape and element type: what the compiler's predictions interpolate.

In: a device and types. Out: `Timed` points. Every kernel is called as generated modules call it, is described by what
it dispatches to (`calls.py`), and meets what it meets in a step: rounds of one call of each in ever another order, so
that its operands, its instructions and the threads of the pool were last touched for something else, but for the first
operand, which the call before has just made. The median of the rounds counts. Called in a loop by itself a small kernel
takes a fraction of that.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .allocator import keep_freed_memory
from .call import Call, Timed
from .calls import VIEW, Trace
from .execute import DTYPES
from .machine import clock

aten = torch.ops.aten
PROBES = 4  # raised whenever what is called, or how it is met, changes: a table of other probes says something else
MOST_ROUNDS = 25
LITTLE_BYTES = 1 << 22  # moved by a call that runs among its like: a step's small calls do not meet tensors of 64 MiB
STEP_BYTES = 1 << 26  # moved by all of them: what a cache of the machine holds is there, what its cores' do is not
SIDES = (16, 64, 256, 1024, 4096)
VOCABULARY = 1 << 14  # of a language model's head
ELEMENTS = tuple(1 << n for n in (4, 10, 13, 16, 18, 20, 22, 24))


Probe = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured: seconds of a type's small calls and of its large ones, rounds, products and tensors."""

    budget_s: float = 5.0
    least_rounds: int = 5
    cpu_flops: float = 2.2e9
    cuda_flops: float = 3e12
    elements: int = 1 << 24

    def products(self, device: torch.device) -> float:
        """FLOPs of the largest product that is timed."""
        return self.cuda_flops if device.type == "cuda" else self.cpu_flops


THOROUGH = Effort()
QUICK = Effort(0.8, 3, 2e8, 1e11, 1 << 22)


def calibrate(
    device: str, dtypes: Sequence[str], say: Callable[[str], None] | None = None, effort: Effort = THOROUGH
) -> list[Timed]:
    """All points of a device, type by type; `say` is told what is going on."""
    keep_freed_memory()  # as a run does
    found: list[Timed] = []
    where = torch.device(device)
    for dtype in dtypes:
        if say is not None:
            say(f"{dtype}: timing kernels")
        probes = [call for family in FAMILIES for call in family(where, DTYPES[dtype], effort)]
        found.extend(timed(probes, where, effort))
    return found


@dataclass(frozen=True, slots=True)
class _Described:
    """A probe, what it calls, and the operand that a step would have just made: none where that is a list or large."""

    probe: Probe
    call: Call
    made: torch.Tensor | None


def timed(probes: Sequence[Probe], device: torch.device, effort: Effort = THOROUGH) -> list[Timed]:
    """The median seconds of each over rounds, described by the last that it dispatches to, and behind them a view."""
    found = [_described(probe) for probe in probes]
    seconds: list[list[float]] = [[] for _ in probes]
    views: list[float] = []
    mixed = random.Random(0)
    places = mixed.sample(range(len(probes)), len(probes))
    little = _decks([place for place in places if found[place].call.bytes <= LITTLE_BYTES], found)
    for deck in (*little, [place for place in places if found[place].call.bytes > LITTLE_BYTES]):
        budget_s = effort.budget_s / (len(little) if deck in little else 1)
        begin, rounds = time.perf_counter(), 0
        while rounds < effort.least_rounds or (rounds < MOST_ROUNDS and time.perf_counter() - begin < budget_s):
            mixed.shuffle(deck)
            _round([found[place] for place in deck], [seconds[place] for place in deck], views, device)
            rounds += 1
    points = [Timed(one.call, statistics.median(runs)) for one, runs in zip(found, seconds, strict=True)]
    return [*points, Timed(Call(VIEW, "", (), 0, 0), statistics.median(views))]


def _described(probe: Probe) -> _Described:
    with torch.no_grad(), Trace() as trace:
        probe()
    first = trace.last[0] if trace.last else None
    made = first if isinstance(first, torch.Tensor) and first.is_floating_point() else None
    small = made is not None and made.numel() * made.element_size() <= LITTLE_BYTES
    return _Described(probe, trace.found[-1], made if small else None)


def _decks(places: Sequence[int], found: Sequence[_Described]) -> list[list[int]]:
    """The same in lists, each of calls that together move about what a step of a small model does."""
    decks: list[list[int]] = [[]]
    bytes_ = 0
    for place in places:
        if bytes_ > STEP_BYTES:
            decks.append([])
            bytes_ = 0
        decks[-1].append(place)
        bytes_ += found[place].call.bytes
    return decks


def _round(
    probes: Sequence[_Described], seconds: Sequence[list[float]], views: list[float], device: torch.device
) -> None:
    """One call of each, with two views behind it, as a module's operands are turned and cut between its kernels."""
    now, x = clock(device), torch.zeros(4, 8, device=device)
    with torch.no_grad():
        for one, taken in zip(probes, seconds, strict=True):
            if one.made is not None:
                one.made.mul_(1)
            taken.append(_once(one.probe, device, _repeats(one.probe, device)))
            start = now()
            x.view([32])
            x.view([8, 4])
            views.append((now() - start) / 2)


def _repeats(call: Probe, device: torch.device) -> int:
    """On a GPU, where calls queue up, so many that waiting for the last of them does not show; on a CPU one."""
    return max(1, min(64, int(2e-4 / max(1e-7, _once(call, device, 1))))) if device.type == "cuda" else 1


def _once(call: Probe, device: torch.device, repeat: int) -> float:
    now = clock(device)
    start = now()
    for _ in range(repeat):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (now() - start) / repeat


Calls = Iterator[Probe]


def _products(device: torch.device, dtype: torch.dtype, effort: Effort) -> Calls:
    """Products with either operand turned, as the gradients have them; shapes on a grid, flat and deep ones too."""
    shapes = [(m, n, k) for m in SIDES for n in SIDES for k in SIDES]
    shapes += [(256, VOCABULARY, 256), (VOCABULARY, 256, 256), (256, 256, VOCABULARY)]
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
    sizes = ((8, 32, 32), (64, 32, 32), (8, 128, 64), (64, 128, 32), (8, 512, 64), (32, 256, 64), (2, 2048, 64))
    for heads, length, width in sizes:
        yield from _attended(device, dtype, heads, length, length, width)
    for heads, length, keys, width in ((8, 32, 128, 32), (8, 128, 512, 64), (2, 256, 2048, 64), (2, 1024, 2048, 64)):
        yield from _attended(device, dtype, heads, length, keys, width)


def _attended(device: torch.device, dtype: torch.dtype, heads: int, length: int, keys: int, width: int) -> Calls:
    """Where there are more keys than queries (token slices behind others), a mask says what a query sees."""
    forward = aten._scaled_dot_product_flash_attention_for_cpu.default
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    q, dy = (torch.randn(1, heads, length, width, device=device).to(dtype) for _ in range(2))
    k, v = (torch.randn(1, heads, keys, width, device=device).to(dtype) for _ in range(2))
    causal = keys == length
    unseen = torch.full((length, keys), float("-inf"), device=device).triu(keys - length + 1)
    mask = {} if causal else {"attn_mask": unseen.to(dtype)}
    yield lambda: forward(q, k, v, 0.0, causal, **mask)
    y, lse = forward(q, k, v, 0.0, causal, **mask)
    yield lambda: backward(dy, q, k, v, y, lse, 0.0, causal, **mask)


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


FAMILIES: tuple[Callable[[torch.device, torch.dtype, Effort], Calls], ...] = (
    _elementwise,
    _norms,
    _attention,
    _optimizer,
    _batched,
    _products,
)
