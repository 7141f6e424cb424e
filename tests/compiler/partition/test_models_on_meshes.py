"""Small models as the solver lays them out: every device's own graph, in numpy and lowered, against one device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.meshes import assert_same_on_mesh, laid_at_random
from oracles.virtual import assert_same_lowered
from partita.compiler.devices import factored, partitioned
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.partition.choices import Wishes
from samples.small_models import GROUPED, MIXTURE, sent_to_experts, small_step


def assert_same(step: Graph, mesh: Mesh, wishes: Wishes) -> Graph:
    """As the solver lays it out, all devices compute what one does."""
    decision = partitioned([step], mesh, wishes)
    assert_same_on_mesh(step, decision.graph, decision.mesh)
    assert_same_lowered(step, decision.graph, decision.mesh)
    return decision.graph


ALONE = {"batch": (), "T": ()}


@pytest.mark.parametrize(
    ("heads", "groups", "axes"),
    [(4, 2, (("tensor", 4),)), (6, 2, (("tensor", 6),)), (4, 2, (("data", 2), ("tensor", 4)))],
)
def test_fewer_key_value_heads_than_devices(heads: int, groups: int, axes: tuple[tuple[str, int], ...]) -> None:
    step = small_step(GROUPED.format(heads=heads, groups=groups))
    pins = {"T": (), "H": ("tensor",), "G": ("tensor",)} | ({"batch": ()} if len(axes) == 1 else {})
    mesh, wishes = factored(step, Mesh(axes), Wishes(pins))
    assert wishes.pins["H"] == ("tensor.1", "tensor.2") and wishes.pins["G"] == ("tensor.1",)
    wishes = Wishes({**wishes.pins, "R": ("tensor.2",)})  # so few heads are hardly worth it otherwise
    graph = assert_same(step, mesh, wishes)
    layer = graph["layers.1.attn.y"]
    queries, keys, *_ = (graph[use.node].layouts[use.output].text(use.dims) for use in layer.uses)
    assert "T G:tensor.1 R:tensor.2 K" in queries and "S G:tensor.1 K]" in keys


@pytest.mark.parametrize(
    ("experts", "k", "axes", "batch"),
    [
        (4, 2, (("expert", 2),), 2),
        (5, 2, (("expert", 2),), 4),
        (4, 1, (("expert", 4),), 4),
        (5, 3, (("data", 2), ("expert", 3)), 6),
        (4, 2, (("expert", 2),), 1),
    ],
)
def test_tokens_go_to_their_experts(experts: int, k: int, axes: tuple[tuple[str, int], ...], batch: int) -> None:
    step, mesh = small_step(MIXTURE.format(experts=experts, k=k), batch=batch), Mesh(axes)
    laid = sent_to_experts(step, mesh)
    sent = [node for node in laid.nodes("all_to_all") if len(node.outs[0].dims) == 3]
    assert len(sent) == 8  # out and back, forward and backward, in two layers
    assert_same_on_mesh(step, laid, mesh)
    assert_same_lowered(step, laid, mesh)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.sampled_from(((2,), (3,), (2, 2))),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_layout_of_experts(experts: int, k: int, batch: int, sizes: tuple[int, ...], seed: int) -> None:
    step = small_step(MIXTURE.format(experts=experts, k=min(k, experts - 1)), batch=batch, layers=1)
    mesh = Mesh(tuple(zip(("expert", "data"), sizes, strict=False)))
    laid = laid_at_random(step, mesh, seed)
    assert_same_on_mesh(step, laid, mesh)
    assert_same_lowered(step, laid, mesh)


@pytest.mark.parametrize(
    ("length", "axes"), [(6, (("context", 3),)), (5, (("context", 2),)), (4, (("data", 2), ("context", 2)))]
)
def test_a_sequence_in_parts_sees_all_that_is_before_it(length: int, axes: tuple[tuple[str, int], ...]) -> None:
    """Queries stay where they are, keys and values are gathered, and the causal mask knows where a part begins."""
    step = small_step(GROUPED.format(heads=4, groups=2), length=length)
    graph = assert_same(step, Mesh(axes), Wishes({"T": ("context",), "batch": () if len(axes) == 1 else ("data",)}))
    queries, keys, *_ = (graph[use.node].layouts[use.output].text(use.dims) for use in graph["layers.1.attn.y"].uses)
    assert "T:context" in queries and " S " in keys
