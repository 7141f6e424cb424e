"""What messages take: the formulas of the literature, level by level, and what was timed in their place."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.cost.cluster import H100_NODES, Level, Link, Message, collective_s
from partita.compiler.cost.table import link_of
from partita.compiler.ir.layout import Mesh

INSIDE, BETWEEN = (level.link for level in H100_NODES.levels)
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
links = st.builds(Link, st.floats(1e8, 1e12), st.floats(1e-6, 1e-3))


def on(op: str, bytes_: float, mesh: Mesh, axis: str) -> float:
    return H100_NODES.collective_s(op, bytes_, mesh, axis)


# Thakur, Rabenseifner and Gropp 2005: α for a message, n/β for its bytes
def test_one_level_is_as_the_literature_has_it() -> None:
    mesh, n = Mesh((("tensor", 8),)), 1e9
    a, b = INSIDE.latency_s, INSIDE.bandwidth_bytes_per_s
    assert on("all_gather", n, mesh, "tensor") == pytest.approx(3 * a + 7 / 8 * n / b)
    assert on("reduce_scatter", n, mesh, "tensor") == pytest.approx(3 * a + 7 / 8 * n / b)
    assert on("all_reduce", n, mesh, "tensor") == pytest.approx(6 * a + 7 / 4 * n / b)
    assert on("all_to_all", n, mesh, "tensor") == pytest.approx(7 * a + 7 / 8 * n / b)


def test_axes_lie_on_levels_the_last_innermost() -> None:
    mesh = Mesh((("data", 8), ("tensor", 8)))
    assert H100_NODES.spans(mesh, "tensor") == (Level(8, INSIDE),)
    assert H100_NODES.spans(mesh, "data") == (Level(8, BETWEEN),)
    assert H100_NODES.spans(Mesh((("data", 64),)), "data") == (Level(8, INSIDE), Level(8, BETWEEN))
    assert H100_NODES.spans(Mesh((("data", 8), ("tensor", 2))), "data") == (Level(4, INSIDE), Level(2, BETWEEN))
    assert H100_NODES.spans(Mesh((("tensor", 3),)), "tensor") == (Level(3, INSIDE),)


def test_across_nodes_each_port_sends_its_share() -> None:
    """64 devices gather n: 1/8 of it over each port, then all of it inside of the node."""
    mesh, n = Mesh((("data", 64),)), 1e9
    wire = 7 / 64 * n / BETWEEN.bandwidth_bytes_per_s + 7 / 8 * n / INSIDE.bandwidth_bytes_per_s
    assert on("all_gather", n, mesh, "data") == pytest.approx(wire + 3 * (BETWEEN.latency_s + INSIDE.latency_s))
    away = 56 / 64 * n / BETWEEN.bandwidth_bytes_per_s + 7 / 64 * n / INSIDE.bandwidth_bytes_per_s
    assert on("all_to_all", n, mesh, "data") == pytest.approx(away + 56 * BETWEEN.latency_s + 7 * INSIDE.latency_s)


@given(st.lists(st.integers(2, 9), min_size=1, max_size=3), links, st.floats(1, 1e10), st.sampled_from(KINDS))
def test_what_each_device_sends_does_not_depend_on_levels(members: list[int], link: Link, n: float, op: str) -> None:
    """Over links without latency, however their levels are told."""
    free, devices = Link(link.bandwidth_bytes_per_s, 0.0), 1
    for count in members:
        devices *= count
    one = collective_s(op, n, (Level(devices, free),))
    assert collective_s(op, n, tuple(Level(count, free) for count in members)) == pytest.approx(one)


SIZES = tuple(1 << k for k in range(8, 26, 3))


@given(st.builds(Link, st.floats(1e8, 1e10), st.floats(1e-6, 1e-4)))
def test_the_link_that_made_the_times_is_found(link: Link) -> None:
    made = [Message(kind, 2, n, 0.0).by_links_s(link) for kind in KINDS for n in SIZES]
    timed = [Message(k, 2, n, t) for (k, n), t in zip(((k, n) for k in KINDS for n in SIZES), made, strict=True)]
    found = link_of(timed)
    assert found.latency_s == pytest.approx(link.latency_s, rel=1e-3, abs=2e-7)
    assert found.bandwidth_bytes_per_s == pytest.approx(link.bandwidth_bytes_per_s, rel=1e-2)


@given(st.lists(st.floats(1e-6, 1e-1), min_size=len(SIZES), max_size=len(SIZES)))
def test_what_was_timed_is_what_is_priced(seconds: list[float]) -> None:
    messages = tuple(Message("all_gather", 2, n, t) for n, t in zip(SIZES, seconds, strict=True))
    cluster = type(H100_NODES)(H100_NODES.machine, 1 << 30, (Level(2, link_of(messages)),), messages)
    mesh = Mesh((("data", 2),))
    for message in messages:
        assert cluster.collective_s("all_gather", message.bytes_, mesh, "data") == pytest.approx(message.seconds)
    for low, high in pairwise(messages):
        between = cluster.collective_s("all_gather", (low.bytes_ * high.bytes_) ** 0.5, mesh, "data")
        spread = high.by_links_s(cluster.levels[0].link) / low.by_links_s(cluster.levels[0].link)
        assert between <= max(low.seconds, high.seconds) * max(1.0, spread)
