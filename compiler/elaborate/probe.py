"""Looks at a block that no model makes and a function that nothing applies: a file of them is checked too.

The formals are dims without a size, options without a default are unknown, inputs are as the signature says; of a
function only the first argument is taken for a tensor. What only sizes can decide (a division, a `check`, a parameter's
shape) is let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.types import DType, TensorType, Use
from ..language import syntax as s
from . import dims as d
from . import statements
from .blocks import Choice, make_block
from .calls import Given, apply_instance
from .frame import Arguments, Budget, Context, Fault, Frame
from .load import Spec
from .models import RULES
from .sizes import BATCH
from .trace import Trace
from .values import UNKNOWN
from .writer import Writer

_DECIDED_BY_SIZES = frozenset({"E0205", "E0206", "E0210", "E0211", "E0213", "E0307"})


def probe(spec: Spec, block: s.Block, budget: Budget, trace: Trace | None = None) -> Iterator[Diagnostic]:
    """What is wrong with a block whatever its sizes are."""
    context = Context(spec, RULES, training=True, dtype=DType.F32, probing=True, budget=budget, trace=trace)
    with suppress(Fault, SpecError):
        _apply(context, spec, block)
    yield from (item for item in context.sink if item.code not in _DECIDED_BY_SIZES)


def probe_function(spec: Spec, decl: s.Fn, budget: Budget, trace: Trace | None = None) -> Iterator[Diagnostic]:
    """What is wrong with a function whatever it is applied to."""
    context = Context(spec, RULES, training=True, dtype=DType.F32, probing=True, budget=budget, trace=trace)
    writer = Writer(context.dims)
    frame = Frame(context, writer, spec.main, f"fn {decl.name}")
    with suppress(Fault, SpecError):
        if decl.body is not None and (decl.kernel is None or decl.kernel.forward is None):
            _apply_function(frame, writer, decl, decl.body)
    let_through = _DECIDED_BY_SIZES if decl.formals else _DECIDED_BY_SIZES - {"E0307"}
    yield from (item for item in context.sink if item.code not in let_through)


def _apply_function(frame: Frame, writer: Writer, decl: s.Fn, body: s.Expr | s.Body) -> None:
    span = decl.name.span
    for name in (BATCH, *(formal.name.text for formal in decl.formals)):
        frame.dims[name] = (d.fresh(frame, name, None, span),)
    x = writer.input("input x", TensorType(tuple(axes[0] for axes in frame.dims.values()), DType.F32))
    for at, option in enumerate(decl.options):
        unknown = option.type is not None or at > 0
        value = frame.evaluate(option.default) if option.default is not None else UNKNOWN if unknown else x
        frame.names[option.name.text] = value
    frame.dims.pop(BATCH)
    frame.carried = [x.dims[0]]
    statements.body_value(frame, body)


def _apply(context: Context, spec: Spec, block: s.Block) -> None:
    writer = Writer(context.dims)
    frame = Frame(context, writer, spec.main, f"block {block.name}")
    span = block.name.span
    formals = {formal.name.text: formal for formal in block.formals}
    signature = [part.name for port in block.signature.ports for dim in port.dims or () for part in _names(dim)]
    for name in dict.fromkeys((BATCH, *formals, *signature)):
        frame.dims[name] = (d.fresh(frame, name, None, span),)
    given = {name: frame.dims[name] for name, formal in formals.items() if formal.default is None}
    written = s.Constructor(span, s.QName(span, (block.name,)), (), ())
    instance = make_block(frame, Choice(block, spec.main, given, Arguments(), written), "")
    frame.dims.update({name: axes for name, axes in instance.dims.items() if name in formals})
    inputs: Given = {port.name.text: (_input(frame, writer, port), port.span) for port in block.signature.ports}
    apply_instance(frame, instance, (), inputs, span)


def _names(dim: s.Dim) -> list[s.DimRef]:
    return [part for part in s.walk(dim) if isinstance(part, s.DimRef)]


def _input(frame: Frame, writer: Writer, port: s.Port) -> Use:
    """An argument that fits the port."""
    axes = tuple(axis for dim in port.dims or () for axis in d.axes(frame, dim))
    batch = () if frame.dims[BATCH][0] in axes else frame.dims[BATCH]
    domain = port.domain.text if port.domain is not None else None
    dtype = {None: DType.F32, "bool": DType.BOOL}.get(domain, DType.I64)
    return writer.input(f"input {port.name}", TensorType((*batch, *axes), dtype))
