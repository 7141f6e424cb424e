"""The builder: ids, contexts, and errors that show what met."""

from __future__ import annotations

import pytest
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, DType, Layer, Origin, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.ops.definition import TypeRuleError

T, D, F, FREE = Dim("T", 128), Dim("D", 64), Dim("F", 256), Dim("batch", None)


def fresh() -> Builder:
    return Builder(GraphBuilder("g"))


def test_ids_follow_path_and_hint() -> None:
    b = fresh()
    x = b.input("x", (T, D), DType.F32)
    with b.within(path="blocks.0", layer=Layer("blocks", 0), origin=(Origin("a.partita", 3),), phase=Phase.BACKWARD):
        ids = [b.one("neg", x, hint="h").node, b.one("neg", x, hint="h").node, b.one("neg", x).node]
        inside = b.graph[ids[0]]
    assert ids == ["blocks.0.h", "blocks.0.h.1", "blocks.0.neg"]
    assert (inside.path, inside.layer, inside.phase) == ("blocks.0", Layer("blocks", 0), Phase.BACKWARD)
    assert inside.origin == (Origin("a.partita", 3),)
    assert b.context.path == ""


def test_leaves_have_exact_ids_and_are_prepared() -> None:
    b = fresh()
    with b.within(path="blocks.0", phase=Phase.UPDATE):
        w = b.parameter("blocks.0.attn.q.w", (D, F), DType.F32, ("normal", 0.02))
        m = b.state("adamw.m/blocks.0.attn.q.w", (D, F), DType.F32, of=w.node)
        assert b.clock("step") == b.clock("step")
    assert (w.node, m.node) == ("blocks.0.attn.q.w", "adamw.m/blocks.0.attn.q.w")
    assert {n.phase for n in b.graph} == {Phase.PREPARE}


def test_wrong_attributes_are_our_fault() -> None:
    b = fresh()
    with pytest.raises(AssertionError, match="has the attributes"):
        b.one("sum", b.input("x", (D,), DType.F32), dim=D)


def refusal(op: str, *dims: tuple[Dim, ...], dtype: DType = DType.F32, **attrs: object) -> str:
    b = fresh()
    uses = [b.input(f"x{i}", d, dtype) for i, d in enumerate(dims)]
    given: dict[str, object] = attrs
    with pytest.raises(TypeRuleError) as fault:
        b.one(op, *uses, **given)  # pyright: ignore[reportArgumentType]
    return fault.value.message


def test_errors_show_the_dims_with_their_sizes() -> None:
    other = Dim("D", 32)
    assert refusal("add", (FREE, T, D), (other,)) == "add: [batch, T = 128, D = 64] met [D = 32]: D has two sizes"
    assert refusal("dot", (T, D), (T, F), over=(D,)) == "dot: no D = 64 in [T = 128, F = 256]"
    assert refusal("sum", (T, D), over=(D, D)) == "sum: D stands twice in [D = 64, D = 64]: rename one of the axes"
    assert refusal("exp", (T,), dtype=DType.I64) == "exp: needs a floating-point tensor, got i64 [T = 128]"
    assert refusal("split_dim", (D,), dim=D, into=(Dim("H", 5), Dim("K", 12))) == (
        "split_dim: [D = 64] is not [H = 5, K = 12], which has 60 elements"
    )
    assert refusal("stack", (T, D), (T, F), dim=Dim("P", 2)) == (
        "stack: [T = 128, D = 64] met [T = 128, F = 256]: all must have the same axes"
    )


def test_the_widest_operand_orders_the_result() -> None:
    b = fresh()
    a, c = b.input("a", (F, D), DType.F32), b.input("c", (T, D, FREE), DType.F32)
    assert b.one("add", a, c).dims == (T, D, FREE, F)
