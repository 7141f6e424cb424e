"""Operands for the kernel functions and their gradients; `operands` holds those of the primitives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from partita.compiler.ir.types import Dim, Dims, DType, TensorType, dims_in

from .drawing import Attrs, Make, Maker


def _activation_backward(m: Maker) -> Attrs:
    dims = m.dims()
    m.floats(*dims)
    m.floats(*dims)
    return {}


def _softmax(operands: int) -> Make:
    def make(m: Maker) -> Attrs:
        dims = m.dims(1)
        for _ in range(operands):
            m.floats(*dims)
        return {"S": dims[: int(m.random.integers(1, len(dims) + 1))]}

    return make


def _logsumexp(m: Maker) -> Attrs:
    dims = m.dims(1)
    m.floats(*dims)
    return {"V": m.some(dims) or dims[:1]}


def _logsumexp_backward(m: Maker) -> Attrs:
    dims = m.dims(1)
    over = m.some(dims) or dims[:1]
    kept = tuple(d for d in dims if d not in over)
    m.floats(*kept)
    m.floats(*dims)
    m.floats(*kept, positive=True)
    return {"V": over}


def _cross_entropy(m: Maker) -> Attrs:
    classes, kept = m.dim(), m.dims(most=2)
    m.floats(*m.shuffled((classes, *kept)))
    m.ids(classes, *m.shuffled(kept))
    return {"V": (classes,)}


def _cross_entropy_backward(m: Maker) -> Attrs:
    classes, kept = m.dim(), m.dims(most=2)
    m.floats(*kept)
    m.floats(*kept[:1], classes, *kept[1:])
    m.ids(classes, *m.shuffled(kept))
    m.floats(*kept, positive=True)
    return {"V": (classes,)}


def _linear_cross_entropy(m: Maker) -> Attrs:
    summed, classes, rows = m.dim(), m.dim(), m.dims(1, 2)
    m.floats(*m.shuffled((summed, *rows)))
    m.floats(*m.shuffled((summed, classes)))
    m.ids(classes, *m.shuffled(rows))
    m.floats(*m.some(rows))
    return {"D": summed, "V": classes, "rows": int(m.random.integers(1, 6))}


def _norm_dims(m: Maker) -> tuple[Dims, Dims, Dims]:
    """All axes, those that are normalised, the others."""
    over, kept = m.dims(1, 2), m.dims(most=2)
    dims = m.shuffled(over + kept)
    return dims, over, tuple(d for d in dims if d in kept)


def _layer_norm(m: Maker) -> Attrs:
    dims, over, _ = _norm_dims(m)
    m.floats(*dims)
    for _ in range(2 if m.coin() else 1):
        m.floats(*m.shuffled(over))
    return {"D": over, "eps": 0.1}


def _layer_norm_backward(m: Maker) -> Attrs:
    dims, over, kept = _norm_dims(m)
    m.floats(*dims)
    m.floats(*dims)
    m.floats(*m.shuffled(over))
    m.floats(*kept)
    m.floats(*kept, positive=True)
    return {"D": over, "eps": 0.1, "bias": m.coin()}


def _rms_norm(m: Maker) -> Attrs:
    dims, over, _ = _norm_dims(m)
    m.floats(*dims)
    m.floats(*m.shuffled(over))
    return {"D": over, "eps": 0.1, "offset": float(m.random.integers(0, 2))}


def _rms_norm_backward(m: Maker) -> Attrs:
    dims, over, kept = _norm_dims(m)
    m.floats(*dims)
    m.floats(*dims)
    m.floats(*m.shuffled(over))
    m.floats(*kept, positive=True)
    return {"D": over, "eps": 0.1, "offset": 1.0}


def _rotary(m: Maker) -> Attrs:
    time, channels = m.dim(), m.dim(2 * int(m.random.integers(1, 4)))
    m.floats(*m.shuffled((time, channels, *m.dims(most=2))))
    m.starts(int(m.random.integers(0, 5)))
    return {"T": (time,), "K": (channels,), "base": 100.0, "half": m.coin(), "scale": None}


def _heads(m: Maker) -> tuple[Dims, Dims, Attrs]:
    """The axes of the queries, of the keys, and the attributes of attention over them."""
    t, s, k, g, r = (m.dim(int(m.random.integers(1, 4))) for _ in range(5))
    s = Dim(s.name, t.size) if m.coin() else s
    batch = m.dims(most=1)
    attrs: Attrs = {"T": (t,), "S": (s,), "K": (k,), "G": (g,), "R": (r,)}
    mask = "causal" if m.coin() else "full"
    attrs = {**attrs, "mask": mask, "score": None, "scale": 0.7, "drop": 0.0}
    return m.shuffled((t, k, g, r, *batch)), m.shuffled((s, k, g, *batch)), attrs


def _extras(m: Maker, attrs: Attrs) -> Attrs:
    if m.coin():
        m.truths(*(d for name in "TS" for d in _formal(attrs, name)))
    (t,), (s,) = _formal(attrs, "T"), _formal(attrs, "S")
    if t.size == s.size and m.coin():  # each query finds a key of its document: the one at its place
        batch = tuple(d for d in m.types[1].dims if d not in _formal(attrs, "SKGTR"))
        m.ids(Dim("documents", 3), *batch, t)
        m.arrays[-1] = np.sort(m.arrays[-1], axis=-1)
        m.types.append(TensorType((*batch, s), DType.I64))
        m.arrays.append(m.arrays[-1])
        if attrs["mask"] == "causal":
            m.starts(1, 1)
        return attrs
    if attrs["mask"] == "causal":
        m.starts(int(m.random.integers(0, 3)), int(m.random.integers(0, 2)))
    return attrs


def _formal(attrs: Attrs, names: str) -> Dims:
    return tuple(d for name in names for d in dims_in(attrs[name]))


def _attention(m: Maker) -> Attrs:
    queries, keys, attrs = _heads(m)
    m.floats(*queries)
    m.floats(*keys)
    m.floats(*m.shuffled(keys))
    return _extras(m, attrs)


def _attention_backward(m: Maker) -> Attrs:
    queries, keys, attrs = _heads(m)
    m.floats(*queries)
    m.floats(*queries)
    m.floats(*keys)
    m.floats(*m.shuffled(keys))
    m.floats(*queries)
    m.floats(*(d for d in queries if d not in _formal(attrs, "K")), positive=True)
    return _extras(m, attrs)


def _adamw(m: Maker) -> Attrs:
    dims = m.dims()
    for positive in (False, False, False, True):
        m.floats(*dims, positive=positive)
    m.floats()
    m.floats()
    m.arrays[4:] = [np.asarray(3.0), np.asarray(0.1)]
    return {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1}


KERNEL_MAKERS: Mapping[str, Make] = MappingProxyType(
    {
        **dict.fromkeys(("gelu_backward", "gelu_tanh_backward", "silu_backward"), _activation_backward),
        "softmax": _softmax(1),
        "softmax_backward": _softmax(2),
        "logsumexp": _logsumexp,
        "logsumexp_backward": _logsumexp_backward,
        "cross_entropy": _cross_entropy,
        "linear_cross_entropy": _linear_cross_entropy,
        "cross_entropy_backward": _cross_entropy_backward,
        "layer_norm": _layer_norm,
        "layer_norm_backward": _layer_norm_backward,
        "rms_norm": _rms_norm,
        "rms_norm_backward": _rms_norm_backward,
        "rotary": _rotary,
        "rotary_backward": _rotary,
        "attention": _attention,
        "attention_backward": _attention_backward,
        "adamw": _adamw,
    }
)
