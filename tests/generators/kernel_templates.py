"""How a random graph comes to hold each kernel function, with its body where `bodies.py` has one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from partita.compiler.ir.types import DType

from .maker import FLOAT, Maker, Template, kernel


def activation(op: str) -> Template:
    def template(m: Maker) -> None:
        m.keep(*kernel(m, op, m.value()))

    return template


def softmax(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*kernel(m, "softmax", x, S=dims))


def logsumexp(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        m.keep(*kernel(m, "logsumexp", x, V=dims))


def cross_entropy(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)[:1]
    if dims:
        others = tuple(dim for dim in x.dims if dim not in dims)
        target = m("input", hint="target", name="target", below=dims[0], dims=others, dtype=DType.I64)[0]
        m.keep(kernel(m, "cross_entropy", x, target, V=dims)[0])


def head(m: Maker) -> None:
    """A product that only a cross-entropy reads."""
    x = m.value(1)
    inner = m.subset(x.dims, 1)
    if not inner:
        return
    summed, classes = inner[0], m.dim()
    dims = (classes, summed) if m.draw(st.booleans()) else (summed, classes)
    weight = m("parameter", hint="w", init=("normal", 0.5), trained=True, dims=dims, dtype=FLOAT)[0]
    logits = m.one("dot", x, weight, over=(summed,))
    rows = tuple(dim for dim in logits.dims if dim != classes)
    target = m("input", hint="target", name="target", below=classes, dims=rows, dtype=DType.I64)[0]
    m.keep(kernel(m, "cross_entropy", logits, target, V=(classes,))[0])


def layer_norm(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)[:1]
    if dims:
        gain = m("parameter", hint="gain", init=("ones",), trained=True, dims=dims, dtype=FLOAT)
        bias = m("parameter", hint="bias", init=("zeros",), trained=True, dims=dims, dtype=FLOAT)
        more = bias if m.draw(st.booleans()) else ()
        m.keep(kernel(m, "layer_norm", x, *gain, *more, D=dims, eps=0.1)[0])


def rms_norm(m: Maker) -> None:
    x = m.value(1)
    dims = m.subset(x.dims, 1)
    if dims:
        gain = m("parameter", hint="gain", init=("ones",), trained=True, dims=dims, dtype=FLOAT)
        m.keep(kernel(m, "rms_norm", x, *gain, D=dims, eps=0.1, offset=m.draw(st.sampled_from([0.0, 1.0])))[0])


def attention(m: Maker) -> None:
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


def rotary(m: Maker) -> None:
    t, k = m.dim(m.draw(st.sampled_from([1, 3]))), m.dim(m.draw(st.sampled_from([2, 4])))
    x = m("parameter", hint="x", init=("normal", 0.5), trained=True, dims=(t, k), dtype=FLOAT)[0]
    half = m.draw(st.booleans())
    m.keep(*m("rotary", x, m.start(t), T=(t,), K=(k,), base=100.0, half=half, scale=None))
