"""Calls of std's kernel functions: one node that carries its meaning with it.

The function's body is elaborated as a closed graph (inputs named as the arguments, then the starts and keys that it
needs), once for each combination of argument types, dims and options. Where an operator cannot say what is asked (an
option that is a tensor, an axis more on a gain), the body stands in the node's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..base.span import Span
from ..ir.graph import Graph
from ..ir.types import Attr, Dim, DType, TensorType, Use
from ..ops.definition import TypeRuleError
from ..ops.registry import REGISTRY
from . import arithmetic as a
from . import statements
from .frame import Frame
from .structure import arranged
from .values import Function, Primitive, Value, function_text
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Body:
    """A body made: the function's name, its key, and the starts and keys that it takes after the arguments."""

    name: str
    key: str
    graph: Graph
    starts: tuple[Dim, ...]
    keys: tuple[str, ...]


class Unsayable(Exception):
    """The operator cannot express this call."""


def is_kernel(function: Function) -> bool:
    """Whether a function of std has an operator of its own."""
    definition = REGISTRY.get(function.name)
    return (
        function.decl.kernel is not None
        and function.module.is_std
        and definition is not None
        and definition.kernel == function.name
    )


def call_kernel(frame: Frame, function: Function, inner: Frame, span: Span, hint: str | None) -> Value:
    """One node, or the body in its place. `inner` holds the arguments by name."""
    body_of = function.decl.body
    assert body_of is not None, "a kernel with a meaning has a body"
    try:
        attrs = _attributes(function, inner)
        operands = _operands(frame, function, inner, attrs, span)
        body = meaning(function.name, function, inner, attrs, operands)
    except (Unsayable, TypeRuleError):
        return statements.body_value(inner, body_of, hint)
    frame.output.body(body.key, body.graph)
    uses = [*operands.values(), *map(frame.output.start, body.starts), *map(frame.output.key, body.keys)]
    results = frame.emit(function.name, *uses, span=span, hint=hint, body=body.key, **attrs)
    given = results[: len(body.graph.outputs)]
    return given[0] if len(given) == 1 else given


# ---- what the node says


def _attributes(function: Function, inner: Frame) -> dict[str, Attr]:
    """The operator's attributes: dims by the formals' names, options by theirs."""
    attrs: dict[str, Attr] = {}
    for name in REGISTRY[function.name].attrs:
        if name in inner.dims:
            attrs[name] = inner.dims[name]
        elif name in inner.names:
            attrs[name] = _attribute(name, inner.names[name], inner)
        else:
            raise Unsayable
    return attrs


def _attribute(name: str, value: Value, inner: Frame) -> Attr:
    if name == "drop" and not inner.context.training:
        return 0.0
    if isinstance(value, Function | Primitive):
        text = function_text(value)
        if text is None:
            raise Unsayable
        return text
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Unsayable


def _operands(frame: Frame, function: Function, inner: Frame, attrs: Mapping[str, Attr], span: Span) -> dict[str, Use]:
    """The tensors among the arguments. One that is left at its default (`keep = true`, `bias = none`) is no operand."""
    written = [option for option in function.decl.options if option.name.text not in attrs]
    values = {option.name.text: inner.names[option.name.text] for option in written}
    floats = a.float_dtype(frame, *values.values())
    operands: dict[str, Use] = {}
    for option in written:
        value = values[option.name.text]
        if isinstance(value, Use):
            dtype = floats if value.dtype.is_float else value.dtype
            operands[option.name.text] = a.tensor(frame, value, dtype, span)
        elif option.default is None and isinstance(value, int | float):
            operands[option.name.text] = a.constant(frame, value, floats, span)
        elif not (value is None or value is True):
            raise Unsayable
    return operands


# ---- what it means


def meaning(
    op: str, function: Function, inner: Frame, attrs: Mapping[str, Attr], operands: Mapping[str, Use]
) -> Body:  # fmt: skip
    """The function's body as a graph, made once for all calls of the operator that are alike.

    Raises TypeRuleError or Unsayable where the operator does not fit what the body says.
    """
    types = tuple((name, use.type) for name, use in operands.items())
    memory = inner.context.kernels
    key = (op, id(function.decl), tuple(attrs.items()), types, inner.context.training)
    if key not in memory:
        memory[key] = _make_body(op, function, inner, attrs, operands)
    return memory[key]


def _make_body(
    op: str, function: Function, inner: Frame, attrs: Mapping[str, Attr], operands: Mapping[str, Use]
) -> Body:  # fmt: skip
    context = inner.context
    outside = {dim for use in operands.values() for dim in use.dims} | {d for ds in inner.dims.values() for d in ds}
    writer = Writer(context.dims, frozenset(outside))
    names = {name: writer.input(name, use.type) for name, use in operands.items()}
    frame = replace(
        inner, output=writer, path="", layer=None, names={**inner.names, **names}, dims=dict(inner.dims), unnamed={}
    )
    assert function.decl.body is not None, "a kernel with a meaning has a body"
    value = statements.body_value(frame, function.decl.body)
    starts = _starts(writer, inner)
    keys = tuple(kind for kind in ("seed", "step") if kind in writer.leaves and kind not in operands)
    scalars = (TensorType((), DType.I64),) * (len(starts) + len(keys))
    outs = REGISTRY[op].infer((*(use.type for use in operands.values()), *scalars), attrs)
    results = _results(frame, value, outs, function.decl.span)
    order = [*operands, *(f"start.{dim}" for dim in starts), *keys]
    rest = [name for name in writer.leaves if name not in order]
    writer.leaves = {name: writer.leaves[name] for name in (*order, *rest)}
    number = sum(known.name == function.name for known in context.kernels.values())
    key = f"{function.name}.{number}" if number else function.name
    graph = writer.finish(key, {str(index): use for index, use in enumerate(results)})
    return Body(function.name, key, graph, starts, keys)


def _results(frame: Frame, value: Value, outs: tuple[TensorType, ...], span: Span) -> list[Use]:
    """The body's results, their axes in the order of the operator's."""
    values = value if isinstance(value, tuple) else (value,)
    if len(values) > len(outs):
        raise Unsayable
    found: list[Use] = []
    for part, out in zip(values, outs, strict=False):
        if not isinstance(part, Use) or set(part.dims) != set(out.dims):
            raise Unsayable
        found.append(arranged(frame, a.tensor(frame, part, out.dtype, span), out.dims, span))
    return found


def _starts(writer: Writer, inner: Frame) -> tuple[Dim, ...]:
    """The dims whose starts the body reads from outside, those of the formals first and in their order."""
    assert writer.outside is not None, "a body"
    by_name = {f"start.{dim}": dim for dim in writer.outside}
    formals = [dim for dims in inner.dims.values() for dim in dims]
    found = [by_name[name] for name in writer.leaves if name in by_name]
    return (*(dim for dim in formals if dim in found), *(dim for dim in found if dim not in formals))
