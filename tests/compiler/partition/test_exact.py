"""Prices message by message: they are what is sent, and nothing near the solver's choice costs less."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from generators.graphs import graphs
from generators.meshes import several_devices
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles.properties import at_level
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import LOSS, RELAYOUTS, STEP
from partita.compiler.ir.types import Node, Phase
from partita.compiler.ops import attributes
from partita.compiler.partition.choices import Wishes, choices
from partita.compiler.partition.decide import best_near, decide
from partita.compiler.partition.exact import Exact
from partita.compiler.partition.fold import fold
from partita.compiler.partition.price import BESIDE, Prices, awaiting_no_gradient
from partita.compiler.partition.relayout import Move
from partita.compiler.partition.solve import Program

NEAR = 1e-3  # the solver stops there


def move_of(graph: Graph, node: Node) -> Move:
    """The change of layout that a node makes."""
    use, out = node.uses[0], node.outs[0]
    before = graph[use.node].layouts[use.output]
    dims = {
        name: out.dims.index(attributes.dim(node.attrs, name))
        for name in ("into", "join", "split")
        if name in node.attrs
    }
    at = dims.get("into", dims.get("join"))
    return Move(node.op, str(node.attrs["axis"]), before, node.layouts[0], at, dims.get("split"))


@settings(max_examples=16, deadline=None)
@given(graphs(), several_devices, st.sampled_from([None, 0, 3]))
def test_a_choice_is_priced_as_what_it_sends(graph: Graph, mesh: Mesh, zero: int | None) -> None:
    found = decide(at_level(graph, STEP), mesh, H100_NODES, Wishes(zero=zero))
    program, laid, prices = found.program, found.graph, found.program.prices
    early = awaiting_no_gradient(laid)
    sent = 0.0
    for node in laid:
        if node.op in RELAYOUTS:
            move, out = move_of(laid, node), node.outs[0]
            late = node.op == "all_gather" and node.phase is Phase.BACKWARD and node.id in early
            sent += prices.move_s(move, out.dims, out.dtype.itemsize_bytes) * (BESIDE if late else 1.0)
            if node.op == "all_reduce" and node.phase is Phase.FORWARD:
                sent += prices.keep_s(prices.part_bytes(out, move.after))
    picked = {first: found.solution.strategies[first] for first in program.chosen.same.values()}
    computed = sum(program.costs[program.first[n] + program.choices[n].index(s)] for n, s in picked.items())
    assert found.exact.seconds(found.solution.strategies) == pytest.approx(computed + sent, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(graphs(most=3), st.sampled_from(((2,), (2, 2), (4, 2))))
def test_nothing_near_the_solution_costs_less(graph: Graph, sizes: tuple[int, ...]) -> None:
    """Brute force: every choice that the program holds for as good as its best, priced message by message."""
    mesh = Mesh(tuple(zip(("data", "tensor"), sizes, strict=False)))
    folded = fold(at_level(graph, LOSS))
    chosen = choices(folded, mesh, Wishes())
    assume(prod(len(one) for one in chosen.strategies.values()) <= 300)
    program = Program(folded, chosen, Prices(mesh, H100_NODES), 1)
    solution = program.solve()
    exact = Exact(program)
    best = best_near(exact, solution)
    names = list(chosen.strategies)
    every = (dict(zip(names, picked, strict=True)) for picked in product(*(chosen.strategies[name] for name in names)))
    near = [picked for picked in every if program.price(picked) <= solution.seconds * (1 + NEAR)]
    assert best.seconds <= min(map(exact.seconds, near)) * (1 + 1e-4)
