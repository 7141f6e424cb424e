"""Runs a graph on a mesh of devices, laid out at random or as somebody chose, and holds it to one device.

`random_strategies` draws one legal strategy a node; `assert_same_on_mesh` partitions, localizes and runs all devices.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from partita.compiler.interpret_mesh import interpret_mesh
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Coordinate, Mesh
from partita.compiler.ir.levels import LOCAL, PARTITIONED
from partita.compiler.ir.text import parse_graph, print_graph
from partita.compiler.ir.types import Dims
from partita.compiler.partition.relayout import Move, Paths
from partita.compiler.partition.rewrite import rewrite
from partita.compiler.partition.strategies import Strategy, is_legal, options
from partita.compiler.passes import check
from partita.compiler.passes.localize import localize, starts

from .values import Array, error, leaf_values, microbatches_of, run, spread


def count_messages(move: Move, dims: Dims, itemsize: int) -> float:
    """A price without a machine: what sends messages costs one, what does not nearly nothing."""
    return 1e-3 if move.op in ("shard", "partial", "spread") else 1.0


def random_strategies(graph: Graph, mesh: Mesh, seed: int) -> dict[str, Strategy]:
    """One legal strategy for every node; the replicated one is drawn as rarely as any other."""
    rng = np.random.default_rng(seed)
    found: dict[str, Strategy] = {}
    for node in graph:
        choices = options(node)
        whole = (choices[0],) * len(mesh.axes)
        drawn = (tuple(choices[int(i)] for i in rng.integers(0, len(choices), len(mesh.axes))) for _ in range(8))
        found[node.id] = next((strategy for strategy in drawn if is_legal(node, strategy, mesh)), whole)
    return found


def laid_at_random(graph: Graph, mesh: Mesh, seed: int) -> Graph:
    """The graph partitioned by strategies drawn from a seed."""
    return rewrite(graph, mesh, random_strategies(graph, mesh, seed), Paths(mesh, count_messages), frozenset())


def local_graphs(graph: Graph, mesh: Mesh) -> dict[Coordinate, tuple[Graph, dict[str, int]]]:
    """Every device's graph, checked, and where its parts begin."""
    found: dict[Coordinate, tuple[Graph, dict[str, int]]] = {}
    for c in mesh.coordinates():
        local = localize(graph, mesh, c)
        check(local, LOCAL, f"the graph of device {c}")
        found[c] = (local, starts(local, graph, mesh, c))
    return found


def run_on_mesh(partitioned: Graph, mesh: Mesh, values: Mapping[str, Array]) -> dict[str, Array]:
    """Whole outputs and writes of all devices together."""
    parts = None if partitioned.microbatches == 1 else microbatches_of(partitioned, values)
    leaves = {name: value for name, value in values.items() if parts is None or name not in parts[0]}
    return interpret_mesh(partitioned, mesh, local_graphs(partitioned, mesh), leaves, microbatches=parts)


def assert_same_on_mesh(before: Graph, partitioned: Graph, mesh: Mesh) -> None:
    """The partitioned graph is sound, reads back, and gives what one device gives: as a whole and device by device."""
    check(partitioned, PARTITIONED, "the partitioned graph")
    assert parse_graph(print_graph(partitioned)) == partitioned
    values = leaf_values(before)
    wanted = run(before, values)
    for found in (run(partitioned, values), run_on_mesh(partitioned, mesh, values)):
        assert found.keys() == wanted.keys()
        errors = {name: error(found[name], value) for name, value in wanted.items()}
        far = {name: size for name, size in errors.items() if not size <= 1e-10}
        if far:
            allowed = spread(before, values)
            far = {name: size for name, size in far.items() if not size <= 100 * allowed[name]}
        assert not far, f"values changed: {far}"
