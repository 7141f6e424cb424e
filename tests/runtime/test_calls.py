"""A call is described alike where it is timed (real tensors) and where it is foretold (the meta device)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from partita.runtime.call import Call
from partita.runtime.calls import traced
from partita.runtime.grouped import grouped_dot, grouped_outer

aten = torch.ops.aten


def one(device: str, call: Callable[..., object], *shapes: tuple[int, ...]) -> Call:
    operands = [torch.zeros(shape, device=device) for shape in shapes]
    return traced(lambda: call(*operands))[-1]


def _mm_into(a: torch.Tensor, b: torch.Tensor, into: torch.Tensor) -> object:
    return aten.mm.out(a, b, out=into)


def _mm_tn(a: torch.Tensor, b: torch.Tensor) -> object:
    return aten.mm.default(a.t(), b)


def _mm_nt(a: torch.Tensor, b: torch.Tensor) -> object:
    return aten.mm.default(a, b.t())


def _view(a: torch.Tensor) -> object:
    return a.view([12])


def _log_softmax(a: torch.Tensor) -> object:
    return aten._log_softmax.default(a, 1, False)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("call", "shapes", "kernel", "sizes", "flops"),
    [
        (aten.mm.default, ((3, 4), (4, 5)), "matmul", (1, 3, 5, 4), 120),
        (aten.addmm.default, ((5,), (3, 4), (4, 5)), "matmul", (1, 3, 5, 4), 120),
        (_mm_into, ((3, 4), (4, 5), (3, 5)), "matmul", (1, 3, 5, 4), 120),
        (_mm_tn, ((4, 3), (4, 5)), "matmul.tn", (1, 3, 5, 4), 120),
        (_mm_nt, ((3, 4), (5, 4)), "matmul.nt", (1, 3, 5, 4), 120),
        (aten.bmm.default, ((2, 3, 4), (2, 4, 5)), "matmul", (2, 3, 5, 4), 240),
        (aten.add.Tensor, ((3, 4), (4,)), "add", (12,), 12),
        (aten.add_.Tensor, ((3, 4), (4,)), "add_", (12,), 12),
        (_view, ((3, 4),), "view", (), 0),
        (_log_softmax, ((3, 4),), "_log_softmax", (3, 4), 60),
    ],
)
def test_a_call_has_its_sizes(
    device: str,
    call: Callable[..., object],
    shapes: tuple[tuple[int, ...], ...],
    kernel: str,
    sizes: tuple[int, ...],
    flops: int,
) -> None:
    found = one(device, call, *shapes)
    assert (found.kernel, found.sizes, found.flops) == (kernel, sizes, flops)


def test_attention_by_heads_lengths_and_width() -> None:
    q, k = torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 16, 4)
    forward = aten._scaled_dot_product_flash_attention_for_cpu.default
    (found,) = traced(lambda: forward(q, k, k, 0.0, False))
    assert (found.kernel, found.sizes, found.flops) == ("attention", (6, 8, 16, 4), 4 * 6 * 8 * 16 * 4)
    (masked,) = traced(lambda: forward(q, q, q, 0.0, True))
    assert masked.kernel == "attention.causal"


def test_products_by_group_are_foretold_as_even_routing_gives_them() -> None:
    """Ids without values: each group has as many rows, and each operation is counted once."""
    rows, groups, deep, wide = 64, 4, 16, 32
    x, w, g, ids = (
        torch.empty(*shape, device="meta")
        for shape in ((1, rows, 1, deep), (1, groups, deep, wide), (1, rows, 1, wide), (1, rows))
    )
    ids = ids.long()
    for call in (lambda: grouped_dot(x, w, ids), lambda: grouped_outer(x, g, ids, groups)):
        products = [one for one in traced(call) if one.kernel.startswith("matmul")]
        assert len(products) == groups
        assert sum(one.flops for one in products) == 2 * rows * deep * wide
