"""What one application of an operator takes: the counting that the families share.

Bytes are each operand once and each result once, in the types of the node. FLOPs are the operator's own business:
contractions are exact (a multiply-add is two), elementwise operators count one a result, a kernel function what its
docstring says. Views move nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.types import Node, TensorType
from .definition import Cost
from .shapes import elements


def bytes_of(tensor: TensorType) -> int:
    """The memory of one tensor."""
    return elements(tensor.dims) * tensor.dtype.itemsize_bytes


def read_bytes(node: Node) -> int:
    """All operands, a value that is read twice counted once."""
    return sum({u.value: bytes_of(u.type) for u in node.uses}.values())


def written_bytes(node: Node) -> int:
    """All results."""
    return sum(bytes_of(t) for t in node.outs)


def streamed(node: Node, flops: int, workspace_bytes: int = 0) -> Cost:
    """Operands in, results out, and so many FLOPs between."""
    return Cost(flops, read_bytes(node), written_bytes(node), workspace_bytes)


def per_result(each: int) -> Callable[[Node], Cost]:
    """`each` operations for each element of the first result."""
    return lambda node: streamed(node, each * elements(node.outs[0].dims))


def per_element(each: int, operand: int = 0) -> Callable[[Node], Cost]:
    """`each` operations for each element of an operand."""
    return lambda node: streamed(node, each * elements(node.uses[operand].dims))


def free(node: Node) -> Cost:
    """A view, a leaf or a scalar that the runtime gives: nothing to compute and nothing to move."""
    return Cost(0, 0, 0, 0)
