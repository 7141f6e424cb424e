"""A kernel that takes in what makes its operand rounds once and not twice: what is made again does as what is kept did.

`made` is such an operand, `taker` the node that takes it in if nothing else reads it. All that may be made again of the
two and of what is beside them gives the same bits in the type in which the two ways differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, combinations

import numpy as np
import pytest
from oracles.lowered import run_lowered
from oracles.values import leaf_values
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Phase, Use
from partita.compiler.ops.build import Builder
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.passes.simplify import Simplify
from partita.compiler.recompute.block import GIVEN

ROWS, COLS, INNER = Dim("R", 33), Dim("C", 47), Dim("I", 70)
Pattern = Callable[[Builder, Use, DType], tuple[Use, Use]]  # of a tensor of rows and columns: made, taker


def _product(b: Builder, dtype: DType) -> Use:
    left, right = b.parameter("left", (ROWS, INNER), dtype), b.parameter("right", (INNER, COLS), dtype)
    return b.one("dot", left, right, over=(INNER,))


def added_product(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    made = _product(b, dtype)
    return made, b.one("add", x, made)


def biased_product(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    made = _product(b, dtype)
    inner = b.one("add", made, b.parameter("bias", (COLS,), dtype))
    return inner, b.one("add", x, inner)


def added_rows(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    ids = b("input", hint="ids", name="ids", below=ROWS, dims=(INNER,), dtype=DType.I64)[0]
    made = b.one("scatter_add", b.parameter("rows", (INNER, COLS), dtype), ids, dim=ROWS, dims=(ROWS, COLS))
    return made, b.one("add", x, made)


def summed_squares(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    made = b.one("mul", x, x)
    return made, b.one("sum", made, over=(ROWS, COLS))


def summed_cast(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    made = b.one("cast", x, to=DType.F32)
    return made, b.one("sum", made, over=(ROWS,))


def turned_product(b: Builder, x: Use, dtype: DType) -> tuple[Use, Use]:
    made = _product(b, dtype)
    return made, b.one("transpose", made, dims=(COLS, ROWS))


PATTERNS = [
    (added_product, DType.BF16),
    (biased_product, DType.BF16),
    (added_rows, DType.F32),
    (summed_squares, DType.F32),
    (summed_cast, DType.BF16),
    (turned_product, DType.F32),
]


def _step(pattern: Pattern, dtype: DType, beside: bool) -> tuple[Graph, list[Use]]:
    """A loss whose gradient asks for the taker, and its gradients; `beside`: for the operand's sum with another too."""
    b = Builder(GraphBuilder("rounding"))
    made, taker = pattern(b, b.one("tanh", b.parameter("x", (ROWS, COLS), dtype)), dtype)
    weight = b.parameter("weight", taker.dims, taker.dtype)
    loss = b.one("sum", b.one("tanh", b.one("mul", taker, weight)), over=taker.dims) if taker.dims else taker
    if not taker.dims:
        loss = b.one("mul", taker, b.one("tanh", b.one("mul", taker, weight)))
    if beside:
        other = b.one("add", made, b.parameter("other", made.dims, made.dtype))
        loss = b.one("add", loss, b.one("sum", b.one("mul", other, other), over=made.dims))
    b.output("loss", loss)
    return Simplify()(Differentiate()(b.finish())), [made, taker]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("pattern", "dtype"), PATTERNS, ids=lambda one: getattr(one, "__name__", one))
def test_an_operand_is_taken_in_both_times_or_never(pattern: Pattern, dtype: DType, beside: bool) -> None:
    before, both = _step(pattern, dtype, beside)
    every = [n.id for n in before if n.phase is Phase.FORWARD and n.op not in GIVEN]
    sets = [{use.node for use in some} for some in chain(*(combinations(both, size) for size in (1, 2)))]
    _assert_same_bits(before, [*sets, set(every)])


@pytest.mark.parametrize("beside", [False, True])
def test_a_loss_on_its_logits(beside: bool) -> None:
    """Log-probabilities may take the logits' place in memory; of logits that are made again they are, too."""
    b = Builder(GraphBuilder("loss"))
    logits = _product(b, DType.F32)
    target = b("input", hint="ids", name="ids", below=COLS, dims=(ROWS,), dtype=DType.I64)[0]
    losses = b("cross_entropy", logits, target, V=(COLS,))
    loss = b.one("sum", losses[0], over=(ROWS,))
    if beside:
        loss = b.one("add", loss, b.one("sum", b.one("mul", logits, logits), over=logits.dims))
    b.output("loss", loss)
    before = Simplify()(Differentiate()(b.finish()))
    _assert_same_bits(before, [{logits.node}, {losses[0].node}, {logits.node, losses[0].node}])


def _assert_same_bits(before: Graph, sets: Sequence[AbstractSet[str]]) -> None:
    """A step that makes all results of these nodes again, beside one that keeps them."""
    for seed in range(2):
        values = leaf_values(before, seed)
        wanted, _ = run_lowered(before, values)
        for chosen in sets:
            again = frozenset((name, at) for name in chosen for at in range(len(before[name].outs)))
            found, _ = run_lowered(Simplify()(Rematerialize("none", values=again)(before)), values)
            for name, value in wanted.items():
                np.testing.assert_array_equal(found[name], value, err_msg=f"{name} with {sorted(chosen)} made again")
