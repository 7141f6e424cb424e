"""The properties that every pass and every gradient rule is held to, as functions of a graph.

The tests of passes run them on random graphs; `tests/meta` runs the very same ones on broken passes, to see them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT, LOSS, STEP, Level
from partita.compiler.ir.text import parse_graph, print_graph
from partita.compiler.ir.types import Attr, Node, Phase, TensorType
from partita.compiler.passes import Pass, check
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.microbatch import Microbatch

from .differences import assert_gradients_match_differences
from .torch_graphs import torch_gradients
from .values import Array, assert_close, assert_same_values, leaf_values, run

Property = Callable[[Graph], None]


def at_level(graph: Graph, level: Level) -> Graph:
    """A graph with a loss, brought to the level: differentiated, and with an update where that is asked for."""
    if level in (GRADIENT, STEP):
        graph = Differentiate()(Inline()(graph))
    return with_descent(graph) if level is STEP else graph


def keeps_values(transform: Pass, graph: Graph) -> None:
    """At each level that a pass runs at: sound before and after, the same values, text that reads back, idempotence."""
    for level in (LOSS, GRADIENT, STEP):
        if level not in transform.levels:
            continue
        before = at_level(graph, level) if transform.gives is None else Inline()(at_level(graph, level))
        check(before, level, f"the graph before {transform.name}")
        after = transform(before)
        check(after, transform.gives or level, f"the graph after {transform.name}")
        assert_same_values(before, after, leaf_values(before))
        assert parse_graph(print_graph(after)) == after, "the text reads back as another graph"
        if transform.idempotent:
            assert transform(after) == after, f"{transform.name} changes its own result"


def keeps_gradients(transform: Pass, graph: Graph) -> None:
    """The gradients of what a pass made of a graph with a loss are those of the graph."""
    if LOSS in transform.levels and transform.gives is None and transform(graph).microbatches == 1:
        assert_same_values(at_level(graph, GRADIENT), at_level(transform(graph), GRADIENT), leaf_values(graph))


def gradients_of(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """The gradients by parameter that a differentiated graph gives."""
    return {name[5:]: value for name, value in run(graph, values).items() if name.startswith("grad/")}


def matches_autograd(graph: Graph) -> None:
    """The loss and every gradient are PyTorch's, float64, 1e-10."""
    backward, values = at_level(graph, GRADIENT), leaf_values(graph)
    check(backward, GRADIENT, "the graph after differentiate")
    loss, wanted = torch_gradients(graph, values)
    found = gradients_of(backward, values)
    assert found.keys() == wanted.keys(), "a gradient for each trained parameter"
    assert_close({"loss": run(graph, values)["loss"]}, {"loss": np.asarray(loss)}, 1e-10)
    assert_close(found, wanted, 1e-10)


def matches_differences(graph: Graph) -> None:
    """Every gradient is that of finite differences; `stop` is left out, which no difference sees."""
    if not graph.nodes("stop"):
        values = leaf_values(graph)
        assert_gradients_match_differences(graph, gradients_of(at_level(graph, GRADIENT), values), values)


def parts_add_up(transform: Microbatch, graph: Graph) -> None:
    """The loss, gradients and updates of all microbatches together are those of the whole batch."""
    for level in (LOSS, GRADIENT, STEP):
        whole = at_level(graph, level)
        values = leaf_values(whole)
        parts = transform(whole)
        check(parts, level, "the graph after microbatch")
        assert parts.microbatches == transform.count or "batch" not in graph.dims(), "it says how many there are"
        assert_same_values(whole, parts, values)


def with_descent(graph: Graph) -> Graph:
    """A plain update for tests: p ← p − 0.1 Σ gradient, the sum over microbatches."""
    builder = GraphBuilder(graph.name, graph.microbatches)
    builder.extend(graph)
    for name, use in graph.outputs.items():
        builder.output(name, use)
        if name.startswith("grad/"):
            _descend(builder, builder[name.removeprefix("grad/")], name)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return builder.finish()


def _descend(builder: GraphBuilder, parameter: Node, output: str) -> None:
    use, out = builder.finish().outputs[output], parameter.outs[0]

    def add(
        name: str, op: str, uses: tuple[Node, ...], outs: tuple[TensorType, ...], phase: Phase, **attrs: Attr
    ) -> Node:
        reads = tuple(node.out() for node in uses)
        return builder.add(Node(f"{name}/{parameter.id}", op, reads, outs, attrs, phase))

    source = builder[use.node]
    phase = Phase.BACKWARD if source.phase is Phase.BACKWARD else Phase.FORWARD
    total = builder.add(Node(f"total/{parameter.id}", "accumulate", (use,), (out,), {}, phase))
    rate = add("rate", "constant", (), (TensorType((), out.dtype),), Phase.UPDATE, value=0.1, dims=(), dtype=out.dtype)
    change = add("change", "mul", (total, rate), (out,), Phase.UPDATE)
    value = add("next", "sub", (parameter, change), (out,), Phase.UPDATE)
    node = add("assign", "assign", (value,), (), Phase.UPDATE, target=parameter.id)
    assert replace(node, outs=()) == node, "assign has no result"
