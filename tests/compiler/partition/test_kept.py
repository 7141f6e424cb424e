"""What a build keeps of its layout: all of the machines that it was priced on."""

from __future__ import annotations

from dataclasses import MISSING, fields

from generators.graphs import graphs
from hypothesis import given, settings
from oracles.properties import at_level
from partita.compiler.cost.cluster import H100_NODES, Cluster, Level, Link, Message
from partita.compiler.cost.host import Host
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import LOSS
from partita.compiler.partition.decide import decide
from partita.compiler.partition.kept import asked_again, files


@settings(max_examples=3, deadline=None)
@given(graphs(most=2))
def test_nothing_of_a_cluster_is_lost(graph: Graph) -> None:
    pair = (Level(2, Link(1e9, 1e-5)),)
    message = Message("all_reduce", 2, 1 << 20, 0.001)
    cluster = Cluster(H100_NODES.machine, 1 << 30, pair, (message,), Host(1e9, 2e9), 1, 1 << 20)
    usual = [f.name for f in fields(Cluster) if f.default is not MISSING and getattr(cluster, f.name) == f.default]
    assert not usual, f"a loss of {usual} would not be seen"
    kept = asked_again(files(decide(at_level(graph, LOSS), Mesh((("tensor", 2),)), cluster)))
    assert kept.program.prices.cluster == cluster
