"""Lifetimes: hand-checked peaks on small graphs, and laws that hold on any graph."""

from __future__ import annotations

import pytest
from partita.compiler.cost.memory import CUDA_ROUNDING_BYTES, Owner, kept_for_backward, step_memory
from partita.compiler.cost.roofline import Machine, node_time, step_time
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.passes.differentiate import Differentiate
from samples.small_gpt import Sizes, small_gpt

D, E = Dim("D", 100), Dim("E", 50)
MACHINE = Machine({DType.F32: 1e12}, 1e10, 1e11, 1e-6)


def chain(length: int, output: bool = True) -> Graph:
    """exp(exp(…x)), each elementwise: two live values at most, one where memory is reused."""
    b = Builder(GraphBuilder("chain"))
    x = b.input("x", (D,), DType.F32)
    for _ in range(length):
        x = b.one("exp", x)
    if output:
        b.output("y", x)
    return b.finish()


def test_an_elementwise_chain_reuses_its_memory() -> None:
    assert step_memory(chain(5)).peak_bytes == 800  # the input, which nobody may write over, and one value
    assert step_memory(chain(5)).of(Owner.ACTIVATION) == step_memory(chain(5)).of(Owner.DATA) == 400


def test_sizes_are_rounded_as_the_allocator_rounds() -> None:
    assert step_memory(chain(3), CUDA_ROUNDING_BYTES).peak_bytes == 1024


def test_a_contraction_needs_operands_and_result() -> None:
    b = Builder(GraphBuilder("dot"))
    w = b.parameter("w", (D, E), DType.F32)
    x = b.input("x", (D,), DType.F32)
    b.output("y", b.one("dot", x, w, over=(D,)))
    memory = step_memory(b.finish())
    assert memory.of(Owner.PARAMETER) == 4 * 100 * 50
    assert memory.peak_bytes == 4 * (100 * 50 + 100 + 50)
    assert memory.at == "dot"


def test_views_share_memory() -> None:
    b = Builder(GraphBuilder("views"))
    x = b.input("x", (D,), DType.F32)
    split = b.one("split_dim", x, dim=D, into=(Dim("A", 10), Dim("B", 10)))
    b.output("y", b.one("transpose", split, dims=(Dim("B", 10), Dim("A", 10))))
    assert step_memory(b.finish()).peak_bytes == 400


def test_the_backward_keeps_what_it_reads() -> None:
    forward = small_gpt(sizes=Sizes(layers=2))
    step = Differentiate()(forward)
    kept, memory = kept_for_backward(step), step_memory(step)
    assert kept["blocks.0.mlp.up"] == kept["blocks.1.mlp.up"] == 4 * 2 * 8 * 32
    assert memory.peak_bytes > step_memory(forward).peak_bytes
    assert sum(share.bytes for share in memory.shares) == memory.peak_bytes
    assert memory.of(Owner.PARAMETER) == 4 * sum(
        share.bytes // 4 for share in memory.shares if share.owner is Owner.PARAMETER
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_more_layers_never_take_less(layers: int) -> None:
    less = step_memory(Differentiate()(small_gpt(layers)))
    more = step_memory(Differentiate()(small_gpt(layers + 1)))
    assert more.peak_bytes > less.peak_bytes


def test_time_is_bound_by_arithmetic_or_traffic() -> None:
    graph = small_gpt()
    total = step_time(graph, MACHINE)
    assert total.seconds == pytest.approx(total.arithmetic_s + total.traffic_s + total.launch_s)
    assert all(node_time(node, MACHINE).seconds == 0 for node in graph if node.op in ("parameter", "input", "constant"))
    one = Machine({DType.F32: 2e12}, 2e10, 2e11, 5e-7)
    assert step_time(graph, one).seconds == pytest.approx(total.seconds / 2)
    assert {node.phase for node in graph} == {Phase.PREPARE, Phase.FORWARD}
