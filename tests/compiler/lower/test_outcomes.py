"""What kernels give is known by their operands' shapes, types and strides, and never mistaken for what others give."""

from __future__ import annotations

import torch
from partita.compiler.lower.outcomes import Outcomes
from partita.compiler.lower.views import storage

aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_new_tensor_is_new_each_time_and_as_the_kernel_makes_it() -> None:
    outcomes, left, right = Outcomes(), meta(3, 4).t(), meta(3, 5)
    first, second = (outcomes.of(aten.mm.default, (left, right), {}) for _ in range(2))
    assert len(outcomes.known) == 1 and storage(first) != storage(second)
    assert (first.shape, first.stride(), first.dtype) == (second.shape, second.stride(), second.dtype)


def test_what_shares_memory_with_an_operand_does_so_each_time() -> None:
    outcomes = Outcomes()
    for _ in range(2):
        value = meta(2, 3)
        assert storage(outcomes.of(aten.view.default, (value, [6]), {})) == storage(value)
        assert outcomes.of(aten.add_.Tensor, (value, meta(2, 3)), {}) is value
    assert not outcomes.known


def test_numbers_of_other_types_and_strides_are_told_apart() -> None:
    outcomes, whole = Outcomes(), meta(4, dtype=torch.int64)
    assert outcomes.of(aten.mul.Scalar, (whole, 1), {}).dtype == torch.int64
    assert outcomes.of(aten.mul.Scalar, (whole, 1.0), {}).dtype == torch.float32
    assert outcomes.of(aten.neg.default, (meta(3, 4),), {}).stride() == (4, 1)
    assert outcomes.of(aten.neg.default, (meta(4, 3).t(),), {}).stride() == (1, 3)
