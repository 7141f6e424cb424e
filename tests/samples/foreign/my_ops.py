"""What a user's own package of kernels looks like: the one that specs/models/own_op.partita names.

Every operand comes as [n, dims as written], contiguous; every result goes back so.
"""

from __future__ import annotations

import torch


def rms_gate(x: torch.Tensor, g: torch.Tensor, *, eps: float) -> torch.Tensor:
    """[n, D]"""
    assert x.is_contiguous() and g.is_contiguous() and x.ndim == 2, "as it was promised"
    return torch.nn.functional.silu(g) * x * torch.rsqrt((x * x).mean(1, keepdim=True) + eps)


def rms_gate_backward(
    dy: torch.Tensor, x: torch.Tensor, g: torch.Tensor, y: torch.Tensor, *, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """dx, dg: [n, D]"""
    r = torch.rsqrt((x * x).mean(1, keepdim=True) + eps)
    sigma = torch.sigmoid(g)
    gated = dy * g * sigma
    dx = r * gated - x * r**3 * (gated * x).mean(1, keepdim=True)
    return dx, dy * x * r * sigma * (1 + g * (1 - sigma))


def tree(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[n, T, K], [n, S, K] -> [n, T, K]"""
    return torch.softmax(q @ k.transpose(1, 2), 2) @ v


def tree_backward(
    dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """dq, dk, dv"""
    p = torch.softmax(q @ k.transpose(1, 2), 2)
    dp = dy @ v.transpose(1, 2)
    ds = p * (dp - (dp * p).sum(2, keepdim=True))
    return ds @ k, ds.transpose(1, 2) @ q, p.transpose(1, 2) @ dy


def biased(x: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [n, D], b [1, D] (it carries nothing), t [n, D] -> their sum, and x itself"""
    assert b.shape[0] == 1, "what carries nothing has one row"
    return x + b + t, x


def biased_backward(
    dy: torch.Tensor, dz: torch.Tensor, x: torch.Tensor, b: torch.Tensor, t: torch.Tensor, *results: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """dx, db, dt"""
    return dy + dz, dy.sum(0, keepdim=True), dy


def wrong(x: torch.Tensor) -> torch.Tensor:
    """A result of another shape than promised."""
    return x.sum(1)
