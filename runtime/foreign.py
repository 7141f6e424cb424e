"""Calls of kernels of packages that the user allowed (`folder.load` asks), by generated modules.

In: `package:function`, contiguous operands, what the spec says of the results. Out: the results, checked, in memory of
their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import torch

from .fault import RuntimeFault


def foreign(
    name: str, operands: Sequence[torch.Tensor], shapes: Sequence[Sequence[int]], dtype: torch.dtype, /, **options: Any
) -> list[torch.Tensor]:
    """What `package:function` makes of contiguous operands: tensors of these shapes, each in memory of its own.

    On the meta device nothing foreign runs. Raises `RuntimeFault` E0525 for a kernel that is not there or that gives
    something else than the spec says.
    """
    if all(operand.is_meta for operand in operands):
        return [torch.empty(list(shape), dtype=dtype, device="meta") for shape in shapes]
    found = _resolved(name)(*operands, **options)
    results = list(cast("Sequence[Any]", found)) if isinstance(found, tuple | list) else [found]
    if len(results) != len(shapes):
        raise RuntimeFault("E0525", f"{name} gives {len(results)} tensors, not {len(shapes)}")
    return [_checked(name, one, shape, dtype, operands) for one, shape in zip(results, shapes, strict=True)]


def _resolved(name: str) -> Any:
    package, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(package), function)
    except (ImportError, AttributeError) as fault:
        raise RuntimeFault("E0525", f"there is no kernel {name}: {fault}", "install the package") from fault


def _checked(
    name: str, result: Any, shape: Sequence[int], dtype: torch.dtype, operands: Sequence[torch.Tensor]
) -> torch.Tensor:
    if not isinstance(result, torch.Tensor):
        raise RuntimeFault("E0525", f"{name} gives a {type(result).__name__}, not a tensor")
    if list(result.shape) != list(shape) or result.dtype != dtype:
        wanted = f"{list(shape)} {dtype}"
        raise RuntimeFault("E0525", f"{name} gives {list(result.shape)} {result.dtype}, not {wanted}")
    shared = result.untyped_storage().data_ptr() in {one.untyped_storage().data_ptr() for one in operands}
    return result.clone() if shared and result.numel() else result.contiguous()
