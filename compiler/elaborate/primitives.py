"""The functions of the language itself: reductions, contractions, structure, positions, randomness, initialisers.

Each takes a `PrimitiveCall` (what stands in its brackets and its parentheses) and gives a value. The rest of the
standard library is written in the language over these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..base.diagnostic import did_you_mean
from ..base.span import Span
from ..ir.types import Attr, Dim, Dims, DType, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from . import structure, windows
from .forms import written
from .frame import Arguments, Fault, Frame
from .values import UNKNOWN, Initialiser, Value, describe, is_free, is_number, show_dims
from .views import need_axes


@dataclass(frozen=True, slots=True)
class PrimitiveCall:
    """`name[items](args)`; `items` is None where no brackets are written."""

    name: str
    items: tuple[s.ViewItem, ...] | None
    args: Arguments
    span: Span
    hint: str | None


Rule = Callable[[Frame, PrimitiveCall], Value]


def call(
    frame: Frame, name: str, items: tuple[s.ViewItem, ...] | None, args: Arguments, span: Span, hint: str | None
) -> Value:
    """Apply a primitive."""
    return PRIMITIVES[name](frame, PrimitiveCall(name, items, args, span, hint))


# ---- arguments


def operands(frame: Frame, this: PrimitiveCall, count: int, *options: str) -> list[Value]:
    """Exactly `count` positional arguments, and no named ones but `options`."""
    for name, (_, span) in this.args.named.items():
        if name not in options:
            hint = did_you_mean(name, options) or written(this.name)
            raise frame.fault("E0301", f"`{this.name}` has no option `{name}`", span, hint=hint)
    given = [value for value, _ in this.args.positional]
    if len(given) != count:
        wanted = "no argument" if count == 0 else "one argument" if count == 1 else f"{count} arguments"
        title = f"`{this.name}` takes {wanted}, not {len(given)}"
        raise frame.fault("E0302", title, this.span, hint=written(this.name))
    return given


def axes_of(frame: Frame, this: PrimitiveCall) -> Dims:
    """The dims in the brackets, as axes."""
    if this.items is None:
        raise frame.fault("E0305", f"`{this.name}` needs its dims: {this.name}[D]", this.span)
    found: list[Dim] = []
    for item in this.items:
        if not isinstance(item, s.Dim):
            raise frame.fault("E0207", f"`{this.name}` takes dims in its brackets", item.span)
        found += d.axes(frame, item)
    twice = [dim for at, dim in enumerate(found) if dim in found[:at]]
    if twice:
        raise frame.fault("E0204", f"`{this.name}` names {twice[0]} twice", this.span)
    return tuple(found)


def _tensor(frame: Frame, value: Value, span: Span, dtype: DType | None = None) -> Use:
    if isinstance(value, Use) and dtype is None:
        return value
    return a.tensor(frame, value, dtype or a.common_dtype(frame, value), span)


# ---- contraction and reductions


def _dot(frame: Frame, this: PrimitiveCall) -> Value:
    left, right = operands(frame, this, 2)
    over = axes_of(frame, this)
    dtype = a.float_dtype(frame, left, right)
    spans = [span for _, span in this.args.positional]
    x, y = a.tensor(frame, left, dtype, spans[0]), a.tensor(frame, right, dtype, spans[1])
    need_axes(frame, x, over, spans[0], _short(spans[0]))
    need_axes(frame, y, over, spans[1], _short(spans[1]))
    return frame.emit1("dot", x, y, span=this.span, hint=this.hint, over=over)


def _short(span: Span) -> str:
    text = span.text
    return f"`{text}`" if len(text) <= 40 and "\n" not in text else "this"


def _reduced(frame: Frame, this: PrimitiveCall, *options: str) -> tuple[Use, Dims]:
    (value,) = operands(frame, this, 1, *options)
    span = this.args.positional[0][1]
    use = _tensor(frame, value, span)
    if this.items is None and frame.open:
        return use, use.dims
    over = axes_of(frame, this)
    need_axes(frame, use, over, span, _short(span))
    return use, over


def _sum(frame: Frame, this: PrimitiveCall) -> Value:
    use, over = _reduced(frame, this)
    return _sum_over(frame, use, over, this.span, this.hint)


def _sum_over(frame: Frame, use: Use, over: Dims, span: Span, hint: str | None) -> Use:
    x = _tensor(frame, use, span, a.float_dtype(frame, use) if use.dtype is DType.BOOL else use.dtype)
    return frame.emit1("sum", x, span=span, hint=hint, over=over) if over else x


def _mean(frame: Frame, this: PrimitiveCall) -> Value:
    """Σ x / n; with `where`, Σ x w / Σ w, the count a value of its own."""
    use, over = _reduced(frame, this, "where")
    x = _tensor(frame, use, this.span, a.float_dtype(frame, use))
    if "where" in this.args.named:
        weight, span = this.args.named["where"]
        return _weighted_mean(frame, x, _tensor(frame, weight, span, x.dtype), over, this)
    if not over:
        return x
    total = frame.emit1("sum", x, span=this.span, over=over)
    count = d.total(over)
    if count is not None and not _ragged(frame, over):
        scale = a.constant(frame, 1 / count, x.dtype, this.span)
        return frame.emit1("mul", total, scale, span=this.span, hint=this.hint)
    return frame.emit1("div", total, _extent(frame, over, x.dtype, this.span), span=this.span, hint=this.hint)


def _weighted_mean(frame: Frame, x: Use, weight: Use, over: Dims, this: PrimitiveCall) -> Use:
    need = tuple(dim for dim in over if dim not in weight.dims)
    if need:
        weight = structure.arranged(frame, weight, (*weight.dims, *need), this.span)
    product = frame.emit1("mul", x, weight, span=this.span)
    total = frame.emit1("sum", product, span=this.span, over=over)
    count = frame.emit1("sum", weight, span=this.span, hint="count", over=over)
    return frame.emit1("div", total, count, span=this.span, hint=this.hint)


def _max(frame: Frame, this: PrimitiveCall) -> Value:
    use, over = _reduced(frame, this)
    return frame.emit1("max", use, span=this.span, hint=this.hint, over=over) if over else use


def _min(frame: Frame, this: PrimitiveCall) -> Value:
    use, over = _reduced(frame, this)
    if not over:
        return use
    most = frame.emit1("max", frame.emit1("neg", use, span=this.span), span=this.span, over=over)
    return frame.emit1("neg", most, span=this.span, hint=this.hint)


def _extent(frame: Frame, over: Dims, dtype: DType, span: Span) -> Use:
    return a.tensor(frame, frame.emit1("extent", span=span, over=over), dtype, span)


def _ragged(frame: Frame, over: Dims) -> bool:
    """Whether documents of several lengths lie along these axes; the mean over the batch too is the loss's own."""
    name = frame.context.ragged
    batch = any(dim.name == "batch" for dim in over)
    return name is not None and not batch and any(d.called(dim, name) for dim in over)


