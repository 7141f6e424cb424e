"""Well-formed random forward graphs with a scalar loss, drawn operator by operator from a table of templates.

In: hypothesis. Out: a graph with fan-out, tied parameters, reuse, odd and prime sizes, sizes of 1, renamed axes and
kernel functions with bodies. Values stay small (what grows goes through tanh), and kinks are kept off the points where
a graph's own structure would put values exactly on them, so that finite differences mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Attr, Dim, Dims, DType, Layer, Node, Origin, Phase, Use
from partita.compiler.ops.registry import REGISTRY

from .bodies import body_of

SIZES = (1, 2, 3, 4, 5, 7)
MOST_ELEMENTS = 400
FLOAT = DType.F32


@dataclass
class Maker:
    """Applies operators to edges, as gradient rules do, and keeps what has been made."""

    draw: st.DrawFn
    batch: Dim | None
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("random"))
    dims: list[Dim] = field(default_factory=list[Dim])
    pool: list[Use] = field(default_factory=list[Use])
    layer: Layer | None = None
    made: int = 1

    def __call__(
        self, op: str, *uses: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        outs = REGISTRY[op].infer(tuple(use.type for use in uses), attrs)
        once = op in {"parameter", "seed", "step", "start"}
        phase = Phase.PREPARE if once else Phase.FORWARD
        path = f"{self.layer.chain}.{self.layer.index}" if self.layer else ""
        name = self.builder.fresh(f"{path}.{hint or op}" if path else hint or op)
        origin = (Origin("random.partita", self.made),)
        node = Node(name, op, uses, outs, attrs, phase, body, path, self.layer, origin)
        self.builder.add(node)
        self.made += 1
        return tuple(node.out(index) for index in range(len(outs)))

    def one(self, op: str, *uses: Use, **attrs: Any) -> Use:
        return self(op, *uses, **attrs)[0]

    def constant(self, value: bool | int | float, dims: Dims = (), dtype: DType = FLOAT) -> Use:
        return self.one("constant", value=value, dims=dims, dtype=dtype)

    def start(self, dim: Dim) -> Use:
        return self.one("start", dim=dim)

    # ---- choices

    def dim(self, size: int | None = None) -> Dim:
        """A new dim."""
        size = self.draw(st.sampled_from(SIZES)) if size is None else size
        made = Dim(f"{'ABCDEFGH'[len(self.dims) % 8]}{len(self.dims) // 8 or ''}", size)
        self.dims.append(made)
        return made

    def some_dims(self, most: int = 3, least: int = 0) -> Dims:
        """A few of the dims so far (never the batch) in some order, few elements in all."""
        found = self.draw(st.lists(st.sampled_from(self.dims), min_size=least, max_size=most, unique=True))
        while elements(found) > 60 and len(found) > least:
            found.pop()
        return tuple(found)

    def value(self, least: int = 0) -> Use:
        """A value made before, with so many dims beside the batch; a new parameter where there is none."""
        fits = [use for use in self.pool if sum(dim != self.batch for dim in use.dims) >= least]
        if not fits:
            self.keep(parameter(self, least))
            fits = self.pool[-1:]
        return self.draw(st.sampled_from(fits))

    def subset(self, dims: Sequence[Dim], least: int = 0) -> Dims:
        """Some of the dims, never the batch."""
        free = [dim for dim in dims if dim != self.batch]
        if len(free) < least:
            return ()
        return tuple(self.draw(st.lists(st.sampled_from(free), min_size=least, unique=True))) if free else ()

    def keep(self, *uses: Use) -> None:
        """Puts values into the pool, squashed by tanh where they may have grown."""
        for use in uses:
            if use.dtype.is_float and elements(use.dims) <= MOST_ELEMENTS:
                self.pool.append(use)

    def tame(self, use: Use) -> Use:
        return self.one("tanh", use)

    def positive(self, use: Use) -> Use:
        """0.5 + tanh(x)²: away from 0."""
        small = self.tame(use)
        return self.one("add", self.one("mul", small, small), self.constant(0.5))


def elements(dims: Sequence[Dim]) -> int:
    total = 1
    for dim in dims:
        assert dim.size is not None
        total *= dim.size
    return total


Template = Callable[[Maker], None]


def _unary(op: str, prepare: str = "") -> Template:
    def template(m: Maker) -> None:
        x = m.value()
        x = m.positive(x) if prepare == "positive" else m.tame(x) if prepare == "tame" else x
        m.keep(m.one(op, x))

    return template


def _off_centre(op: str) -> Template:
    """Kinks where nothing but chance puts a value."""

    def template(m: Maker) -> None:
        m.keep(m.one(op, m.one("add", m.value(), m.constant(0.3771))))

    return template


def _binary(op: str, right_positive: bool = False, left_positive: bool = False) -> Template:
    def template(m: Maker) -> None:
        a, b = m.value(), m.value()
        if elements(tuple(dict.fromkeys(a.dims + b.dims))) > MOST_ELEMENTS:
            return
        a = m.positive(a) if left_positive else a
        b = m.positive(b) if right_positive else b
        result = m.one(op, a, b)
        m.keep(m.tame(result) if op in {"mul", "div", "pow"} else result)

    return template


def _picked(op: str) -> Template:
    """maximum and minimum of a value and a shifted one, so that no tie is built in."""

    def template(m: Maker) -> None:
        a, b = m.value(), m.value()
        if elements(tuple(dict.fromkeys(a.dims + b.dims))) <= MOST_ELEMENTS:
            m.keep(m.one(op, a, m.one("mul", b, m.constant(0.731))))

    return template


def _add(m: Maker) -> None:
    terms = m.draw(st.lists(st.sampled_from(m.pool), min_size=2, max_size=4))
    if elements(tuple(dict.fromkeys(dim for use in terms for dim in use.dims))) <= MOST_ELEMENTS:
        m.keep(m.one("add", *terms))


def _rem(m: Maker) -> None:
    m.keep(m.one("rem", m.one("add", m.value(), m.constant(0.1234)), m.constant(1.7)))


def _condition(m: Maker, x: Use) -> Use:
    """A truth value that depends on data, never decided by structure."""
    op = m.draw(st.sampled_from(["lt", "le", "gt", "ge", "ne", "eq"]))
    return m.one(op, x, m.constant(0.2345))


def _where(m: Maker) -> None:
    x = m.value()
    condition = _condition(m, x)
    if m.draw(st.booleans()):
        op = m.draw(st.sampled_from(["logical_and", "logical_or"]))
        condition = m.one(op, condition, m.one("logical_not", _condition(m, x)))
    m.keep(m.one("where", condition, x, m.one("neg", x) if m.draw(st.booleans()) else m.constant(0.0)))


def _cast(m: Maker) -> None:
    wide = m.one("cast", m.value(), to=DType.F64)
    m.keep(m.one("cast", m.one("mul", wide, m.constant(1.25, dtype=DType.F64)), to=FLOAT))


def _stop(m: Maker) -> None:
    x = m.value()
    m.keep(m.one("mul", m.one("stop", x), m.tame(x)))


def _sum(m: Maker) -> None:
    x = m.value(1)
    m.keep(m.tame(m.one("sum", x, over=m.subset(x.dims))))


def _max(m: Maker) -> None:
    x = m.value(1)
    over = m.subset(x.dims, 1)
    if over:
        m.keep(m.one("max", x, over=over))


def _dot(m: Maker) -> None:
    a, b = m.value(), m.value()
    every = tuple(dict.fromkeys(a.dims + b.dims))
    if elements(every) > 4 * MOST_ELEMENTS:
        return
    over = m.subset([dim for dim in a.dims if dim in b.dims])
    m.keep(m.tame(m.one("dot", a, b, over=over)))


def _renamed_dot(m: Maker) -> None:
    """x[A -> A'] against x: what attention does."""
    x = m.value(1)
    free = [dim for dim in x.dims if dim != m.batch]
    if not free or elements(x.dims) > 60:
        return
    seen = m.draw(st.sampled_from(free))
    other = m.dim(seen.size)
    over = m.subset([dim for dim in x.dims if dim != seen])
    m.keep(m.tame(m.one("dot", x, x.relabel({seen: other}), over=over)))


def _split_dim(m: Maker) -> None:
    x = m.value(1)
    free = [dim for dim in x.dims if dim != m.batch]
    if free:
        dim = m.draw(st.sampled_from(free))
        assert dim.size is not None
        first = m.draw(st.sampled_from([n for n in range(1, dim.size + 1) if dim.size % n == 0]))
        m.keep(m.one("split_dim", x, dim=dim, into=(m.dim(first), m.dim(dim.size // first))))


def _merge_dims(m: Maker) -> None:
    x = m.value(2)
    dims = m.subset(x.dims, 2)
    if dims:
        m.keep(m.one("merge_dims", x, dims=dims, into=m.dim(elements(dims))))


def _expand(m: Maker) -> None:
    x = m.value()
    more = tuple(dim for dim in m.some_dims(2) if dim not in x.dims)
    if elements(x.dims + more) <= MOST_ELEMENTS:
        m.keep(m.one("expand", x, dims=tuple(m.draw(st.permutations(x.dims + more)))))


def _transpose(m: Maker) -> None:
    x = m.value(2)
    m.keep(m.one("transpose", x, dims=tuple(m.draw(st.permutations(x.dims)))))


def _stack(m: Maker) -> None:
    x = m.value()
    same = [use for use in m.pool if set(use.dims) == set(x.dims)]
    parts = m.draw(st.lists(st.sampled_from(same), min_size=1, max_size=3))
    if elements(x.dims) * len(parts) <= MOST_ELEMENTS:
        m.keep(m.one("stack", *parts, dim=m.dim(len(parts))))


def _unstack(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*m("unstack", x, dim=dims[0])[:2])


def _concat(m: Maker) -> None:
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


def _split(m: Maker) -> None:
    x = m.value(1)
    long = [dim for dim in x.dims if dim != m.batch and dim.size is not None and dim.size > 1]
    if long:
        dim = m.draw(st.sampled_from(long))
        assert dim.size is not None
        first = m.draw(st.integers(1, dim.size - 1))
        m.keep(*m("split", x, dim=dim, parts=(m.dim(first), m.dim(dim.size - first))))


def _ids(m: Maker, below: Dim, avoid: Dims = ()) -> Use:
    """Token ids: an input, sometimes with the batch."""
    dims = tuple(dim for dim in m.some_dims(2) if dim != below and dim not in avoid)
    if m.batch is not None and m.draw(st.booleans()):
        dims = (m.batch, *dims)
    return m("input", hint="ids", name="ids", below=below, dims=dims, dtype=DType.I64)[0]


def _gather(m: Maker) -> None:
    table = m.value(1)
    dims = m.subset(table.dims, 1)
    if dims and elements(table.dims) <= 100:
        ids = _ids(m, dims[0])
        if elements(tuple(dict.fromkeys(ids.dims + table.dims))) <= 4 * MOST_ELEMENTS:
            m.keep(m.one("gather", table, ids, dim=dims[0]))


def _scatter_add(m: Maker) -> None:
    values = m.value()
    below = m.dim()
    dims = m.subset(values.dims)
    ids = m("input", hint="ids", name="ids", below=below, dims=dims, dtype=DType.I64)[0]
    kept = tuple(dim for dim in values.dims if dim not in dims)
    m.keep(m.tame(m.one("scatter_add", values, ids, dim=below, dims=(below, *kept))))


def _random(m: Maker) -> None:
    """Dropout: a mask of uniform numbers, or gaussian noise."""
    x = m.value()
    source = m.draw(st.sampled_from(["random", "gaussian"]))
    starts = [m.start(dim) for dim in x.dims]
    key = f"drop.{m.made}"
    noise = m.one(source, m.one("seed"), m.one("step"), *starts, dims=x.dims, dtype=FLOAT, key=key)
    if source == "random":
        noise = m.one("cast", m.one("ge", noise, m.constant(0.25)), to=FLOAT)
    m.keep(m.tame(m.one("mul", x, noise)))


def _index(m: Maker) -> None:
    """A mask of positions."""
    x = m.value(1)
    if x.dims:
        dim = m.draw(st.sampled_from(x.dims))
        if dim != m.batch:
            at = m.one("index", m.start(dim), dim=dim)
            extent = m.one("extent", over=(dim,)) if m.draw(st.booleans()) else m.constant(2, dtype=DType.I64)
            m.keep(m.one("where", m.one("lt", at, extent), x, m.constant(0.5)))


def _parameter(m: Maker) -> None:
    m.keep(parameter(m))


def _identities(m: Maker) -> None:
    """What simplify is to find: x·1, x + 0, −−x, folded constants, the same thing twice."""
    x = m.value()
    one = m.one("add", m.constant(0.25), m.constant(0.75))
    same = m.one("mul", x, m.one("exp", m.constant(0.0)))
    y = m.one("add", m.one("mul", x, one), m.constant(0.0), same, m.one("sin", x))
    m.keep(m.one("sub", m.one("neg", m.one("neg", y)), m.one("tanh", x)), m.one("tanh", x))


def _renamed_batch(m: Maker) -> None:
    """The batch under another name for a while."""
    x = m.value()
    if m.batch is not None and m.batch in x.dims:
        rows = Dim("rows", m.batch.size)
        m.keep(m.one("sin", m.one("tanh", x.relabel({m.batch: rows})).relabel({rows: m.batch})))


# ---- kernel functions


def _activation(op: str) -> Template:
    def template(m: Maker) -> None:
        m.keep(*kernel(m, op, m.value()))

    return template


def _softmax(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*kernel(m, "softmax", x, S=dims))


def _logsumexp(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*kernel(m, "logsumexp", x, V=dims))


def _cross_entropy(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)[:1]
    if dims:
        others = tuple(dim for dim in x.dims if dim not in dims)
        target = m("input", hint="target", name="target", below=dims[0], dims=others, dtype=DType.I64)[0]
        m.keep(kernel(m, "cross_entropy", x, target, V=dims)[0])


def _layer_norm(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)[:1]
    if dims:
        gain = m("parameter", hint="gain", init=("ones",), trained=True, dims=dims, dtype=FLOAT)
        bias = m("parameter", hint="bias", init=("zeros",), trained=True, dims=dims, dtype=FLOAT)
        more = bias if m.draw(st.booleans()) else ()
        m.keep(kernel(m, "layer_norm", x, *gain, *more, D=dims, eps=0.1)[0])


def _rms_norm(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        gain = m("parameter", hint="gain", init=("ones",), trained=True, dims=dims, dtype=FLOAT)
        m.keep(kernel(m, "rms_norm", x, *gain, D=dims, eps=0.1, offset=m.draw(st.sampled_from([0.0, 1.0])))[0])


def _attention(m: Maker) -> None:
    """q[.., T, G, R, K] and k, v[.., S, G, K] of one parameter-sized value each."""
    t, g, r, k = m.dim(m.draw(st.sampled_from([1, 2, 3]))), m.dim(2), m.dim(2), m.dim(m.draw(st.sampled_from([1, 3])))
    mask = m.draw(st.sampled_from(["causal", "full"]))
    s = m.dim(t.size) if mask == "causal" else m.dim(m.draw(st.sampled_from([1, 3, 4])))
    front = (m.batch,) if m.batch is not None else ()
    q, keys, values = (
        m.one("expand", m("parameter", hint=name, init=("normal", 0.5), trained=True, dims=dims, dtype=FLOAT)[0],
              dims=front + dims)
        for name, dims in (("q", (t, g, r, k)), ("k", (s, g, k)), ("v", (s, g, k)))
    )  # fmt: skip
    starts = (m.start(t), m.start(s)) if mask == "causal" else ()
    attrs: dict[str, Any] = {"T": (t,), "S": (s,), "K": (k,), "G": (g,), "R": (r,)}
    y, *_ = m("attention", q, keys, values, *starts, **attrs, mask=mask, score=None, scale=0.7, drop=0.0)
    m.keep(y)


def _rotary(m: Maker) -> None:
    t, k = m.dim(m.draw(st.sampled_from([1, 3]))), m.dim(m.draw(st.sampled_from([2, 4])))
    x = m("parameter", hint="x", init=("normal", 0.5), trained=True, dims=(t, k), dtype=FLOAT)[0]
    half = m.draw(st.booleans())
    m.keep(*m("rotary", x, m.start(t), T=(t,), K=(k,), base=100.0, half=half, scale=None))


def kernel(m: Maker, op: str, *uses: Use, **attrs: Any) -> tuple[Use, ...]:
    """A kernel function with its body where one is written down (`bodies.py`)."""
    body = body_of(op, uses, attrs)
    if body is None:
        return m(op, *uses, **attrs)
    key = f"{op}.{m.made}"
    m.builder.body(key, body)
    return m(op, *uses, body=key, **attrs)


TEMPLATES: dict[str, Template] = {
    "add": _add,
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "div": _binary("div", right_positive=True),
    "rem": _rem,
    "pow": _binary("pow", left_positive=True),
    "neg": _unary("neg"),
    "exp": _unary("exp", "tame"),
    "log": _unary("log", "positive"),
    "sqrt": _unary("sqrt", "positive"),
    "rsqrt": _unary("rsqrt", "positive"),
    "tanh": _unary("tanh"),
    "sigmoid": _unary("sigmoid"),
    "erf": _unary("erf"),
    "sin": _unary("sin"),
    "cos": _unary("cos"),
    "floor": _off_centre("floor"),
    "abs": _off_centre("abs"),
    "maximum": _picked("maximum"),
    "minimum": _picked("minimum"),
    "where": _where,
    "cast": _cast,
    "stop": _stop,
    "sum": _sum,
    "max": _max,
    "dot": _dot,
    "renamed dot": _renamed_dot,
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
    "random": _random,
    "index": _index,
    "parameter": _parameter,
    "identities": _identities,
    "renamed batch": _renamed_batch,
    "gelu": _activation("gelu"),
    "gelu_tanh": _activation("gelu_tanh"),
    "silu": _activation("silu"),
    "softmax": _softmax,
    "logsumexp": _logsumexp,
    "cross_entropy": _cross_entropy,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "attention": _attention,
    "rotary": _rotary,
}


def parameter(m: Maker, least: int = 0) -> Use:
    while least > len(m.dims):
        m.dim()
    dims = m.some_dims(least=max(least, m.draw(st.integers(0, 1))))
    return m(
        "parameter", hint="w", init=("normal", 0.5), trained=m.draw(st.integers(0, 4)) > 0, dims=dims, dtype=FLOAT
    )[0]


def _leaves(m: Maker) -> None:
    """Some dims, data and parameters to begin with."""
    for _ in range(m.draw(st.integers(2, 4))):
        m.dim()
    front = (m.batch,) if m.batch is not None else ()
    m.keep(m("input", hint="x", name="x", below=None, dims=front + m.some_dims(2), dtype=FLOAT)[0])
    m.keep(m("parameter", hint="w", init=("normal", 0.5), trained=True, dims=m.some_dims(), dtype=FLOAT)[0])
    m.keep(parameter(m))


def _loss(m: Maker) -> None:
    """Sums of the latest values and some others, each with a factor of its own, over all that they have."""
    ends = list(dict.fromkeys([*m.pool[-3:], *m.draw(st.lists(st.sampled_from(m.pool), max_size=3))]))
    terms = [
        m.one("mul", m.one("sum", end, over=end.dims), m.constant(round(0.3 + 0.17 * at, 2)))
        for at, end in enumerate(ends)
    ]
    loss = m.one("add", *terms) if len(terms) > 1 else terms[0]
    m.builder.output("loss", loss)
    if m.draw(st.booleans()):
        m.builder.output("tap", m.pool[-1])


@st.composite
def graphs(draw: st.DrawFn, batch: int | None = None, only: Sequence[str] = (), most: int = 8) -> Graph:
    """A forward graph. batch: its dim `batch` of that size, which nothing mixes. only: templates to choose from.

    One template, the graph's theme (the first of `only`), comes again and again between the others.
    """
    m = Maker(draw, Dim("batch", batch) if batch else None)
    _leaves(m)
    names = list(only or TEMPLATES)
    theme = only[0] if only else draw(st.sampled_from(names))
    others = st.sampled_from(names)
    for step, name in enumerate(draw(st.lists(st.just(theme) | others, min_size=min(3, most), max_size=most))):
        m.layer = Layer("blocks", step // 2) if draw(st.integers(0, 2)) == 0 else None
        TEMPLATES[name](m)
    m.layer = None
    _loss(m)
    return m.builder.finish()
