"""One property over every registered pass: sound before and after, values and gradients unchanged."""

from __future__ import annotations

import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from oracles.properties import keeps_gradients, keeps_values
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import DType
from partita.compiler.passes import PASSES, Pass
from partita.compiler.passes.fuse_loss import FuseLoss
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.precision import AssignPrecision
from partita.compiler.passes.rematerialize import Rematerialize

# Passes that need options, or do little with their defaults.
OPTIONS: dict[str, list[Pass]] = {
    "microbatch": [Microbatch(2)],
    "inline": [Inline(), Inline(all=True)],
    "precision": [AssignPrecision(DType.BF16), AssignPrecision(DType.F64, overrides=(("*.0.*", DType.F16),))],
    "fuse_loss": [FuseLoss(rows=1)],
    "rematerialize": [Rematerialize(), Rematerialize("none", "full"), Rematerialize("none", paths=("*",))],
}
CASES = [one for name, make in PASSES.items() if name != "update" for one in OPTIONS.get(name, [make])]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_stay(case: Pass | type[Pass]) -> None:
    transform = case() if isinstance(case, type) else case

    @settings(max_examples=60)
    @given(graphs(batch=4))
    def holds(graph: Graph) -> None:
        keeps_values(transform, graph)
        keeps_gradients(transform, graph)

    holds()
