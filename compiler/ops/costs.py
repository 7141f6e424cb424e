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


WIDE_ELEMENTS = 1 << 18  # of a low operand that a kernel of ours has in float32 at a time (`runtime/kernels.py`)


def widened(each: int, operand: int = 0) -> Callable[[Node], Cost]:
    """`each` operations for each element of a matrix-like operand, which a kernel takes some rows at a time: those of a
    low one are wide meanwhile."""

    def cost(node: Node) -> Cost:
        given = node.uses[operand]
        count, columns = elements(given.dims), max(1, given.dims[-1].size or 1) if given.dims else 1
        wide = min(count, max(1, WIDE_ELEMENTS // columns) * columns)
        low = given.dtype.is_float and given.dtype.itemsize_bytes < 4
        return streamed(node, each * count, 4 * wide if low else 0)

    return cost


def free(node: Node) -> Cost:
    """A view, a leaf or a scalar that the runtime gives: nothing to compute and nothing to move."""
    return Cost(0, 0, 0, 0)
