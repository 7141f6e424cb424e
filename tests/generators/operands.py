"""Operands for every operator: from a seed, a small case that its shape rule accepts.

In: an operator's name and a seed. Out: a `Case` (operand types, arrays, attributes). An operator without a maker here
fails `tests/compiler/ops/test_registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Attr, Dim, DType, Node
from partita.compiler.ops.build import Builder

from .drawing import Attrs, Case, Make, Maker, shape
from .kernel_operands import KERNEL_MAKERS

__all__ = ["MAKERS", "Case", "case_of", "node_of", "shape"]

# ---- elementwise


def _unary(positive: bool = False, apart: bool = False) -> Make:
    def make(m: Maker) -> Attrs:
        m.floats(*m.dims(), positive=positive, apart=apart)
        return {}

    return make


def _binary(left_positive: bool = False, right_positive: bool = False) -> Make:
    def make(m: Maker) -> Attrs:
        dims = m.dims()
        m.floats(*m.some(dims), positive=left_positive)
        m.floats(*m.some(dims), positive=right_positive)
        return {}

    return make


def _add(m: Maker) -> Attrs:
    dims = m.dims()
    for _ in range(int(m.random.integers(2, 5))):
        m.floats(*m.some(dims))
    return {}


# The divisor is at least 8 and the dividend below 8 in size or so: rem jumps where their ratio is whole.
def _rem(m: Maker) -> Attrs:
    dims = m.dims()
    m.floats(*m.some(dims))
    m.floats(*m.some(dims), positive=True)
    m.arrays[1] = m.arrays[1] + 8
    return {}


def _compare(m: Maker) -> Attrs:
    dims = m.dims()
    five = Dim("five", 3)
    m.ids(five, *m.some(dims))
    m.ids(five, *m.some(dims))
    return {}


def _logical(operands: int) -> Make:
    def make(m: Maker) -> Attrs:
        dims = m.dims()
        for _ in range(operands):
            m.truths(*m.some(dims))
        return {}

    return make


def _where(m: Maker) -> Attrs:
    dims = m.dims()
    m.truths(*m.some(dims))
    m.floats(*m.some(dims))
    m.floats(*m.some(dims))
    return {}


def _cast(m: Maker) -> Attrs:
    m.floats(*m.dims())
    return {"to": DType.F32 if m.coin() else DType.I64}


# ---- leaves


def _declared(**more: Attr) -> Make:
    def make(m: Maker) -> Attrs:
        return {"dims": m.dims(), "dtype": DType.F64, **more}

    return make


def _plain(**attrs: Attr) -> Make:
    return lambda m: attrs


def _start(m: Maker) -> Attrs:
    return {"dim": m.dim()}


def _extent(m: Maker) -> Attrs:
    return {"over": m.dims()}


def _index(m: Maker) -> Attrs:
    m.starts(int(m.random.integers(0, 9)))
    return {"dim": m.dim()}


def _random(m: Maker) -> Attrs:
    dims = m.dims()
    m.starts(7, 3, *(int(m.random.integers(0, 9)) for _ in dims))
    return {"dims": dims, "dtype": DType.F64, "key": "blocks.0.drop"}


# ---- reductions, contraction, structure


def _over(m: Maker) -> Attrs:
    dims = m.dims()
    m.floats(*dims)
    return {"over": m.some(dims)}


def _dot(m: Maker) -> Attrs:
    over, batch, left, right = (m.dims(most=1) for _ in range(4))
    m.floats(*m.shuffled(over + batch + left))
    m.floats(*m.shuffled(over + batch + right))
    return {"over": over}


def _split_dim(m: Maker) -> Attrs:
    into = m.dims(1, 2)
    long = m.dim(int(np.prod(shape(into))))
    m.floats(*m.shuffled((long, *m.dims(most=2))))
    return {"dim": long, "into": into}


def _merge_dims(m: Maker) -> Attrs:
    parts = m.dims(1, 2)
    m.floats(*m.shuffled(parts + m.dims(most=2)))
    return {"dims": parts, "into": m.dim(int(np.prod(shape(parts))))}


def _expand(m: Maker) -> Attrs:
    dims = m.dims()
    m.floats(*m.some(dims))
    return {"dims": m.shuffled(dims)}


def _transpose(m: Maker) -> Attrs:
    dims = m.dims()
    m.floats(*dims)
    return {"dims": m.shuffled(dims)}


def _stack(m: Maker) -> Attrs:
    dims, many = m.dims(most=2), int(m.random.integers(1, 4))
    for _ in range(many):
        m.floats(*m.shuffled(dims))
    return {"dim": m.dim(many)}


def _unstack(m: Maker) -> Attrs:
    dim = m.dim()
    m.floats(*m.shuffled((dim, *m.dims(most=2))))
    return {"dim": dim}


def _concat(m: Maker) -> Attrs:
    others, parts = m.dims(most=2), m.dims(1, 3)
    for part in parts:
        m.floats(*m.shuffled((part, *others)))
    return {"dim": m.dim(sum(shape(parts))), "parts": parts}


def _split(m: Maker) -> Attrs:
    parts = m.dims(1, 3)
    dim = m.dim(sum(shape(parts)))
    m.floats(*m.shuffled((dim, *m.dims(most=2))))
    return {"dim": dim, "parts": parts}


def _gather(m: Maker) -> Attrs:
    dim, shared, own, others = m.dim(), m.dims(most=1), m.dims(most=1), m.dims(most=1)
    m.floats(*m.shuffled((dim, *shared, *others)))
    m.ids(dim, *m.shuffled(shared + own))
    return {"dim": dim}


def _scatter_add(m: Maker) -> Attrs:
    dim, shared, own, others = m.dim(), m.dims(most=1), m.dims(most=1), m.dims(most=1)
    m.floats(*m.shuffled(shared + own + others))
    m.ids(dim, *m.shuffled(shared + own))
    return {"dim": dim, "dims": m.shuffled((dim, *shared, *others))}


def _window(m: Maker) -> Attrs:
    """A window that may jump over places, reach beyond both ends, or be larger than the axis."""
    size, stride = m.dim(), int(m.random.integers(1, 4))
    before, after = int(m.random.integers(0, 3)), int(m.random.integers(0, 3))
    least = max(1, (size.size or 0) - before - after)
    dim = m.dim(least + int(m.random.integers(0, 5)))
    out = m.dim(((dim.size or 0) + before + after - (size.size or 0)) // stride + 1)
    if out.size == dim.size and stride == 1 and m.coin():
        out = dim
    return {"dim": dim, "out": out, "size": size, "stride": stride, "before": before, "after": after}


def _windowed(m: Maker) -> Attrs:
    attrs = {**_window(m), "fill": 0.0 if m.coin() else -1.5}
    dim = attrs["dim"]
    assert isinstance(dim, Dim)
    m.floats(*m.shuffled((dim, *m.dims(most=2))))
    return attrs


def _unwindowed(m: Maker) -> Attrs:
    attrs = _window(m)
    out, size = attrs["out"], attrs["size"]
    assert isinstance(out, Dim) and isinstance(size, Dim)
    m.floats(*m.shuffled((out, size, *m.dims(most=2))))
    return attrs


def _collective(*pairs: tuple[str, ...], **attrs: Attr) -> Make:
    """A value of whole dims: on one device a dim before and after is the same."""

    def make(m: Maker) -> Attrs:
        changed = tuple(m.dim() for _ in pairs)
        m.floats(*m.shuffled((*changed, *m.dims(most=2))))
        named = {name: dim for pair, dim in zip(pairs, changed, strict=True) for name in pair}
        return {"axis": "tensor", **named, **attrs}

    return make


def _top(m: Maker) -> Attrs:
    """Whole numbers, so that some are equal."""
    dim = m.dim()
    m.floats(*m.shuffled((dim, *m.dims(most=2))))
    m.arrays[0] = np.round(m.arrays[0])
    return {"dim": dim, "k": int(m.random.integers(1, (dim.size or 1) + 1))}


def _dispatch(m: Maker) -> Attrs:
    """Exactly k truths for each token."""
    dim, experts, rest = m.dim(), m.dim(), m.dims(most=2)
    k = int(m.random.integers(1, (experts.size or 1) + 1))
    dims = m.shuffled((dim, experts, *rest))
    ranks = m.random.random(shape(dims)).argsort(axis=dims.index(experts))
    m.truths(*dims)
    m.arrays[0] = ranks < k
    return {"dim": dim, "experts": experts, "into": m.dim((dim.size or 0) * k), "k": k}


def _ascending(m: Maker, dim: Dim, dims: tuple[Dim, ...]) -> None:
    """Ids as dispatch gives them; an expert may have no row."""
    m.ids(dim, *dims)
    m.arrays[-1] = np.sort(m.arrays[-1], axis=-1)


def _grouped_dot(m: Maker) -> Attrs:
    dim, rows = m.dim(), m.dims(1, 2)
    shared, left, over, outer = (m.dims(most=1) for _ in range(4))
    m.floats(*m.shuffled(shared + rows + left + over))
    m.floats(*m.shuffled((dim, *shared, *over, *outer)))
    _ascending(m, dim, m.shuffled(rows))
    return {"dim": dim, "over": over}


def _grouped_outer(m: Maker) -> Attrs:
    dim, rows = m.dim(), m.dims(1, 2)
    shared, left, inner, outer = (m.dims(most=1) for _ in range(4))
    m.floats(*m.shuffled(shared + rows + left + inner))
    m.floats(*m.shuffled(shared + rows + left + outer))
    _ascending(m, dim, m.shuffled(rows))
    return {"dim": dim, "dims": m.shuffled((dim, *shared, *inner, *outer))}


def _scan(m: Maker) -> Attrs:
    """A carry, a value that each step reads its slice of, and one that every step reads."""
    dim, dims = m.dim(), m.dims(most=2)
    m.floats(*dims)
    m.floats(*m.shuffled((dim, *m.some(dims))))
    m.floats(*m.some(dims))
    emits = ((m.shuffled(dims), DType.F64),)
    return {
        "dim": dim, "reverse": m.coin(), "carries": 1, "steps": 1, "emits": emits, "saves": m.coin(), "rows": dims[:1],
    }  # fmt: skip


def _foreign(m: Maker, backward: bool = False) -> Attrs:
    """Two floating operands that carry different axes, and ids; two results."""
    own, carried = m.dims(most=2), m.dims(most=2)
    attrs: Attrs = {"kernel": "p:f", "operands": (own, own[:1], ()), "results": (own, ()), "options": (("eps", 0.5),)}

    def results() -> None:
        m.floats(*carried, *own)
        m.floats(*carried)

    if backward:
        results()
    m.floats(*carried, *own)
    m.floats(*m.some(carried), *own[:1])
    m.ids(m.dim(), *carried)
    if backward:
        results()
    return attrs if backward else {**attrs, "backward": "p:g" if m.coin() else None}


MAKERS: Mapping[str, Make] = MappingProxyType(
    {
        "parameter": _declared(init=("zeros",), trained=True),
        "state": _declared(init=("zeros",), of=None, role="m"),
        "input": _declared(name="x", below=None),
        "constant": _declared(value=1.5),
        "start": _start,
        "extent": _extent,
        "step": _plain(),
        "seed": _plain(),
        "index": _index,
        "random": _random,
        "gaussian": _random,
        "add": _add,
        "div": _binary(right_positive=True),
        "rem": _rem,
        "pow": _binary(left_positive=True),
        **dict.fromkeys(("sub", "mul", "maximum", "minimum"), _binary()),
        **dict.fromkeys(("neg", "abs", "exp", "tanh", "sigmoid", "erf", "sin", "cos", "stop", "accumulate"), _unary()),
        **dict.fromkeys(("gelu", "gelu_tanh", "silu"), _unary()),
        **dict.fromkeys(("log", "sqrt", "rsqrt"), _unary(positive=True)),
        "floor": _unary(apart=True),
        **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compare),
        **dict.fromkeys(("logical_and", "logical_or"), _logical(2)),
        "logical_not": _logical(1),
        "where": _where,
        "cast": _cast,
        "sum": _over,
        "max": _over,
        "dot": _dot,
        "split_dim": _split_dim,
        "merge_dims": _merge_dims,
        "expand": _expand,
        "transpose": _transpose,
        "stack": _stack,
        "unstack": _unstack,
        "concat": _concat,
        "split": _split,
        "gather": _gather,
        "scatter_add": _scatter_add,
        "top": _top,
        "dispatch": _dispatch,
        "grouped_dot": _grouped_dot,
        "grouped_outer": _grouped_outer,
        "scan": _scan,
        "window": _windowed,
        "unwindow": _unwindowed,
        "all_reduce": _collective(reduction="sum"),
        "partial": _collective(reduction="sum"),
        "all_gather": _collective(("dim", "into")),
        "shard": _collective(("dim", "into")),
        "spread": _collective(("dim", "into")),
        "mask": _collective(("dim",)),
        "reduce_scatter": _collective(("dim", "into"), reduction="sum"),
        "all_to_all": _collective(("split", "split_into"), ("join", "join_into")),
        **dict.fromkeys(("offload", "fetch"), lambda m: m.floats(*m.dims()) or {}),
        "assign": lambda m: m.floats(*m.dims()) or {"target": "w"},
        "foreign": _foreign,
        "foreign_backward": lambda m: _foreign(m, backward=True),
        **KERNEL_MAKERS,
    }
)


def case_of(op: str, seed: int) -> Case:
    """The case that a seed stands for."""
    maker = Maker(np.random.default_rng(seed))
    attrs = MAKERS[op](maker)
    return Case(op, tuple(maker.types), tuple(maker.arrays), MappingProxyType(dict(attrs)))


def node_of(case: Case, builder: Builder | None = None) -> Node:
    """The operator applied to inputs `x0`, `x1`, … of the case's types."""
    b = builder or Builder(GraphBuilder("case"))
    attrs: dict[str, Any] = dict(case.attrs)
    return b.node(case.op, *(b.input(f"x{i}", t.dims, t.dtype) for i, t in enumerate(case.types)), **attrs)
