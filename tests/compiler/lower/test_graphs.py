"""Random graphs, forward, backward and descent, lowered and run: what the reference interpreter gives."""

from __future__ import annotations

from generators.graphs import graphs
from hypothesis import given, settings
from oracles.lowered import doubled, run_lowered
from oracles.properties import with_descent
from oracles.values import assert_close, leaf_values, run
from partita.compiler.ir.graph import Graph
from partita.compiler.ops.registry import REGISTRY
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.inline import Inline

TOLERANCE = 1e-9


def lowered_as_interpreted(graph: Graph) -> None:
    values = leaf_values(graph)
    wanted = run(graph, values)
    outputs, store = run_lowered(doubled(graph), values)
    written = {name: store[name] for name in wanted if name not in outputs}
    assert_close({**outputs, **written}, wanted, TOLERANCE)


def covered(graph: Graph) -> Graph:
    """With the bodies of what no fused kernel computes."""
    return Inline()(graph) if any(not REGISTRY[node.op].covers(node) for node in graph) else graph


@settings(max_examples=25)
@given(graphs())
def test_a_forward_graph_keeps_its_values(graph: Graph) -> None:
    lowered_as_interpreted(covered(graph))


@settings(max_examples=25)
@given(graphs())
def test_a_backward_graph_keeps_its_values(graph: Graph) -> None:
    lowered_as_interpreted(Differentiate()(covered(graph)))


@settings(max_examples=15)
@given(graphs(batch=4))
def test_a_step_writes_its_parameters(graph: Graph) -> None:
    lowered_as_interpreted(with_descent(Differentiate()(covered(graph))))
