"""Which operand of a node is the global start of which dim.

In: a node whose operator takes offsets (index, random, gaussian, rotary, attention). Out: dim -> operand. Whoever cuts
a dim (partition, token slices, microbatches) shifts exactly these operands.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.types import Dim, Node
from . import attributes


def _trailing(node: Node, *names: str) -> Mapping[Dim, int]:
    """The last operands are the starts of these formals, in order."""
    dims = [d for name in names for d in attributes.dims(node.attrs, name)]
    return {d: len(node.uses) - len(dims) + i for i, d in enumerate(dims)}


def start_operands(node: Node) -> Mapping[Dim, int]:
    """For each dim whose position the node asks for, the operand that says where this part of it starts."""
    match node.op:
        case "index":
            return {attributes.dim(node.attrs, "dim"): 0}
        case "random" | "gaussian":
            return {d: 2 + i for i, d in enumerate(node.outs[0].dims)}
        case "rotary" | "rotary_backward":
            return _trailing(node, "T")
        case "attention" | "attention_backward" if node.attrs["mask"] == "causal":
            return _trailing(node, "T", "S")
        case _:
            return {}
