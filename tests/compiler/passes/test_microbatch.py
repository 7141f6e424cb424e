"""microbatch: parts add up to the whole, constants stay the whole's, and what cannot be cut is refused."""

from __future__ import annotations

import pytest
from generators.graphs import graphs
from generators.models import deep_stack
from hypothesis import given, settings
from oracles.properties import at_level, parts_add_up
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT
from partita.compiler.ir.types import Dim, DType, Use
from partita.compiler.ops.build import Builder
from partita.compiler.passes.microbatch import Microbatch

B, D = Dim("batch", 6), Dim("D", 3)


@settings(max_examples=40)
@given(graphs(batch=6))
def test_three_parts_add_up(graph: Graph) -> None:
    parts_add_up(Microbatch(3), graph)


def test_every_output_is_a_total_and_the_batch_is_divided() -> None:
    parts = Microbatch(2)(at_level(deep_stack(layers=2), GRADIENT))
    assert parts.microbatches == 2
    assert parts.dims()["batch"].size == 2
    assert {parts[use.node].op for use in parts.outputs.values()} == {"accumulate"}
    assert parts["constant"].attrs["value"] == 1 / 32


def test_an_uneven_batch_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="valid batches are 3 and 6"):
        Microbatch(3)(deep_stack(layers=1))


def refused(write: str) -> Graph:
    """A loss that no sum over microbatches gives."""
    b = Builder(GraphBuilder("refused"))
    x = b.input("x", (B, D), DType.F32)
    total = b.one("sum", x, over=(B,))
    results: dict[str, Use] = {
        "square of a mean": b.one("mul", total, total),
        "mixed rows": b.one("max", x, over=(B,)),
        "back to rows": b.one("mul", x, total),
        "cut in another place": b.one("merge_dims", x, dims=(D, B), into=Dim("flat", 18)),
    }
    result = results[write]
    b.output("loss", b.one("sum", result, over=result.dims))
    return b.finish()


@pytest.mark.parametrize("write", ["square of a mean", "mixed rows", "back to rows", "cut in another place"])
def test_what_mixes_the_batch_is_refused(write: str) -> None:
    with pytest.raises(SpecError) as caught:
        Microbatch(2)(refused(write))
    assert caught.value.diagnostics[0].code == "E0912"
