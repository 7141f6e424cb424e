"""What inline, offsets, simplify and rematerialize are there for, each seen in the structure of a small graph."""

from __future__ import annotations

from generators.bodies import body_of
from generators.models import deep_stack
from oracles.properties import at_level
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.passes import run_passes
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.passes.simplify import Simplify

B, D, F = Dim("batch", 4), Dim("D", 6), Dim("F", 5)


def network(activation: str = "silu", drop: bool = False) -> Graph:
    """sum(f(x w) v), with dropout behind f if asked for."""
    b = Builder(GraphBuilder("network"))
    x = b.input("x", (B, D), DType.F32)
    w, v = b.parameter("w", (D, F), DType.F32), b.parameter("v", (F,), DType.F32)
    h = b.one("dot", x, w, over=(D,), hint="h")
    body = body_of(activation, (h,), {})
    if body is not None:
        b.graph.body(activation, body)
    y = b.one(activation, h, body=activation if body is not None else None, hint="y")
    if drop:
        starts = [b.one("start", dim=dim) for dim in (B, F)]
        noise = b.one("random", b.clock("seed"), b.clock("step"), *starts, dims=(B, F), dtype=DType.F32, key="drop")
        keep = b.one("cast", b.one("ge", noise, b.constant(0.5, DType.F32)), to=DType.F32)
        y = b.one("mul", y, keep, hint="dropped")
    b.output("loss", b.one("sum", b.one("dot", y, v, over=(F,)), over=(B,)))
    return b.finish()


def test_inline_puts_the_body_in_and_keeps_whose_it_is() -> None:
    graph = Inline(all=True)(network())
    assert not graph.nodes("silu") and not graph.bodies
    assert [node.id for node in graph.nodes("sigmoid")] == ["y.sigmoid"]
    assert Inline()(network()) == network()


def test_what_a_body_brings_takes_no_id_that_a_later_node_has() -> None:
    """A gradient is called after its value, `grad/y`, and so may another's part be, `grad/y.sigmoid`."""
    b = Builder(GraphBuilder("network"))
    x = b.input("x", (B, F), DType.F32)
    body = body_of("silu", (x,), {})
    assert body is not None
    b.graph.body("silu", body)
    y = b.one("silu", x, body="silu", hint="y")
    b.output("loss", b.one("sum", b.one("neg", y, hint="y.sigmoid"), over=(B, F)))
    graph = Inline(all=True)(b.finish())
    assert [node.id for node in graph.nodes("sigmoid")] == ["y.sigmoid.1"]


def test_offsets_knows_all_starts_but_those_of_cut_dims() -> None:
    graph = Offsets(cut=("batch",))(network(drop=True))
    assert [node.attrs["dim"] for node in graph.nodes("start")] == [B]


def test_the_activations_input_is_kept_and_not_its_output() -> None:
    graph = run_passes(at_level(network(), GRADIENT), [Simplify(), Rematerialize()], GRADIENT)
    read = {use.node for node in graph.nodes(where=lambda node: node.phase is Phase.BACKWARD) for use in node.uses}
    assert "h" in read and "y" not in read
    order = [node.id for node in graph]
    assert order[order.index("again/y") + 1] in {edge.consumer for edge in graph.users("again/y")}


def test_no_mask_is_kept_and_its_clone_draws_the_same() -> None:
    graph = Rematerialize()(at_level(network(drop=True), GRADIENT))
    again = [node for node in graph.nodes("random") if node.phase is Phase.BACKWARD]
    assert [node.attrs["key"] for node in again] == ["drop"]
    kept = {use.node for node in graph.nodes(where=lambda node: node.phase is Phase.BACKWARD) for use in node.uses}
    assert not kept & {"random", "ge", "cast", "dropped"}


def test_nothing_is_cloned_by_the_policy_none() -> None:
    graph = at_level(network(), GRADIENT)
    assert Rematerialize("none")(graph) == graph


def test_layers_stay_alike_through_simplify() -> None:
    graph = run_passes(at_level(deep_stack(layers=4), GRADIENT), [Simplify()], GRADIENT)
    counts = {at: sum(node.layer is not None and node.layer.index == at for node in graph) for at in range(1, 3)}
    assert counts[1] == counts[2]


def test_the_parameters_of_a_graph_are_its_signature() -> None:
    builder = GraphBuilder("unused")
    builder.extend(network())
    builder.output("loss", builder["x"].out())
    assert {node.op for node in Simplify()(builder.finish())} == {"input", "parameter"}
