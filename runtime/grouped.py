"""Matrix products by group: each row meets the matrix of its own group. What a mixture of experts computes.

In: rows [B, R, L, K], matrices [B, E, K, N], and ids [A, R / A] of each row's group, ascending along the last axis
(L counts what a row holds several of, B what rows and matrices share; both are mostly 1). Out: rows [B, R, L, N]; or,
for the gradient in the matrices, the sums of the outer products of each group's rows. No row is padded or dropped; a
group without rows costs nothing, nor does a row whose id is beyond the groups: it is 0, and in no sum. Where
A > 1 rows are brought together first, so that there is one product a group.
"""

from __future__ import annotations

from typing import Any

import torch


def grouped_dot(x: torch.Tensor, w: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """y[b, r, l] = x[b, r, l] w[b, ids[r]]; with a gradient where autograd asks for one."""
    if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        return _GroupedDot.apply(x, w, ids)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return _dot(x, w, ids)


def grouped_outer(x: torch.Tensor, g: torch.Tensor, ids: torch.Tensor, groups: int) -> torch.Tensor:
    """w[b, e] = Σ over r, l with ids[r] = e of x[b, r, l]ᵀ g[b, r, l], shape [B, E, K, N]. Not differentiable."""
    order = _order(ids)
    rows, cotangents = (_taken(t, order) for t in (x, g))
    found = x.new_zeros(x.shape[0], groups, x.shape[-1], g.shape[-1])
    for group, begin, end in _bounds(ids, groups):
        left, right = rows[:, begin:end].flatten(1, 2), cotangents[:, begin:end].flatten(1, 2)
        _product(left.transpose(1, 2), right, found[:, group])
    return found


def _dot(x: torch.Tensor, w: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    order = _order(ids)
    rows = _taken(x, order)
    found, last = x.new_empty(*x.shape[:3], w.shape[-1]), 0
    for group, begin, end in _bounds(ids, w.shape[1]):
        _product(rows[:, begin:end].flatten(1, 2), w[:, group], found[:, begin:end].flatten(1, 2))
        last = end
    found[:, last:].zero_()
    if order is None:
        return found
    del rows
    return torch.empty_like(found).index_copy_(1, order, found)


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    if a.shape[0] == 1:
        torch.mm(a[0], b[0], out=out[0])
    elif out.is_contiguous():
        torch.bmm(a, b, out=out)
    else:
        out.copy_(torch.bmm(a, b))


def _order(ids: torch.Tensor) -> torch.Tensor | None:
    """The rows by group, in order; None where they stand so already."""
    return torch.argsort(ids.reshape(-1), stable=True) if ids.shape[0] > 1 else None


def _taken(x: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    return x if order is None else x.index_select(1, order)


def _bounds(ids: torch.Tensor, groups: int) -> list[tuple[int, int, int]]:
    """(group, first row, one past its last row) of each group that has rows; of ids without values, all as many."""
    if ids.is_meta:
        rows = ids.numel()
        ends = [rows * group // groups for group in range(groups + 1)]
        return [(at, ends[at], ends[at + 1]) for at in range(groups) if ends[at] < ends[at + 1]]
    counts: list[int] = torch.bincount(ids.reshape(-1), minlength=groups).tolist()
    found: list[tuple[int, int, int]] = []
    begin = 0
    for group, count in enumerate(counts[:groups]):
        if count:
            found.append((group, begin, begin + count))
        begin += count
    return found


class _GroupedDot(torch.autograd.Function):
    """The product with its gradients, for whoever differentiates by autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w, ids)
        return _dot(x, w, ids)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, w, ids = ctx.saved_tensors
        (g,) = grads
        return _dot(g, w.transpose(2, 3), ids), grouped_outer(x, g, ids, w.shape[1]), None
