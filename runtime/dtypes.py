"""The names of element types in a program, as torch's types."""

from __future__ import annotations

from types import MappingProxyType

import torch

TORCH_DTYPES = MappingProxyType(
    {
        "bool": torch.bool,
        "u8": torch.uint8,
        "i32": torch.int32,
        "i64": torch.int64,
        "bf16": torch.bfloat16,
        "f16": torch.float16,
        "f32": torch.float32,
        "f64": torch.float64,
    }
)


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a program's name for it."""
    assert name in TORCH_DTYPES, f"no element type {name!r}"
    return TORCH_DTYPES[name]
