"""How a random graph comes to hold each primitive operator: one small function each, drawn by `graphs.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Dim, Dims, DType, Use
from partita.compiler.ops.build import Builder

from .maker import FLOAT, MOST_ELEMENTS, Maker, Template, elements, parameter


def unary(op: str, prepare: str = "") -> Template:
    def template(m: Maker) -> None:
        x = m.value()
        x = m.positive(x) if prepare == "positive" else m.tame(x) if prepare == "tame" else x
        m.keep(m.one(op, x))

    return template


def off_centre(op: str) -> Template:
    """Kinks where nothing but chance puts a value."""

    def template(m: Maker) -> None:
        m.keep(m.one(op, m.one("add", m.value(), m.constant(0.3771))))

    return template


def binary(op: str, right_positive: bool = False, left_positive: bool = False) -> Template:
    def template(m: Maker) -> None:
        a, b = m.value(), m.value()
        if elements(tuple(dict.fromkeys(a.dims + b.dims))) > MOST_ELEMENTS:
            return
        a = m.positive(a) if left_positive else a
        b = m.positive(b) if right_positive else b
        result = m.one(op, a, b)
        m.keep(m.tame(result) if op in {"mul", "div", "pow"} else result)

    return template


def picked(op: str) -> Template:
    """maximum and minimum of a value and a shifted one, so that no tie is built in."""

    def template(m: Maker) -> None:
        a, b = m.value(), m.value()
        if elements(tuple(dict.fromkeys(a.dims + b.dims))) <= MOST_ELEMENTS:
            m.keep(m.one(op, a, m.one("mul", b, m.constant(0.731))))

    return template


def add(m: Maker) -> None:
    terms = m.draw(st.lists(st.sampled_from(m.pool), min_size=2, max_size=4))
    if elements(tuple(dict.fromkeys(dim for use in terms for dim in use.dims))) <= MOST_ELEMENTS:
        m.keep(m.one("add", *terms))


def rem(m: Maker) -> None:
    m.keep(m.one("rem", m.one("add", m.value(), m.constant(0.1234)), m.constant(1.7)))


def truth(m: Maker, x: Use) -> Use:
    """A truth value that depends on data, never decided by structure."""
    op = m.draw(st.sampled_from(["lt", "le", "gt", "ge", "ne", "eq"]))
    return m.one(op, x, m.constant(0.2345))


def where(m: Maker) -> None:
    x = m.value()
    condition = truth(m, x)
    if m.draw(st.booleans()):
        op = m.draw(st.sampled_from(["logical_and", "logical_or"]))
        condition = m.one(op, condition, m.one("logical_not", truth(m, x)))
    m.keep(m.one("where", condition, x, m.one("neg", x) if m.draw(st.booleans()) else m.constant(0.0)))


def cast(m: Maker) -> None:
    wide = m.one("cast", m.value(), to=DType.F64)
    m.keep(m.one("cast", m.one("mul", wide, m.constant(1.25, dtype=DType.F64)), to=FLOAT))


def stop(m: Maker) -> None:
    x = m.value()
    m.keep(m.one("mul", m.one("stop", x), m.tame(x)))


def sum_(m: Maker) -> None:
    x = m.value(1)
    m.keep(m.tame(m.one("sum", x, over=m.subset(x.dims))))


def max_(m: Maker) -> None:
    x = m.value(1)
    over = m.subset(x.dims, 1)
    if over:
        m.keep(m.one("max", x, over=over))


def dot(m: Maker) -> None:
    a, b = m.value(), m.value()
    every = tuple(dict.fromkeys(a.dims + b.dims))
    if elements(every) > 4 * MOST_ELEMENTS:
        return
    over = m.subset([dim for dim in a.dims if dim in b.dims])
    m.keep(m.tame(m.one("dot", a, b, over=over)))


def renamed_dot(m: Maker) -> None:
    """x[A -> A'] against x: what attention does."""
    x = m.value(1)
    free = [dim for dim in x.dims if dim != m.batch]
    if not free or elements(x.dims) > 60:
        return
    seen = m.draw(st.sampled_from(free))
    other = m.dim(seen.size)
    over = m.subset([dim for dim in x.dims if dim != seen])
    m.keep(m.tame(m.one("dot", x, x.relabel({seen: other}), over=over)))


def split_dim(m: Maker) -> None:
    x = m.value(1)
    free = [dim for dim in x.dims if dim != m.batch]
    if free:
        dim = m.draw(st.sampled_from(free))
        assert dim.size is not None
        first = m.draw(st.sampled_from([n for n in range(1, dim.size + 1) if dim.size % n == 0]))
        m.keep(m.one("split_dim", x, dim=dim, into=(m.dim(first), m.dim(dim.size // first))))


def merge_dims(m: Maker) -> None:
    x = m.value(2)
    dims = m.subset(x.dims, 2)
    if dims:
        m.keep(m.one("merge_dims", x, dims=dims, into=m.dim(elements(dims))))


def expand(m: Maker) -> None:
    x = m.value()
    more = tuple(dim for dim in m.some_dims(2) if dim not in x.dims)
    if elements(x.dims + more) <= MOST_ELEMENTS:
        m.keep(m.one("expand", x, dims=tuple(m.draw(st.permutations(x.dims + more)))))


def transpose(m: Maker) -> None:
    x = m.value(2)
    m.keep(m.one("transpose", x, dims=tuple(m.draw(st.permutations(x.dims)))))


def stack(m: Maker) -> None:
    x = m.value()
    same = [use for use in m.pool if set(use.dims) == set(x.dims)]
    parts = m.draw(st.lists(st.sampled_from(same), min_size=1, max_size=3))
    if elements(x.dims) * len(parts) <= MOST_ELEMENTS:
        m.keep(m.one("stack", *parts, dim=m.dim(len(parts))))


def unstack(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*m("unstack", x, dim=dims[0])[:2])


def concat(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims and elements(x.dims) * 2 <= MOST_ELEMENTS:
        part = dims[0]
        assert part.size is not None
        if m.draw(st.booleans()):
            m.keep(m.one("concat", x, x, dim=m.dim(2 * part.size), parts=(part, part)))
        else:
            lone = m.one("sum", x, over=(part,))
            unit = m.dim(1)
            piece = m.one("expand", m.tame(lone), dims=(unit, *lone.dims))
            m.keep(m.one("concat", x, piece, dim=m.dim(part.size + 1), parts=(part, unit)))


def split(m: Maker) -> None:
    x = m.value(1)
    long = [dim for dim in x.dims if dim != m.batch and dim.size is not None and dim.size > 1]
    if long:
        dim = m.draw(st.sampled_from(long))
        assert dim.size is not None
        first = m.draw(st.integers(1, dim.size - 1))
        m.keep(*m("split", x, dim=dim, parts=(m.dim(first), m.dim(dim.size - first))))


def draw_ids(m: Maker, below: Dim, avoid: Dims = ()) -> Use:
    """Token ids: an input, sometimes with the batch."""
    dims = tuple(dim for dim in m.some_dims(2) if dim != below and dim not in avoid)
    if m.batch is not None and m.draw(st.booleans()):
        dims = (m.batch, *dims)
    return m("input", hint="ids", name="ids", below=below, dims=dims, dtype=DType.I64)[0]


def gather(m: Maker) -> None:
    table = m.value(1)
    dims = m.subset(table.dims, 1)
    if dims and elements(table.dims) <= 100:
        ids = draw_ids(m, dims[0])
        if elements(tuple(dict.fromkeys(ids.dims + table.dims))) <= 4 * MOST_ELEMENTS:
            m.keep(m.one("gather", table, ids, dim=dims[0]))


def scatter_add(m: Maker) -> None:
    values = m.value()
    below = m.dim()
    dims = m.subset(values.dims)
    ids = m("input", hint="ids", name="ids", below=below, dims=dims, dtype=DType.I64)[0]
    kept = tuple(dim for dim in values.dims if dim not in dims)
    m.keep(m.tame(m.one("scatter_add", values, ids, dim=below, dims=(below, *kept))))


def scan(m: Maker) -> None:
    """h' = tanh(h * w + x[T = t]), y = sin(h'), along any axis of x, either way; the body keeps every axis apart."""
    x, w = m.value(1), parameter(m)
    free = [dim for dim in x.dims if dim != m.batch]
    dim = m.draw(st.sampled_from(free)) if free else None
    if dim is None or dim in w.dims or elements(tuple(dict.fromkeys(x.dims + w.dims))) > MOST_ELEMENTS:
        return
    step = tuple(axis for axis in x.dims if axis != dim)
    carry = (*step, *(axis for axis in w.dims if axis not in step))
    key = f"scan.{m.made}"
    b = Builder(GraphBuilder(key))
    h, at, gain = b.input("h", carry, FLOAT), b.input("x", step, FLOAT), b.input("w", w.dims, FLOAT)
    after = b.one("tanh", b.one("add", b.one("mul", h, gain), at))
    b.output("0", after)
    b.output("1", b.one("sin", after))
    m.builder.body(key, b.finish())
    start = m.constant(0.25, carry)
    emits = ((carry, FLOAT),)
    last, y, _ = m(
        "scan", start, x, w, body=key, dim=dim, reverse=m.draw(st.booleans()), carries=1, steps=1, emits=emits,
        saves=True, rows=carry,
    )  # fmt: skip
    m.keep(last, y)


def window(m: Maker) -> None:
    """What a convolution reads, and its sum back in place."""
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if not dims:
        return
    dim, size, stride = dims[0], m.dim(m.draw(st.integers(1, 3))), m.draw(st.integers(1, 2))
    before, after = m.draw(st.integers(0, 1)), m.draw(st.integers(1, 2))
    count = ((dim.size or 0) + before + after - (size.size or 0)) // stride + 1
    if count < 1 or elements(x.dims) * 3 > MOST_ELEMENTS:
        return
    fit: dict[str, Any] = {"dim": dim, "out": m.dim(count), "size": size}
    fit |= {"stride": stride, "before": before, "after": after}
    y = m.one("window", x, **fit, fill=m.draw(st.sampled_from([0.0, 0.5])))
    m.keep(y, m.tame(m.one("unwindow", m.one("sin", y), **fit)))


def top(m: Maker) -> None:
    """A value where it is among the largest, another elsewhere."""
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        k = m.draw(st.integers(1, dims[0].size or 1))
        m.keep(m.one("where", m.one("top", x, dim=dims[0], k=k), x, m.constant(0.0)))


def grouped(m: Maker) -> None:
    """Rows sorted by expert: each with its expert's weights, and what an expert's rows have in common."""
    x = m.value(1)
    free = [dim for dim in x.dims if dim != m.batch]
    if not free or elements(x.dims) > 60:
        return
    tokens, experts, k = m.draw(st.sampled_from(free)), m.dim(3), m.draw(st.integers(1, 2))
    over = tuple(dim for dim in free if dim != tokens)[:1]
    w = m("parameter", hint="w", init=("normal", 0.5), trained=True, dims=(experts, *over, m.dim(2)), dtype=FLOAT)[0]
    scores = m.one("dot", x, m.one("tanh", w), over=over)
    scores = m.one("sum", scores, over=tuple(d for d in scores.dims if d not in (m.batch, tokens, experts)))
    pick = m.one("top", scores, dim=experts, k=k)
    token, ids = m("dispatch", pick, dim=tokens, experts=experts, into=m.dim((tokens.size or 0) * k), k=k)
    rows = m.one("gather", x, token, dim=tokens)
    y = m.one("grouped_dot", rows, w, ids, dim=experts, over=over)
    back = (tokens, *(d for d in y.dims if d not in token.dims or d == m.batch))
    m.keep(m.tame(m.one("scatter_add", y, token, dim=tokens, dims=back)))
    if m.batch not in rows.dims:  # a sum over the batch is linear in it, what follows may not be
        kept = (experts, *(d for d in (*rows.dims, *y.dims) if d not in token.dims))
        m.keep(m.tame(m.one("grouped_outer", rows, y, ids, dim=experts, dims=tuple(dict.fromkeys(kept)))))


def random(m: Maker) -> None:
    """Dropout: a mask of uniform numbers, or gaussian noise."""
    x = m.value()
    source = m.draw(st.sampled_from(["random", "gaussian"]))
    starts = [m.start(dim) for dim in x.dims]
    key = f"drop.{m.made}"
    noise = m.one(source, m.one("seed"), m.one("step"), *starts, dims=x.dims, dtype=FLOAT, key=key)
    if source == "random":
        noise = m.one("cast", m.one("ge", noise, m.constant(0.25)), to=FLOAT)
    m.keep(m.tame(m.one("mul", x, noise)))


def index(m: Maker) -> None:
    """A mask of positions."""
    x = m.value(1)
    if x.dims:
        dim = m.draw(st.sampled_from(x.dims))
        if dim != m.batch:
            at = m.one("index", m.start(dim), dim=dim)
            extent = m.one("extent", over=(dim,)) if m.draw(st.booleans()) else m.constant(2, dtype=DType.I64)
            m.keep(m.one("where", m.one("lt", at, extent), x, m.constant(0.5)))


def new_parameter(m: Maker) -> None:
    m.keep(parameter(m))


def identities(m: Maker) -> None:
    """What simplify is to find: x·1, x + 0, −−x, folded constants, the same thing twice."""
    x = m.value()
    one = m.one("add", m.constant(0.25), m.constant(0.75))
    same = m.one("mul", x, m.one("exp", m.constant(0.0)))
    y = m.one("add", m.one("mul", x, one), m.constant(0.0), same, m.one("sin", x))
    m.keep(m.one("sub", m.one("neg", m.one("neg", y)), m.one("tanh", x)), m.one("tanh", x))


def renamed_batch(m: Maker) -> None:
    """The batch under another name for a while."""
    x = m.value()
    if m.batch is not None and m.batch in x.dims:
        rows = Dim("rows", m.batch.size)
        m.keep(m.one("sin", m.one("tanh", x.relabel({m.batch: rows})).relabel({rows: m.batch})))
