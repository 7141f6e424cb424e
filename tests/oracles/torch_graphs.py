"""A forward graph run by PyTorch in float64, so that its autograd says what the gradients are.

In: a graph of forward nodes and arrays for its leaves. Out: the loss, and the gradient of every parameter. Written
apart from the compiler's lowering and from the references: each operator is PyTorch's own function on named axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import Dim, DType, Node
from partita.compiler.ops.registry import REGISTRY
from torch import Tensor

from .torch_axes import align, axes_of, contract, dims_of, sizes_of
from .torch_kernels import attention, cross_entropy, layer_norm, rms_norm, rotary
from .values import LEAVES, Array

Rule = Callable[[Node, list[Tensor]], Tensor | Sequence[Tensor]]


def torch_gradients(graph: Graph, values: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The loss and its gradient with respect to every trained parameter, by autograd."""
    parameters = {
        node.id: torch.tensor(values[node.id], requires_grad=True)
        for node in graph.nodes("parameter")
        if node.attrs["trained"]
    }
    known: dict[tuple[str, int], Tensor] = {}
    for node in graph:
        if node.op in LEAVES:
            known[node.id, 0] = parameters.get(node.id, torch.tensor(values[node.id]))
            continue
        operands = [known[use.value] for use in node.uses]
        results = _scan(graph, node, operands) if node.op == "scan" else apply(node, operands)
        for index, result in enumerate(results):
            known[node.id, index] = result
    loss = known[graph.outputs["loss"].value]
    leaves = list(parameters.values())
    found = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves)
    gradients = {
        name: (torch.zeros_like(leaf) if gradient is None else gradient).numpy()
        for (name, leaf), gradient in zip(parameters.items(), found, strict=True)
    }
    return float(loss.detach()), gradients


