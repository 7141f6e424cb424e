"""Values and gradients against PyTorch's own functions and autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from generators.operands import case_of, node_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.slopes import rule_gradients
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, Dims, Node
from partita.compiler.ops import attributes
from partita.compiler.ops.build import Builder
from partita.compiler.ops.definition import Array
from partita.compiler.ops.registry import op

Theirs = Callable[[Node, Sequence[torch.Tensor]], torch.Tensor]


def lined_up(node: Node, tensors: Sequence[torch.Tensor], dims: Dims) -> list[torch.Tensor]:
    """The operands with their axes where `dims` has them, and axes of one elsewhere."""
    found: list[torch.Tensor] = []
    for use, tensor in zip(node.uses, tensors, strict=True):
        moved = tensor.permute([use.dims.index(d) for d in dims if d in use.dims])
        found.append(moved.reshape([d.size if d in use.dims and d.size is not None else 1 for d in dims]))
    return found


def by_name(function: Callable[..., torch.Tensor]) -> Theirs:
    """A function that broadcasts."""
    return lambda node, tensors: function(*lined_up(node, tensors, node.outs[0].dims))


def last(dims: Dims, over: Dims) -> Dims:
    return (*(d for d in dims if d not in over), *over)


def over_last(
    formal: str, function: Callable[[Node, torch.Tensor, list[torch.Tensor]], torch.Tensor], keeps: bool
) -> Theirs:
    """A function of x flattened to [rows, over], the other operands as [over]; `keeps`: the result has `over`."""

    def theirs(node: Node, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        over, dims = attributes.dims(node.attrs, formal), node.uses[0].dims
        moved = last(dims, over)
        shape = [d.size or 0 for d in moved]
        x = tensors[0].permute([dims.index(d) for d in moved]).flatten(len(dims) - len(over))
        gains = [
            g.permute([u.dims.index(d) for d in over]).flatten()
            for g, u in zip(tensors[1:], node.uses[1:], strict=True)
        ]
        y = function(node, x, gains)
        if not keeps:
            return y
        return y.reshape(shape).permute([moved.index(d) for d in dims])

    return theirs


def add(*terms: torch.Tensor) -> torch.Tensor:
    return reduce(torch.add, terms)


def number(node: Node, name: str) -> float:
    return attributes.number(node.attrs, name)


def layer_norm(node: Node, x: torch.Tensor, gains: list[torch.Tensor]) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], gains[0], gains[1] if len(gains) > 1 else None, number(node, "eps"))


def rms_norm(node: Node, x: torch.Tensor, gains: list[torch.Tensor]) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], gains[0] + number(node, "offset"), number(node, "eps"))


def softmax(node: Node, x: torch.Tensor, gains: list[torch.Tensor]) -> torch.Tensor:
    return F.softmax(x, dim=-1)


def logsumexp(node: Node, x: torch.Tensor, gains: list[torch.Tensor]) -> torch.Tensor:
    return torch.logsumexp(x, dim=-1)


def cross_entropy(node: Node, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    (classes,), (logits, target) = attributes.dims(node.attrs, "V"), node.uses
    rows = tuple(d for d in logits.dims if d != classes)
    x = tensors[0].permute([logits.dims.index(d) for d in last(logits.dims, (classes,))])
    ids = tensors[1].permute([target.dims.index(d) for d in rows])
    loss = F.cross_entropy(x.reshape(-1, x.shape[-1]), ids.reshape(-1), reduction="none")
    return loss.reshape(ids.shape)


def attention(node: Node, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """scaled_dot_product_attention over [batch, G, R, T, K], the masks written out."""
    t, s, k, g, r = (attributes.dims(node.attrs, name)[0] for name in "TSKGR")
    q_dims = node.uses[0].dims
    batch = tuple(d for d in q_dims if d not in (t, k, g, r))

    def stand(i: int, order: Sequence[Dim]) -> torch.Tensor:
        dims = node.uses[i].dims
        return tensors[i].permute([dims.index(d) for d in order])

    q = stand(0, (*batch, g, r, t, k))
    key, value = (stand(i, (*batch, g, s, k)).unsqueeze(len(batch) + 1) for i in (1, 2))
    seen = torch.ones(*q.shape[: len(batch)], 1, 1, q.shape[-2], key.shape[-2], dtype=torch.bool)
    extras = list(zip(tensors[3:], node.uses[3:], strict=True))
    for keep, _ in [e for e in extras if e[0].dtype == torch.bool]:
        seen = seen & keep
    documents = [(x, use) for x, use in extras if x.dtype == torch.int64 and use.dims]
    if documents:
        (mine, mine_use), (other, other_use) = documents
        here = mine.permute([mine_use.dims.index(d) for d in (*batch, t)])
        there = other.permute([other_use.dims.index(d) for d in (*batch, s)])
        seen = seen & (here.unsqueeze(-1) == there.unsqueeze(-2)).unsqueeze(-3).unsqueeze(-3)
    starts = [int(x) for x, use in extras if x.dtype == torch.int64 and not use.dims]
    if starts:
        rows, columns = torch.arange(seen.shape[-2]) + starts[0], torch.arange(seen.shape[-1]) + starts[1]
        seen = seen & (rows[:, None] >= columns[None, :])
    y = F.scaled_dot_product_attention(q, key, value, attn_mask=seen, scale=number(node, "scale"))
    order = (*batch, g, r, t, k)
    return y.permute([order.index(d) for d in q_dims])


def dot(node: Node, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    letters = {d: chr(97 + i) for i, d in enumerate(dict.fromkeys(d for u in node.uses for d in u.dims))}
    left, right = ("".join(letters[d] for d in u.dims) for u in node.uses)
    return torch.einsum(f"{left},{right}->{''.join(letters[d] for d in node.outs[0].dims)}", *tensors)


def reduction(function: Callable[..., torch.Tensor]) -> Theirs:
    def theirs(node: Node, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        over = [node.uses[0].dims.index(d) for d in attributes.dims(node.attrs, "over")]
        return function(tensors[0], dim=over) if over else tensors[0].clone()

    return theirs


THEIRS: Mapping[str, Theirs] = MappingProxyType(
    {
        **{
            name: by_name(getattr(torch, name))
            for name in (
                *("sub", "mul", "div", "pow", "neg", "abs", "floor", "maximum", "minimum", "exp", "log", "sqrt"),
                *("rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "where", "eq", "ne", "lt", "le", "gt", "ge"),
                *("logical_and", "logical_or", "logical_not"),
            )
        },
        "add": by_name(add),
        "rem": by_name(torch.remainder),
        "gelu": by_name(F.gelu),
        "gelu_tanh": by_name(partial(F.gelu, approximate="tanh")),
        "silu": by_name(F.silu),
        "sum": reduction(torch.sum),
        "max": reduction(torch.amax),
        "dot": dot,
        "softmax": over_last("S", softmax, keeps=True),
        "logsumexp": over_last("V", logsumexp, keeps=False),
        "layer_norm": over_last("D", layer_norm, keeps=True),
        "rms_norm": over_last("D", rms_norm, keeps=True),
        "cross_entropy": cross_entropy,
        "attention": attention,
    }
)


def tensor_of(array: Array) -> torch.Tensor:
    found = torch.tensor(array)
    return found.requires_grad_(found.is_floating_point())


@pytest.mark.parametrize("name", sorted(THEIRS))
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_and_gradients_are_pytorchs(name: str, seed: int) -> None:
    case = case_of(name, seed)
    builder = Builder(GraphBuilder("case"))
    node = node_of(case, builder)
    tensors = [tensor_of(a) for a in case.arrays]
    theirs = THEIRS[name](node, tensors)
    mine = op(name).reference(node, case.arrays)[0]
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-11, atol=1e-12)
    if not theirs.requires_grad:
        return
    cotangent = np.random.default_rng(seed).normal(size=mine.shape)
    leaves = [t for t in tensors if t.requires_grad]
    grads = torch.autograd.grad(theirs, leaves, torch.tensor(cotangent), allow_unused=True, materialize_grads=True)
    wanted = list(grads)
    cotangents = [np.asarray(cotangent), *[None] * (len(node.outs) - 1)]
    found = rule_gradients(builder, node, case.arrays, cotangents, [t.requires_grad for t in tensors])
    for gradient, tensor in zip(found, tensors, strict=True):
        if tensor.requires_grad:
            expected = wanted.pop(0).numpy()
            got = np.zeros(tensor.shape) if gradient is None else gradient
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)


def test_adamw_is_pytorchs() -> None:
    random = np.random.default_rng(0)
    b = Builder(GraphBuilder("case"))
    d = Dim("D", 5)
    node = node_of(case_of("adamw", 4))
    from_attrs: dict[str, Any] = dict(node.attrs)
    dtype = node.uses[0].dtype
    operands = [b.input(n, (d,), dtype) for n in "pgmv"] + [b.input(n, (), dtype) for n in ("step", "lr")]
    node = b.node("adamw", *operands, **from_attrs)
    p, m, v = random.normal(size=5), np.zeros(5), np.zeros(5)
    parameter = torch.nn.Parameter(torch.tensor(p))
    betas = (from_attrs["beta1"], from_attrs["beta2"])
    theirs = torch.optim.AdamW(
        [parameter], lr=0.01, betas=betas, eps=from_attrs["eps"], weight_decay=from_attrs["decay"]
    )
    for step in range(1, 4):
        g = random.normal(size=5)
        parameter.grad = torch.tensor(g)
        theirs.step()
        p, m, v = op("adamw").reference(node, [p, g, m, v, np.asarray(float(step)), np.asarray(0.01)])
        np.testing.assert_allclose(p, parameter.detach().numpy(), rtol=1e-12)