def size_of(frame: Frame, over: Dims, span: Span) -> Value:
    """A dim's name as a number: its size, or a value of the run time while it is free."""
    known = d.total(over)
    return frame.emit1("extent", span=span, over=over) if known is None else known


# ---- elementwise


def _unary(frame: Frame, this: PrimitiveCall) -> Value:
    (value,) = operands(frame, this, 1)
    return a.unary(frame, this.name, value, this.span, this.hint)


def _where(frame: Frame, this: PrimitiveCall) -> Value:
    condition, yes, no = operands(frame, this, 3)
    spans = [span for _, span in this.args.positional]
    if isinstance(condition, bool):
        return yes if condition else no
    test = a.truth(frame, condition, spans[0])
    both_bool = all(isinstance(v, bool) or (isinstance(v, Use) and v.dtype is DType.BOOL) for v in (yes, no))
    dtype = DType.BOOL if both_bool else a.common_dtype(frame, yes, no)
    x, y = a.tensor(frame, yes, dtype, spans[1]), a.tensor(frame, no, dtype, spans[2])
    return a.joined(frame, frame.emit1("where", test, x, y, span=this.span, hint=this.hint), (x, y, test), this.span)


def _stop(frame: Frame, this: PrimitiveCall) -> Value:
    (value,) = operands(frame, this, 1)
    if not isinstance(value, Use) and is_number(value):
        return value
    return frame.emit1("stop", _tensor(frame, value, this.span), span=this.span, hint=this.hint)


# ---- positions, constants, randomness


def _index(frame: Frame, this: PrimitiveCall) -> Value:
    operands(frame, this, 0)
    over = axes_of(frame, this)
    if len(over) == 1:
        found = frame.emit1("index", frame.output.start(over[0]), span=this.span, hint=this.hint, dim=over[0])
        frame.output.limits[found.value] = over[0]
        return found
    whole = frame.output.dims.fresh("axis", d.total(over), frame.path)
    flat = frame.emit1("index", frame.output.start(whole), span=this.span, dim=whole)
    return frame.emit1("split_dim", flat, span=this.span, hint=this.hint, dim=whole, into=over)


