"""The meaning of some kernel functions as graphs, written here once more: what `inline` is to put in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use
from partita.compiler.ops.registry import REGISTRY


class Body:
    """A closed graph whose inputs are the arguments, in order."""

    def __init__(self, name: str, arguments: Sequence[Use]) -> None:
        self.builder = GraphBuilder(name)
        self.arguments: list[Use] = []
        for number, use in enumerate(arguments):
            attrs: Mapping[str, Attr] = {"name": f"a{number}", "below": None, "dims": use.dims, "dtype": use.dtype}
            node = Node(f"a{number}", "input", (), (TensorType(use.dims, use.dtype),), attrs)
            self.arguments.append(self.builder.add(node).out())

    def __call__(self, op: str, *uses: Use, **attrs: Attr) -> Use:
        outs = REGISTRY[op].infer(tuple(use.type for use in uses), attrs)
        return self.builder.add(Node(self.builder.fresh(op), op, uses, outs, attrs)).out()

    def constant(self, value: float, dtype: DType) -> Use:
        return self("constant", value=value, dims=(), dtype=dtype)

    def finish(self, result: Use) -> Graph:
        self.builder.output("0", result)
        return self.builder.finish()


def _dims(value: Attr) -> Dims:
    assert isinstance(value, tuple)
    return tuple(dim for dim in value if isinstance(dim, Dim))


def _softmax(b: Body, attrs: Mapping[str, Attr]) -> Use:
    (x,) = b.arguments
    over = _dims(attrs["S"])
    e = b("exp", b("sub", x, b("stop", b("max", x, over=over))))
    return b("div", e, b("sum", e, over=over))


def _logsumexp(b: Body, attrs: Mapping[str, Attr]) -> Use:
    (x,) = b.arguments
    over = _dims(attrs["V"])
    top = b("stop", b("max", x, over=over))
    return b("add", b("log", b("sum", b("exp", b("sub", x, top)), over=over)), top)


def _silu(b: Body, _attrs: Mapping[str, Attr]) -> Use:
    """With an axis renamed and back, as a function's own dims are."""
    (x,) = b.arguments
    away = {dim: Dim("own", dim.size) for dim in x.dims[:1]}
    back = {own: dim for dim, own in away.items()}
    return b("mul", x, b("sigmoid", x.relabel(away)).relabel(back))


def _gelu(b: Body, _attrs: Mapping[str, Attr]) -> Use:
    (x,) = b.arguments
    half = b.constant(0.5, x.dtype)
    error = b("erf", b("mul", x, b.constant(2**-0.5, x.dtype)))
    return b("mul", b("mul", half, x), b("add", b.constant(1.0, x.dtype), error))


def _rms_norm(b: Body, attrs: Mapping[str, Attr]) -> Use:
    x, gain = b.arguments
    over = _dims(attrs["D"])
    count = 1.0
    for dim in over:
        assert dim.size is not None
        count *= dim.size
    eps, offset = attrs["eps"], attrs["offset"]
    assert isinstance(eps, float) and isinstance(offset, float)
    mean = b("mul", b("sum", b("mul", x, x), over=over), b.constant(1 / count, x.dtype))
    scaled = b("mul", x, b("rsqrt", b("add", mean, b.constant(eps, x.dtype))))
    return b("mul", scaled, b("add", gain, b.constant(offset, x.dtype)))


_BODIES: Mapping[str, Callable[[Body, Mapping[str, Attr]], Use]] = {
    "softmax": _softmax,
    "logsumexp": _logsumexp,
    "silu": _silu,
    "gelu": _gelu,
    "rms_norm": _rms_norm,
}


def body_of(op: str, uses: Sequence[Use], attrs: Mapping[str, Attr]) -> Graph | None:
    """The body of a kernel function for these arguments, or None where none is written here."""
    write = _BODIES.get(op)
    if write is None:
        return None
    body = Body(op, uses)
    return body.finish(write(body, attrs))
