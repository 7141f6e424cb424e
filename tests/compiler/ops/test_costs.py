"""FLOPs of GPT-2 124M's parts, one sequence of 1024 tokens, against the published counts."""

from __future__ import annotations

from typing import Any

import pytest
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, DType, Use
from partita.compiler.ops.build import Builder
from partita.compiler.ops.definition import NotDifferentiable
from partita.compiler.ops.registry import op

T, S, D, F, V = Dim("T", 1024), Dim("S", 1024), Dim("D", 768), Dim("F", 3072), Dim("V", 50257)
G, R, K, THREE = Dim("G", 12), Dim("R", 1), Dim("K", 64), Dim("P", 3)


def backward_flops(b: Builder, use: Use) -> int:
    """What the nodes of the operator's gradient take."""
    node = b.graph[use.node]
    before = len(list(b.graph))
    rule = op(node.op).gradient
    assert not isinstance(rule, NotDifferentiable)
    cotangents = [b.input("c", node.outs[0].dims, node.outs[0].dtype), *[None] * (len(node.outs) - 1)]
    rule(b, node, cotangents, [u.dtype.is_float for u in node.uses])
    return sum(op(n.op).cost(n).flops for n in list(b.graph)[before:])


@pytest.mark.parametrize(
    ("over", "out", "flops"),
    [
        ((D,), (THREE, G, K), 3623878656),  # attention kqv
        ((G, K), (D,), 1207959552),  # attention proj
        ((D,), (F,), 4831838208),  # mlp ffw1
        ((F,), (D,), 4831838208),  # mlp ffw2
        ((D,), (V,), 79047426048),  # dense (logits)
    ],
)
def test_dots(over: tuple[Dim, ...], out: tuple[Dim, ...], flops: int) -> None:
    b = Builder(GraphBuilder("g"))
    renamed = tuple(Dim(f"{d.name}_out", d.size) for d in out)
    x, w = b.input("x", (T, *over), DType.F32), b.input("w", (*over, *renamed), DType.F32)
    y = b.one("dot", x, w, over=over)
    cost = op("dot").cost(b.graph[y.node])
    assert cost.flops == flops
    assert cost.bytes_read + cost.bytes_written == 4 * sum(_elements(u) for u in (x, w, y))
    assert backward_flops(b, y) == 2 * flops


def _elements(use: Use) -> int:
    total = 1
    for d in use.dims:
        total *= d.size or 0
    return total


def test_attention() -> None:
    b = Builder(GraphBuilder("g"))
    q = b.input("q", (T, G, R, K), DType.F32)
    k, v = (b.input(n, (S, G, K), DType.F32) for n in "kv")
    starts = [b.one("start", dim=d) for d in (T, S)]
    formals: dict[str, Any] = {"T": (T,), "S": (S,), "K": (K,), "G": (G,), "R": (R,)}
    y = b("attention", q, k, v, *starts, mask="causal", score=None, scale=0.125, drop=0.0, **formals)[0]
    node = b.graph[y.node]
    assert op("attention").covers(node)
    assert op("attention").cost(node).flops == 1610612736 + 1610612736  # scores and reduce
    assert backward_flops(b, y) == 2 * (1610612736 + 1610612736)


def test_a_gather_reads_only_what_it_picks() -> None:
    b = Builder(GraphBuilder("g"))
    table, ids = b.input("table", (V, D), DType.F32), b.input("ids", (T,), DType.I64)
    y = b.one("gather", table, ids, dim=V)
    assert op("gather").cost(b.graph[y.node]).bytes_read == 4 * 1024 * 768 + 8 * 1024
