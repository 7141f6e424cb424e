"""What kernels allocate inside beside their results: one table, each formula with its source.

The meta device runs no kernel, so it sees none of this. `workspace_bytes` gives, for one fx node, the bytes above its
results at its highest moment. Measured with allocator events on the CPU (torch 2.13, which counts what the calling
thread allocates); what MKL and oneDNN take for themselves never passes the allocator and counts neither here nor there.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from ...runtime.parcels import parcels, whole_bytes
from ...runtime.program import Collective
from ..cost.packing import packed_bytes
from ..ir.types import DType
from .emit import storage

aten = torch.ops.aten
Formula = Callable[[Sequence[Any], int], int]


def workspace_bytes(node: fx.Node, threads: int) -> int:
    """Bytes that the node's kernel holds beside its results. A Python kernel is run on the meta device to see; what a
    foreign one takes for itself nobody knows."""
    args = cast("Sequence[Any]", fx.map_arg(node.args, lambda used: used.meta["val"]))
    if isinstance(node.target, OpOverload):
        return _bytes(node.target, args, threads)
    with torch.no_grad(), _Trace(threads) as trace:
        result = cast("Callable[..., Any]", node.target)(*args, **node.kwargs)
    results = result if isinstance(result, tuple | list) else (result,)
    return max(0, trace.peak - sum(trace.alive.get(storage(tensor), 0) for tensor in results))


def staging_bytes(sent: Collective, devices: int, gloo: bool) -> int:
    """Bytes beside operands and results that a collective over an axis of `devices` holds until it is waited for.

    `runtime/collectives.py` sends memory in one piece, its cut axis in front: what lies otherwise is copied, and so are
    the members of a bucket that share a message. Those of an all-reduce stay there: no staging, but their results.
    """
    item = DType(sent.dtype).itemsize_bytes
    return sum(_staged(sent, members, devices, gloo, item) for members in parcels(sent, item, gloo))


def _staged(sent: Collective, members: Sequence[int], devices: int, gloo: bool, item: int) -> int:
    """The staging of one message."""
    whole = sum(whole_bytes(sent, at, item) for at in members)
    if sent.kind == "all_reduce":
        return 0
    if sent.kind == "all_to_all":
        (shape,), (dim,), (size,) = sent.shapes, sent.dims, sent.sizes
        rest = math.prod(n for i, n in enumerate(shape) if i not in (dim, sent.join))
        if sent.groups:
            return 2 * math.prod(shape) * item  # at most: how much is sent and comes only the data says
        mine = shape[sent.join] and rest * size * -(-sent.join_size // devices)
        return (mine + math.prod(shape)) * item
    piece = sum(_piece_bytes(sent, at, devices, item) for at in members)
    even = all(size % devices == 0 for size in sent.sizes) or gloo
    copied = len(members) > 1 or any(math.prod(sent.shapes[at][: sent.dims[at]]) > 1 for at in members)
    if sent.kind == "all_gather":  # what is sent, and what comes where it cannot come to its place
        return (piece + whole if copied else 0) + (0 if even else devices * piece)
    terms = (devices - 1) * piece if gloo else piece if copied or not even else 0
    return (whole if copied else 0) + terms + (0 if even else devices * piece)


def _piece_bytes(sent: Collective, at: int, devices: int, item: int) -> int:
    """The largest part of a member."""
    return whole_bytes(sent, at, item) // max(sent.sizes[at], 1) * -(-sent.sizes[at] // devices)


def _bytes(op: OpOverload, args: Sequence[Any], threads: int) -> int:
    formula = TABLE.get(op)
    if formula is not None:
        return formula(args, threads)
    return _operands(op, args)


def _operands(op: OpOverload, args: Sequence[Any]) -> int:
    """Binary elementwise kernels (aten/src/ATen/TensorIterator.cpp, ATen/ScalarOps.h): a number becomes a tensor of 8
    bytes, and on the CPU every operand that is not of the common type is copied in that type."""
    if op.overloadpacket not in ELEMENTWISE or len(args) < 2:
        return 0
    tensors = [arg for arg in args[:2] if isinstance(arg, torch.Tensor)]
    numbers = [arg for arg in args[:2] if not isinstance(arg, torch.Tensor)]
    common = torch.result_type(args[0], args[1])
    wrapped = sum(8 + (0 if common.itemsize == 8 else common.itemsize) for _ in numbers)
    return wrapped + sum(tensor.numel() * common.itemsize for tensor in tensors if tensor.dtype != common)


ELEMENTWISE = frozenset(
    getattr(aten, name + place) for name in ("add", "sub", "mul", "div") for place in ("", "_")
)  # fmt: skip


# ---- attention


def _split(length: int) -> int:
    """Rows of queries that a thread takes at a time (FlashAttentionKernel.cpp, flash_attention_kernel_impl)."""
    return min(length, 256 if length >= 768 else 64 if length >= 192 else 32)


KEYS_AT_A_TIME = 512  # kv_split_size, the same place


def _wide(dtype: torch.dtype) -> int:
    """Bytes of the type in which a kernel accumulates."""
    return max(dtype.itemsize, 4)


def _flash(args: Sequence[Any], threads: int) -> int:
    """A thread's scores, row maxima, row sums and output tile in the wide type, and its scores in a narrow type.

    aten/src/ATen/native/cpu/FlashAttentionKernel.cpp, cpu_flash_attention: `buf`, `buf_reduced`.
    """
    q, k = args[0], args[1]
    rows, keys, dtype = _split(q.shape[2]), min(KEYS_AT_A_TIME, k.shape[2]), q.dtype
    tile = rows * (keys + 2 + q.shape[3]) * _wide(dtype)
    return threads * (tile + (rows * keys * dtype.itemsize if dtype.itemsize < 4 else 0))


def _flash_backward(args: Sequence[Any], threads: int) -> int:
    """A thread's scores and their gradient, both types where narrow; `dsum` of the calling thread; dy, if not dense.

    The same file, cpu_flash_attention_backward: `buf`, `buf_reduced`, `dsum`, `grad_out_contig` (of [B, T, H, K]).
    """
    dy, q, k = args[0], args[1], args[2]
    rows, keys, dtype = _split(q.shape[2]), min(KEYS_AT_A_TIME, k.shape[2]), q.dtype
    element = _wide(dtype) + (dtype.itemsize if dtype.itemsize < 4 else 0)
    copy = 0 if dy.transpose(1, 2).is_contiguous() else dy.numel() * dy.dtype.itemsize
    return threads * 2 * rows * keys * element + rows * _wide(dtype) + copy


# ---- contractions of bfloat16


def _low_product(a: torch.Tensor, b: torch.Tensor, threads: int) -> int:
    if a.dtype is not torch.bfloat16:
        return 0
    return packed_bytes(a.shape[0], b.shape[1], a.shape[1], a.stride(0) == 1 and a.shape[1] > 1, threads)


def _mm(args: Sequence[Any], threads: int) -> int:
    return _low_product(args[0], args[1], threads)


def _addmm(args: Sequence[Any], threads: int) -> int:
    return _low_product(args[1], args[2], threads)


# ---- normalization


def _norm_backward(args: Sequence[Any], threads: int) -> int:
    """Partial sums of the gradients of gain and bias, a row a thread (layer_norm_kernel.cpp, `buffer`)."""
    x, width = args[1], args[2]
    wanted = any(args[7][1:])
    return 2 * threads * torch.Size(width).numel() * x.dtype.itemsize if wanted else 0


# ---- what wants its operands dense


def _dense(*operands: int) -> Formula:
    """Row-major copies of operands that are not so (SoftMax.cpp and others: `contiguous()`)."""

    def formula(args: Sequence[Any], threads: int) -> int:
        loose = [args[i] for i in operands if not args[i].is_contiguous()]
        return sum(tensor.numel() * tensor.dtype.itemsize for tensor in loose)

    return formula


TABLE: Mapping[OpOverload, Formula] = MappingProxyType(
    {
        aten._scaled_dot_product_flash_attention_for_cpu.default: _flash,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _flash_backward,
        aten.native_layer_norm_backward.default: _norm_backward,
        aten.mm.default: _mm,
        aten.addmm.default: _addmm,
        aten.addmm_.default: _addmm,
        aten._softmax.default: _dense(0),
        aten._log_softmax.default: _dense(0),
        aten._softmax_backward_data.default: _dense(0, 1),
    }
)


# ---- kernels written in Python


class _Trace(TorchDispatchMode):
    """The highest sum of the storages that are alive, over a call of several operators."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads = threads
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inside = {storage(arg) for arg in args if isinstance(arg, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor) and storage(tensor) not in inside:
                memory = tensor.untyped_storage()
                if storage(tensor) not in self.alive:
                    self.alive[storage(tensor)] = memory.nbytes()
                    weakref.finalize(memory, self.alive.pop, storage(tensor), None)
        self.peak = max(self.peak, sum(self.alive.values()) + _bytes(func, args, self.threads))
        return result