def _length(frame: Frame, this: PrimitiveCall) -> Value:
    operands(frame, this, 0)
    over = axes_of(frame, this)
    return frame.emit1("extent", span=this.span, over=over) if _ragged(frame, over) else size_of(frame, over, this.span)


def _filled(frame: Frame, this: PrimitiveCall) -> Value:
    operands(frame, this, 0)
    attrs: dict[str, Attr] = {"dims": axes_of(frame, this), "dtype": frame.context.dtype}
    return frame.emit1("constant", span=this.span, hint=this.hint, value=float(this.name == "ones"), **attrs)


def _random(frame: Frame, this: PrimitiveCall) -> Value:
    """`random(x)`: one number for each element of x. Keyed by seed, step, the node's name and the logical element."""
    if this.items is None:
        (value,) = operands(frame, this, 1)
        like = _tensor(frame, value, this.span)
        dims, dtype = like.dims, a.float_dtype(frame, like)
    else:
        operands(frame, this, 0)
        dims, dtype = axes_of(frame, this), frame.context.dtype
    return _drawn(frame, this.name, dims, dtype, this.span, this.hint)


def gaussian(frame: Frame, dims: Dims, span: Span, hint: str) -> Use:
    """Numbers from N(0, 1), of these dims."""
    return _drawn(frame, "gaussian", dims, frame.context.dtype, span, hint)


def _drawn(frame: Frame, op: str, dims: Dims, dtype: DType, span: Span, hint: str | None) -> Use:
    keys = (frame.output.key("seed"), frame.output.key("step"), *(frame.output.start(dim) for dim in dims))
    return frame.emit1(op, *keys, span=span, hint=hint, dims=dims, dtype=dtype, key="")


def _initialiser(frame: Frame, this: PrimitiveCall) -> Value:
    counts = {"normal": (0, 1), "uniform": (1, 1), "kaiming": (0, 0), "constant": (1, 1)}[this.name]
    low, high = counts
    values = [value for value, _ in this.args.positional]
    operands(frame, this, min(max(len(values), low), high))
    if frame.context.probing:  # what options and sizes decide is not known yet
        values = [1.0 if value is UNKNOWN or is_free(value) else value for value in values]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if UNKNOWN in values:
        raise Fault
    if len(numbers) != len(values):
        raise frame.fault("E0303", f"`{this.name}` takes a number of the compile time", this.span)
    return Initialiser(this.name, tuple(numbers) or ((0.02,) if this.name == "normal" else ()))


def _top(frame: Frame, this: PrimitiveCall) -> Value:
    """`top[E](x, k)`: true for the k largest along E; of equal ones the first count."""
    value, k = operands(frame, this, 2)
    over = axes_of(frame, this)
    spans = [span for _, span in this.args.positional]
    if len(over) != 1:
        raise frame.fault("E0207", f"`top` looks along a single axis, not {show_dims(over)}", this.span)
    use = _tensor(frame, value, spans[0])
    need_axes(frame, use, over, spans[0], _short(spans[0]))
    if k is UNKNOWN or (frame.context.probing and is_free(k)):
        raise Fault
    if not isinstance(k, int) or isinstance(k, bool):
        raise frame.fault("E0303", f"`top` takes a whole number of the compile time, this is {describe(k)}", spans[1])
    if k < 1 or (over[0].size is not None and k > over[0].size):
        raise frame.fault("E0215", f"{show_dims(over)} has no {k} largest", spans[1])
    return frame.emit1("top", use, span=this.span, hint=this.hint, dim=over[0], k=k)


PRIMITIVES: Mapping[str, Rule] = MappingProxyType(
    {
        "dot": _dot,
        "sum": _sum,
        "mean": _mean,
        "max": _max,
        "min": _min,
        **dict.fromkeys(a.UNARY, _unary),
        "where": _where,
        "stop": _stop,
        "index": _index,
        "length": _length,
        "zeros": _filled,
        "ones": _filled,
        "random": _random,
        "gaussian": _random,
        "stack": lambda frame, this: structure.stack(frame, this.items, this.args, this.span, this.hint),
        "unstack": lambda frame, this: structure.unstack(frame, this.items, this.args, this.span, this.hint),
        "split": lambda frame, this: structure.split(frame, this.items, this.args, this.span, this.hint),
        "concat": lambda frame, this: structure.concat(frame, this.items, this.args, this.span, this.hint),
        "top": _top,
        **dict.fromkeys(("normal", "uniform", "kaiming", "constant"), _initialiser),
        "window": lambda frame, this: windows.window(frame, this.items, this.args, this.span, this.hint),
        "unwindow": lambda frame, this: windows.unwindow(frame, this.items, this.args, this.span, this.hint),
    }
)
