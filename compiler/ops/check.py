"""Checks one node by its operator's declaration: what the graph's verifier cannot know, standing below the operators.

In: a node. Out: what is wrong with it in words: no such operator, attributes missing or not declared, operands that do
not fit, results of other types than the operator's rule gives.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.types import Node, TensorType
from .definition import TypeRuleError
from .registry import REGISTRY
from .shapes import show


def check_node(node: Node) -> Iterator[str]:
    """Everything that the operator's declaration has against the node."""
    definition = REGISTRY.get(node.op)
    if definition is None:
        yield f"no operator `{node.op}`"
        return
    missing = [name for name in definition.attrs if name not in node.attrs]
    unknown = [name for name in node.attrs if name not in definition.attrs]
    if missing or unknown:
        yield from (f"{node.op} lacks its attribute {name}" for name in missing)
        yield from (f"{node.op} has no attribute {name}" for name in unknown)
        return
    try:
        outs = definition.infer(tuple(use.type for use in node.uses), node.attrs)
    except TypeRuleError as error:
        yield f"{node.op}: {error.message}"
        return
    if outs != node.outs:
        yield f"{node.op} gives {_types(outs)}, not {_types(node.outs)}"


def _types(types: tuple[TensorType, ...]) -> str:
    return "(" + ", ".join(f"{one.dtype.value}{show(one.dims)}" for one in types) + ")"
