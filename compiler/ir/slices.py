"""How what belongs to a token slice is named: `T/slice.2` and `attn.q/slice.2` are slice 2's own; `S/slice.to2` goes up
to its end.

In: a node of a graph whose rows are cut into slices (`passes/token_slices.py`). Out: the slice that it computes for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .types import Dim, Node, TensorType, Use, dims_in

MARK = "/slice."
_MARKED = re.compile(r"/slice\.(to)?(\d+)")


def own(name: str, number: int) -> str:
    """The name of slice `number`'s own part."""
    return f"{name}{MARK}{number}"


def up_to(name: str, number: int) -> str:
    """The name of everything up to the end of slice `number`."""
    return f"{name}{MARK}to{number}"


def marked(name: str) -> tuple[int, bool] | None:
    """The slice that a name belongs to, and whether it is everything up to its end."""
    found = _MARKED.search(name)
    return None if found is None else (int(found[2]), found[1] is not None)


def dims_of(node: Node) -> Iterable[Dim]:
    """Every dim of a node: of its operands, its results and its attributes."""
    for tensor in (*node.uses, *node.outs):
        yield from tensor.dims
    for value in node.attrs.values():
        yield from dims_in(value)


def slice_of(node: Node) -> int | None:
    """The slice that a node computes for: the last that it reads; where it reads none (what cuts an input), the first
    that it gives; None where it is of none."""
    reads, gives = _numbers(node.uses), _numbers(node.outs)
    return max(reads) if reads else min(gives, default=None)


def _numbers(tensors: Iterable[TensorType | Use]) -> list[int]:
    return [mark[0] for tensor in tensors for dim in tensor.dims if (mark := marked(dim.name))]