def apply(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    """One operator; its results in the order of the node's types."""
    result = _RULES[node.op](node, operands)
    return [result] if isinstance(result, Tensor) else list(result)


def _scan(graph: Graph, node: Node, operands: list[Tensor]) -> list[Tensor]:
    """The body in a loop: the last carries, what is emitted, and the carries before each step."""
    assert node.body is not None
    body, attrs = graph.bodies[node.body], dict[str, Any](node.attrs)
    first, last = attrs["carries"], attrs["carries"] + attrs["steps"]
    carries, rows = operands[:first], dict[int, list[Tensor]]()
    for t in reversed(range(attrs["dim"].size)) if attrs["reverse"] else range(attrs["dim"].size):
        steps = [x.select(node.uses[first + i].dims.index(attrs["dim"]), t) for i, x in enumerate(operands[first:last])]
        given = iter([*carries, *steps, *operands[last:]])
        known: dict[tuple[str, int], Tensor] = {}
        for inner in body:
            reads = [known[use.value] for use in inner.uses]
            found = [next(given)] if inner.op == "input" else apply(inner, reads)
            known.update({(inner.id, index): result for index, result in enumerate(found)})
        results = [known[body.outputs[str(i)].value] for i in range(len(body.outputs))]
        rows[t] = [*results[first:], *carries]
        carries = results[:first]
    columns = zip(*(rows[t] for t in sorted(rows)), strict=True)
    return [*carries, *(torch.stack(column) for column in columns)]


def _elementwise(function: Callable[..., Tensor]) -> Rule:
    def rule(node: Node, operands: list[Tensor]) -> Tensor:
        out = node.outs[0].dims
        every = [align(x, use.dims, out) for x, use in zip(operands, node.uses, strict=True)]
        return function(*every).expand(sizes_of(out))

    return rule


def _einsum(node: Node, operands: list[Tensor]) -> Tensor:
    letters: dict[Dim, str] = {}
    for use in node.uses:
        for dim in use.dims:
            letters.setdefault(dim, chr(ord("a") + len(letters)))
    terms = ",".join("".join(letters[dim] for dim in use.dims) for use in node.uses)
    return torch.einsum(f"{terms}->{''.join(letters[dim] for dim in node.outs[0].dims)}", *operands)


def _kind(dtype: DType) -> torch.dtype:
    return torch.float64 if dtype.is_float else torch.bool if dtype is DType.BOOL else torch.int64


# ---- operators


def _constant(node: Node, _: list[Tensor]) -> Tensor:
    value: Any = node.attrs["value"]
    return torch.full(sizes_of(node.outs[0].dims), value, dtype=_kind(node.outs[0].dtype))


def _given(node: Node, operands: list[Tensor]) -> Tensor:
    """Random numbers and positions are the reference's."""
    arrays = [np.asarray(x.numpy()) for x in operands]
    return torch.tensor(REGISTRY[node.op].reference(node, arrays)[0])


def _merge(node: Node, operands: list[Tensor]) -> Tensor:
    parts, into = dims_of(node, "dims"), dims_of(node, "into")[0]
    out = node.outs[0].dims
    at = out.index(into)
    order = (*out[:at], *parts, *out[at + 1 :])
    return align(operands[0], node.uses[0].dims, order).reshape(sizes_of(out))


def _expand(node: Node, operands: list[Tensor]) -> Tensor:
    out = node.outs[0].dims
    return align(operands[0], node.uses[0].dims, out).expand(sizes_of(out))


def _add(*terms: Tensor) -> Tensor:
    return functools.reduce(torch.add, terms)


def _split(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    return torch.split(operands[0], sizes_of(dims_of(node, "parts")), axes_of(node, "dim")[0])


def _stack(node: Node, operands: list[Tensor]) -> Tensor:
    dims = node.outs[0].dims[1:]
    return torch.stack([align(x, use.dims, dims) for x, use in zip(operands, node.uses, strict=True)])


def _concat(node: Node, operands: list[Tensor]) -> Tensor:
    out, (dim,), parts = node.outs[0].dims, dims_of(node, "dim"), dims_of(node, "parts")
    at = out.index(dim)
    pieces = [
        align(x, use.dims, (*out[:at], part, *out[at + 1 :]))
        for x, use, part in zip(operands, node.uses, parts, strict=True)
    ]
    return torch.cat(pieces, at)


def _one_hot(ids: Tensor, size: int) -> Tensor:
    return torch.nn.functional.one_hot(ids, size).to(torch.float64)


def _gather(node: Node, operands: list[Tensor]) -> Tensor:
    """table · one-hot(ids): slow, and not how any kernel does it."""
    table, ids = operands
    (dim,) = dims_of(node, "dim")
    return contract(
        (table, node.uses[0].dims), (_one_hot(ids, dim.size or 0), (*node.uses[1].dims, dim)), node.outs[0].dims
    )


def _scatter(node: Node, operands: list[Tensor]) -> Tensor:
    values, ids = operands
    (dim,) = dims_of(node, "dim")
    return contract(
        (values, node.uses[0].dims), (_one_hot(ids, dim.size or 0), (*node.uses[1].dims, dim)), node.outs[0].dims
    )


def _places(node: Node) -> Tensor:
    """[out, size, dim]: 1 where a place of a window is one of the axis."""
    a: Any = node.attrs
    at = torch.arange(a["out"].size)[:, None] * a["stride"] + torch.arange(a["size"].size) - a["before"]
    return (at[..., None] == torch.arange(a["dim"].size)).to(torch.float64)


def _window(node: Node, operands: list[Tensor]) -> Tensor:
    a: Any = node.attrs
    apart = Dim("apart", a["dim"].size)
    places, dims = _places(node), (a["out"], a["size"], apart)
    x_dims = tuple(apart if dim == a["dim"] else dim for dim in node.uses[0].dims)
    inside = contract((operands[0], x_dims), (places, dims), node.outs[0].dims)
    outside = align(1 - places.sum(-1), dims[:2], node.outs[0].dims)
    return inside + a["fill"] * outside


def _unwindow(node: Node, operands: list[Tensor]) -> Tensor:
    a: Any = node.attrs
    apart = Dim("apart", a["dim"].size)
    result = tuple(apart if dim == a["dim"] else dim for dim in node.outs[0].dims)
    return contract((operands[0], node.uses[0].dims), (_places(node), (a["out"], a["size"], apart)), result)


def _top(node: Node, operands: list[Tensor]) -> Tensor:
    """An element is among the k largest if fewer than k others are larger, or as large and further in front."""
    (axis,) = axes_of(node, "dim")
    k: Any = node.attrs["k"]
    x = operands[0].movedim(axis, -1)
    mine, other = x.unsqueeze(-1), x.unsqueeze(-2)
    place = torch.arange(x.shape[-1])
    before = (other > mine) | ((other == mine) & (place[None, :] < place[:, None]))
    return (before.sum(-1) < k).movedim(-1, axis)


def _dispatch(node: Node, operands: list[Tensor]) -> Sequence[Tensor]:
    """The tokens of the first expert, then those of the second, …"""
    (dim,), (experts,) = dims_of(node, "dim"), dims_of(node, "experts")
    rest = tuple(d for d in node.uses[0].dims if d not in (dim, experts))
    pick = align(operands[0], node.uses[0].dims, (*rest, experts, dim))
    order = torch.argsort(~pick.flatten(-2), dim=-1, stable=True)[..., : node.outs[0].dims[-1].size]
    return [order % (dim.size or 1), order // (dim.size or 1)]


def _grouped(node: Node, operands: list[Tensor]) -> Tensor:
    """A product with one-hot(ids): every row meets every expert."""
    first, second, ids = operands
    (dim,) = dims_of(node, "dim")
    hot, dims = _one_hot(ids, dim.size or 0), (*node.uses[2].dims, dim)
    spread = tuple(dict.fromkeys((*node.uses[0].dims, dim)))
    masked = contract((first, node.uses[0].dims), (hot, dims), spread)
    return contract((masked, spread), (second, node.uses[1].dims), node.outs[0].dims)


_RULES: Mapping[str, Rule] = {
    "constant": _constant,
    "extent": lambda node, _: torch.tensor(math.prod(sizes_of(dims_of(node, "over")))),
    "index": _given,
    "random": _given,
    "gaussian": _given,
    "add": _elementwise(_add),
    "sub": _elementwise(torch.sub),
    "mul": _elementwise(torch.mul),
    "div": _elementwise(torch.div),
    "rem": _elementwise(torch.remainder),
    "pow": _elementwise(torch.pow),
    "neg": _elementwise(torch.neg),
    "exp": _elementwise(torch.exp),
    "log": _elementwise(torch.log),
    "sqrt": _elementwise(torch.sqrt),
    "rsqrt": _elementwise(torch.rsqrt),
    "tanh": _elementwise(torch.tanh),
    "sigmoid": _elementwise(torch.sigmoid),
    "erf": _elementwise(torch.erf),
    "sin": _elementwise(torch.sin),
    "cos": _elementwise(torch.cos),
    "floor": _elementwise(torch.floor),
    "abs": _elementwise(torch.abs),
    "maximum": _elementwise(torch.maximum),
    "minimum": _elementwise(torch.minimum),
    "eq": _elementwise(torch.eq),
    "ne": _elementwise(torch.ne),
    "lt": _elementwise(torch.lt),
    "le": _elementwise(torch.le),
    "gt": _elementwise(torch.gt),
    "ge": _elementwise(torch.ge),
    "logical_and": _elementwise(torch.logical_and),
    "logical_or": _elementwise(torch.logical_or),
    "logical_not": _elementwise(torch.logical_not),
    "where": _elementwise(torch.where),
    "cast": lambda node, x: x[0].to(_kind(node.outs[0].dtype)),
    "stop": _elementwise(torch.Tensor.detach),
    "sum": lambda node, x: x[0].sum(axes_of(node, "over")) if node.attrs["over"] else x[0],
    "max": lambda node, x: x[0].amax(axes_of(node, "over")) if node.attrs["over"] else x[0],
    "dot": _einsum,
    "split_dim": lambda node, x: x[0].reshape(sizes_of(node.outs[0].dims)),
    "merge_dims": _merge,
    "expand": _expand,
    "transpose": _expand,
    "stack": _stack,
    "unstack": lambda node, x: x[0].unbind(axes_of(node, "dim")[0]),
    "concat": _concat,
    "split": _split,
    "gather": _gather,
    "scatter_add": _scatter,
    "top": _top,
    "dispatch": _dispatch,
    "grouped_dot": _grouped,
    "grouped_outer": _grouped,
    "window": _window,
    "unwindow": _unwindow,
    **dict.fromkeys(
        (
            "all_reduce",
            "reduce_scatter",
            "all_gather",
            "all_to_all",
            "shard",
            "partial",
            "spread",
            "mask",
            "offload",
            "fetch",
        ),
        lambda node, x: x[0],
    ),
    "gelu": lambda node, x: torch.nn.functional.gelu(x[0]),
    "gelu_tanh": lambda node, x: torch.nn.functional.gelu(x[0], approximate="tanh"),
    "silu": lambda node, x: torch.nn.functional.silu(x[0]),
    "softmax": lambda node, x: (x[0] - x[0].logsumexp(axes_of(node, "S"), keepdim=True)).exp(),
    "logsumexp": lambda node, x: x[0].logsumexp(axes_of(node, "V")),
    "cross_entropy": cross_entropy,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "attention": attention,
    "rotary": rotary,
}
