"""What a call of a kernel is, for whoever times it or foretells its time: its name, type, sizes, operations and bytes.

In: an operator of aten with its arguments and results, which may be on the meta device. Out: a `Call`. What is run and
what is foretold are described here alike; views, which move nothing, are one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from .call import Call

VIEW = "view"
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv"})
MAKES_NOTHING = frozenset({"empty", "empty_like", "new_empty", "empty_strided"})
NORMS = frozenset({"native_layer_norm", "native_layer_norm_backward"})
ROWWISE = frozenset({"_log_softmax", "_softmax", "_softmax_backward_data", "_log_softmax_backward_data"})
SHORT = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float64: "f64"}
BACKWARD_PRODUCTS = 5  # of attention, where the forward has two: the scores again, dv, dp, dq, dk


def call_of(operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Call:
    """The description of one call of an aten operator. What writes over memory that was there ends in `_`."""
    name = operator.overloadpacket.__name__.rstrip("_")
    given, made = list(tensors((*args, *kwargs.values()))), list(tensors((result,)))
    dtype = next((SHORT[t.dtype] for t in (*given, *made) if t.dtype in SHORT), "f32")
    if operator.is_view or name in MAKES_NOTHING or name in ("_unsafe_view", "detach", "alias", "lift_fresh"):
        return Call(VIEW, "", (), 0, 0)
    moved = sum(t.numel() * t.element_size() for t in (*given, *made))
    if name in PRODUCTS:
        first = 0 if name in ("mm", "bmm", "mv") else 1  # else what is added to stands in front
        return _product(args[first], args[first + 1], dtype, moved)
    if "scaled_dot_product" in name:
        return _attention(name, args, given, dtype, moved)
    written = _writes(operator)
    if name in ("gather", "scatter"):
        return Call(name, dtype, (args[2].numel(),), args[2].numel(), 3 * args[2].numel() * given[0].element_size())
    elements = max((t.numel() for t in (*given, *made)), default=1)
    if name == "embedding":
        return Call(name, dtype, (made[0].numel(),), 0, 2 * made[0].numel() * made[0].element_size())
    if name in ("index_add", "embedding_dense_backward"):
        source = given[-1] if name == "index_add" else given[0]
        return Call(name, dtype, (source.numel(),), source.numel(), 3 * source.numel() * source.element_size())
    if name.startswith("_fused_"):
        first = [t for t in cast("Sequence[object]", args[0]) if isinstance(t, torch.Tensor)]
        total = sum(t.numel() for t in first)
        return Call(name, dtype, (total, len(first)), 12 * total, 2 * moved)
    if name in NORMS or name in ROWWISE:
        columns = given[0].shape[-1] if given[0].ndim else 1
        return Call(name, dtype, (given[0].numel() // max(1, columns), columns), 5 * elements, moved)
    return Call(f"{name}_" if written else name, dtype, (elements,), elements, moved)


def _writes(operator: OpOverload) -> bool:
    """Whether an operator writes into an argument, as its schema says."""
    schema = operator._schema  # pyright: ignore[reportPrivateUsage]
    return any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)


def _product(a: torch.Tensor, b: torch.Tensor, dtype: str, moved: int) -> Call:
    batch = a.shape[0] if a.ndim == 3 else 1
    m, k = (a.shape[-2], a.shape[-1]) if a.ndim > 1 else (1, a.shape[-1])
    n = b.shape[-1] if b.ndim > 1 else 1
    turned = "".join("t" if t.ndim > 1 and t.stride(-1) != 1 and t.shape[-1] > 1 else "n" for t in (a, b))
    name = "matmul" if turned == "nn" else f"matmul.{turned}"
    return Call(name, dtype, (batch, m, n, k), 2 * batch * m * n * k, moved)


def _attention(name: str, args: Sequence[Any], given: Sequence[torch.Tensor], dtype: str, moved: int) -> Call:
    backward = "backward" in name
    q, k = (given[1], given[2]) if backward else (given[0], given[1])
    heads, queries, keys, width = math.prod(q.shape[:-2]), q.shape[-2], k.shape[-2], q.shape[-1]
    causal = any(arg is True for arg in args)
    kernel = f"attention{'_backward' if backward else ''}{'.causal' if causal else ''}"
    products = BACKWARD_PRODUCTS if backward else 2
    return Call(kernel, dtype, (heads, queries, keys, width), 2 * products * heads * queries * keys * width, moved)


def tensors(values: object) -> Iterable[torch.Tensor]:
    """The tensors in nested lists and tuples."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in cast("Sequence[object]", values):
            yield from tensors(value)


class Trace(TorchDispatchMode):
    """Within it, every call of aten is written down, on whatever device it runs; of the last one the arguments too."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Call] = []
        self.last: Sequence[Any] = ()

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.found.append(call_of(func, args, kwargs or {}, result))
        self.last = args
        return result


def traced(call: Callable[[], object]) -> list[Call]:
    """The calls of aten that a function makes."""
    with torch.no_grad(), Trace() as trace:
        call()
    return trace.found
