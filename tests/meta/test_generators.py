"""The generator of graphs reaches every differentiable operator, every role, and the odd shapes that it promises."""

from __future__ import annotations

from generators.graphs import TEMPLATES, graphs
from hypothesis import given, settings
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS
from partita.compiler.ops.collectives import COLLECTIVE
from partita.compiler.ops.definition import NotDifferentiable, Role
from partita.compiler.ops.registry import REGISTRY
from partita.compiler.passes import check

# Operators of the backward and of the update; leaves that no template makes; what only a mesh's graphs hold, which
# `tests/compiler/partition` draws.
_NOT_FORWARD = frozenset({"accumulate", "state", "assign", "adamw", "foreign"}) | {one.name for one in COLLECTIVE}


def test_every_differentiable_operator_and_role_is_reached() -> None:
    ops: set[str] = set()
    roles: set[Role] = set()
    shapes: set[str] = set()

    for template in TEMPLATES:

        @settings(max_examples=6)
        @given(graphs(batch=4, only=[template]))
        def collect(graph: Graph) -> None:
            check(graph, LOSS, "a generated graph")
            for node in graph:
                ops.add(node.op)
                roles.update(REGISTRY[node.op].roles(node).values())
            shapes.update(_shapes(graph))

        collect()
    wanted = {name for name, one in REGISTRY.items() if not isinstance(one.gradient, NotDifferentiable)} - _NOT_FORWARD
    assert wanted <= ops, f"never drawn: {sorted(wanted - ops)}"
    assert roles >= {Role.MAP, Role.SUM, Role.MAX, Role.GATHER, Role.WHOLE}
    assert shapes >= {"size 1", "prime size", "fan-out", "rename", "tied", "scalar", "body"}


def _shapes(graph: Graph) -> set[str]:
    """What is remarkable about a graph."""
    found: set[str] = set()
    for dim in graph.dims().values():
        found |= {"size 1"} if dim.size == 1 else {"prime size"} if dim.size in {2, 3, 5, 7} else set()
    for node in graph:
        users = graph.users(node.id)
        found |= {"fan-out"} if len(users) > 1 else set()
        found |= {"tied"} if len(users) > 1 and node.op == "parameter" else set()
        found |= {"rename"} if any(edge.use.dims != node.outs[edge.use.output].dims for edge in users) else set()
        found |= {"scalar"} if node.op == "parameter" and not node.outs[0].dims else set()
        found |= {"body"} if node.body else set()
    return found
