"""The share of broken rules and passes that the properties of passes catch, on few random graphs each."""

from __future__ import annotations

from functools import cache

import pytest
from generators.graphs import TEMPLATES, graphs
from hypothesis import Phase, given, settings
from oracles.properties import keeps_gradients, keeps_values, matches_autograd
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.ir.graph import Graph
from partita.compiler.ops.definition import TypeRuleError
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.passes.simplify import Simplify

from .mutants import MUTANTS, Mutant

EACH = 4  # graphs of each theme


@cache
def corpus() -> tuple[Graph, ...]:
    """Random graphs of every theme, the same for every mutant."""
    found: list[Graph] = []
    for theme in TEMPLATES:

        @settings(max_examples=EACH + 1, phases=[Phase.generate])
        @given(graphs(batch=4, only=[theme, "parameter", "add"], most=5))
        def collect(graph: Graph) -> None:
            found.append(graph)

        collect()
    return tuple(found)


PASSES = {
    "simplify": Simplify(),
    "offsets": Offsets(),
    "rematerialize": Rematerialize(),
    "microbatch": Microbatch(2),
    "inline": Inline(all=True),
}


# How a property fails: an oracle or the verifier says no. A mutant that merely crashes proves nothing: the test fails.
CAUGHT = (AssertionError, TypeRuleError, SpecError)


def killed(mutant: Mutant) -> bool:
    """Whether a property fails on some graph while the mutant is in place."""
    transform = PASSES.get(mutant.name.split(":", maxsplit=1)[0])
    useful = [graph for graph in corpus() if not mutant.needs or graph.nodes(mutant.needs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutant.where, mutant.attribute, mutant.broken)
        for graph in useful:
            try:
                if transform is None:
                    matches_autograd(graph)
                else:
                    keeps_values(transform, graph)
                    keeps_gradients(transform, graph)
            except CAUGHT:
                return True
    return False


def test_mutants_are_killed(capsys: pytest.CaptureFixture[str]) -> None:
    corpus()
    alive = [mutant.name for mutant in MUTANTS if not killed(mutant)]
    share = 1 - len(alive) / len(MUTANTS)
    with capsys.disabled():
        print(
            f"\nmutants killed: {len(MUTANTS) - len(alive)} of {len(MUTANTS)} ({share:.0%}); alive: {alive or 'none'}"
        )
    assert len(MUTANTS) >= 20
    assert share >= 0.95, f"alive: {alive}"
