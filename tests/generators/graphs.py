"""Well-formed random forward graphs with a scalar loss, drawn operator by operator from a table of templates.

In: hypothesis. Out: a graph with fan-out, tied parameters, reuse, odd and prime sizes, sizes of 1, renamed axes and
kernel functions with bodies. Values stay small (what grows goes through tanh), and kinks are kept off the points where
a graph's own structure would put values exactly on them, so that finite differences mean something.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import Dim, Layer

from . import kernel_templates as k
from . import templates as t
from .maker import FLOAT, Maker, Template, parameter

TEMPLATES: dict[str, Template] = {
    "add": t.add,
    "sub": t.binary("sub"),
    "mul": t.binary("mul"),
    "div": t.binary("div", right_positive=True),
    "rem": t.rem,
    "pow": t.binary("pow", left_positive=True),
    "neg": t.unary("neg"),
    "exp": t.unary("exp", "tame"),
    "log": t.unary("log", "positive"),
    "sqrt": t.unary("sqrt", "positive"),
    "rsqrt": t.unary("rsqrt", "positive"),
    "tanh": t.unary("tanh"),
    "sigmoid": t.unary("sigmoid"),
    "erf": t.unary("erf"),
    "sin": t.unary("sin"),
    "cos": t.unary("cos"),
    "floor": t.off_centre("floor"),
    "abs": t.off_centre("abs"),
    "maximum": t.picked("maximum"),
    "minimum": t.picked("minimum"),
    "where": t.where,
    "cast": t.cast,
    "stop": t.stop,
    "sum": t.sum_,
    "max": t.max_,
    "dot": t.dot,
    "renamed dot": t.renamed_dot,
    "split_dim": t.split_dim,
    "merge_dims": t.merge_dims,
    "expand": t.expand,
    "transpose": t.transpose,
    "stack": t.stack,
    "unstack": t.unstack,
    "concat": t.concat,
    "split": t.split,
    "gather": t.gather,
    "scatter_add": t.scatter_add,
    "top": t.top,
    "grouped": t.grouped,
    "window": t.window,
    "scan": t.scan,
    "random": t.random,
    "index": t.index,
    "parameter": t.new_parameter,
    "identities": t.identities,
    "renamed batch": t.renamed_batch,
    "gelu": k.activation("gelu"),
    "gelu_tanh": k.activation("gelu_tanh"),
    "silu": k.activation("silu"),
    "softmax": k.softmax,
    "logsumexp": k.logsumexp,
    "cross_entropy": k.cross_entropy,
    "head": k.head,
    "layer_norm": k.layer_norm,
    "rms_norm": k.rms_norm,
    "attention": k.attention,
    "rotary": k.rotary,
}


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
