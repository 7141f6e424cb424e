"""The solver: what it chooses computes the same, costs what its model says, and nothing in reach costs less."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from generators.graphs import graphs
from generators.meshes import several_devices
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles.meshes import assert_same_on_mesh
from oracles.properties import at_level
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import LOSS, STEP
from partita.compiler.partition.choices import Wishes, choices
from partita.compiler.partition.decide import decide
from partita.compiler.partition.fold import fold
from partita.compiler.partition.price import Prices
from partita.compiler.partition.solve import Program


@settings(max_examples=30, deadline=None)
@given(graphs(), several_devices, st.sampled_from([None, 0, 1, 2, 3]))
def test_what_is_chosen_computes_the_same(graph: Graph, mesh: Mesh, zero: int | None) -> None:
    step = at_level(graph, STEP)
    assert_same_on_mesh(step, decide(step, mesh, H100_NODES, Wishes(zero=zero)).graph, mesh)


@settings(max_examples=25, deadline=None)
@given(graphs(most=3), st.sampled_from(((2,), (2, 2))), st.booleans())
def test_no_choice_is_better(graph: Graph, sizes: tuple[int, ...], backward: bool) -> None:
    """Brute force: every combination of strategies, priced by the program with all else left to it."""
    mesh = Mesh(tuple(zip(("data", "tensor"), sizes, strict=False)))
    folded = fold(at_level(graph, LOSS))
    chosen = choices(folded, mesh, Wishes())
    assume(prod(len(one) for one in chosen.strategies.values()) <= 300)
    program = Program(folded, chosen, Prices(mesh, H100_NODES), 1)
    best = program.solve()
    names = list(chosen.strategies)
    every = [
        program.price(dict(zip(names, picked, strict=True)))
        for picked in product(*(chosen.strategies[name] for name in names))
    ]
    assert best.seconds == pytest.approx(min(every), rel=2e-3)
    assert program.price(dict(best.strategies)) == pytest.approx(best.seconds, rel=2e-3)
