"""PyTorch's own cases for its `activation_memory_budget`: what we keep is no more, what we compute again no dearer.

Source: the outcomes that PyTorch asserts in test/functorch/test_ac.py: MiB saved, and FLOPs of the backward in units of
a 512³ product. A layer among a thousand: what one block has alive in its backward is nothing beside what all keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from partita.compiler.base.span import Source
from partita.compiler.cost.flops import work_of
from partita.compiler.elaborate.load import load
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Node, Use
from partita.compiler.ops.build import Builder
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.pipeline import model_graph
from partita.compiler.recompute.block import Block, blocks_of
from partita.compiler.recompute.program import cheapest

MIB, SIDE, COPIES = 1 << 20, 512, 1000
PRODUCT = 2 * SIDE**3


def flops(node: Node) -> float:
    """Work in units of a 512³ product; what is elementwise, next to none."""
    return max(work_of(node).model_flops / PRODUCT, 1e-6)


def block_of(graph: Graph) -> Block:
    (block,) = blocks_of(Differentiate()(graph), flops)
    return replace(block, alike=block.alike * COPIES)


def again(block: Block, budget_mib: float) -> tuple[float, float]:
    """What is computed again within a budget for what is kept, and what is kept, in MiB."""
    slack = sum(block.bytes) + max(block.gradients)
    found = cheapest(block, (COPIES - 1) * budget_mib * MIB + slack)
    assert found is not None
    return round(found.seconds, 2), found.bytes / MIB / COPIES


def chain(length: int) -> Graph:
    """sum(cos(… cos(cos(x) w1) … wn)), all of them 512 by 512."""
    b = Builder(GraphBuilder("chain"))
    rows = Dim("R", SIDE)
    x = b.one("cos", b.parameter("x", (rows, Dim("D0", SIDE)), DType.F32))
    for at in range(length):
        inner, outer = x.dims[1], Dim(f"D{at + 1}", SIDE)
        x = b.one("cos", b.one("dot", x, b.parameter(f"w{at}", (inner, outer), DType.F32), over=(inner,)))
    b.output("loss", b.one("sum", x, over=x.dims))
    return b.finish()


def pairs(sizes: Sequence[tuple[int, int]]) -> Graph:
    """Σ sum(cos(x w)) with x of B by B and w of B by O, in units of 512."""
    b = Builder(GraphBuilder("pairs"))
    sums: list[Use] = []
    for at, (inside, out) in enumerate(sizes):
        rows, inner, outer = (
            Dim(f"{name}{at}", size * SIDE) for name, size in zip("RIO", (inside, inside, out), strict=True)
        )
        x, w = b.parameter(f"x{at}", (rows, inner), DType.F32), b.parameter(f"w{at}", (inner, outer), DType.F32)
        sums.append(b.one("sum", b.one("cos", b.one("dot", x, w, over=(inner,))), over=(rows, outer)))
    b.output("loss", b.one("add", *sums))
    return b.finish()


@pytest.mark.parametrize(("saved", "more"), [(0, 5), (1, 4), (2, 3), (3, 2), (4, 1), (5, 0)])
def test_an_even_chain_of_products(saved: int, more: int) -> None:
    dearer, kept = again(block_of(chain(5)), saved)
    assert dearer <= more
    assert kept <= saved + 0.1


@pytest.mark.parametrize(
    ("items", "budgets"),
    [
        ((11, 3, 4, 2), (18, 17, 16, 15, 14, 13, 11, 7, 6, 5)),
        ((3, 5, 11, 17, 14), (42, 30, 19, 8, 3)),
    ],
)
def test_products_of_uneven_size(items: tuple[int, ...], budgets: tuple[int, ...]) -> None:
    """Independent products of 512 rows, each as dear as it is large: PyTorch keeps exactly the budget."""
    block = block_of(pairs([(1, size) for size in items]))
    for budget in budgets:
        dearer, _ = again(block, budget)
        assert dearer <= sum(items) - budget


@pytest.mark.parametrize(
    ("sizes", "budget", "more"),
    [
        (((1, 4), (2, 2)), 8, 0),
        (((1, 4), (2, 2)), 4, 4),
        (((4, 4), (6, 2), (2, 6)), 40, 0),
        (((4, 4), (6, 2), (2, 6)), 28, 24),
        (((4, 4), (6, 2), (2, 6)), 16, 24 + 64),
    ],
)
def test_the_cheaper_product_goes_first(sizes: Sequence[tuple[int, int]], budget: int, more: int) -> None:
    dearer, kept = again(block_of(pairs(sizes)), budget)
    assert dearer <= more
    assert kept <= budget + 0.1


ATTENTION = """use std

model Both : x[T, D] -> loss[] {
  project : Linear[D, D](bias = false)
  dim H = 1, G = 1, R = 1, K = D
  q = x[D -> (H K)]
  y = attention[T, S, K, G, R](q[H -> (G R)], q[H -> G][T -> S], q[H -> G][T -> S])
  z = project(y[(G R K) -> D])
  return sum[T, D](cos(z))
}
"""


def summed(graph: Graph) -> Graph:
    """The graph with its loss summed over the batch."""
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    b, loss = Builder(builder), graph.outputs["loss"]
    b.output("loss", b.one("sum", loss, over=loss.dims))
    return b.finish()


@pytest.mark.parametrize(
    ("rows", "channels", "dearer"),
    [
        (1, 1, "dot"),
        (1, 3, "attention"),
        (2, 2, "dot"),
        (2, 1, "dot"),
        (2, 5, "attention"),
        (4, 7, "dot"),
        (4, 9, "attention"),
    ],
)
def test_attention_or_the_product_behind_it(rows: int, channels: int, dearer: str) -> None:
    spec, found = load(Source("both.partita", ATTENTION))
    assert spec is not None, found
    graph = summed(model_graph(spec, "Both", dims={"T": rows * SIDE, "D": channels * SIDE, "batch": 1}))
    block = block_of(graph)
    size = rows * channels  # MiB of each of the two results
    found = cheapest(block, (COPIES - 1) * 1.2 * size * MIB + sum(block.bytes) + max(block.gradients))
    assert found is not None
    nodes = {block.nodes[block.values[v].node] for v in found.again}
    assert {graph[name].op for name in nodes} & {"dot", "attention"} == {dearer}


def test_less_memory_never_takes_less_time() -> None:
    block = block_of(pairs([(4, 4), (6, 2), (2, 6), (1, 4), (2, 2)]))
    times = [again(block, budget)[0] for budget in range(48, -1, -3)]
    assert times == sorted(times)
