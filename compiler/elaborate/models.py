"""A model of a spec as a graph.

In: a spec, a model's name, a row of its sizes, dims, options. Out: the forward graph (inputs with `batch` in front,
parameters, nodes, outputs by port) and the facts about it that weights, reports and recipes need. Raises SpecError with
everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..base.diagnostic import Diagnostic, Label, SpecError, did_you_mean
from ..base.span import Span
from ..ir.graph import Graph
from ..ir.types import Dim, DType, Node, Phase, TensorType, Use
from ..language import syntax as s
from . import chain, functions, primitives, scan
from . import dims as d
from .blocks import declarations
from .calls import Given, apply_instance
from .derived import Named, extend, named
from .expressions import EXPRESSIONS
from .frame import Budget, Context, Fault, Frame, Rules
from .load import Module, Spec
from .owned import all_parameters, all_states, count_owned
from .primitives import PRIMITIVES, gaussian
from .sizes import BATCH, SizeRow, base_dims, batch_is_carried, bind_model_dims, bind_model_options, size_row, sizes_of
from .trace import Trace
from .values import Chain, Initialiser, Instance, Value, describe, function_text
from .writer import DimNames, Writer

RULES = Rules(
    EXPRESSIONS, functions.apply_function, chain.call, primitives.call, chain.make, scan.scan,
    frozenset(PRIMITIVES),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PortFact:
    """An input or output: its dims by name, and what its ids are below."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    below: str | None


@dataclass(frozen=True, slots=True)
class ChainFact:
    """A repetition: where, over which dim, how often, of which block."""

    path: str
    dim: str
    count: int
    block: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model beside its graph. `dims` are the names that the model's own text knows."""

    model: str
    size: str | None
    parameters: int
    options: Mapping[str, str]
    inputs: tuple[PortFact, ...]
    outputs: tuple[PortFact, ...]
    taps: tuple[str, ...]
    chains: tuple[ChainFact, ...]
    dims: Mapping[str, Dim]
    parameter_dims: Mapping[str, tuple[str, ...]] = field(repr=False)


@dataclass(slots=True)
class Elaborated:
    """A model applied to its inputs, still open: a recipe's loss is written on top of it."""

    context: Context
    writer: Writer
    frame: Frame
    instance: Instance
    inputs: dict[str, Use]
    outputs: dict[str, Use]
    facts: ModelFacts
    sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    size: str | None = None
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    training: bool = False
    dtype: DType = DType.F32
    budget: Budget = field(default_factory=Budget)
    trace: Trace | None = None
    drawn: frozenset[str] = frozenset()  # inputs that are drawn from N(0, 1), where else data would be read
    brought: frozenset[str] = frozenset()  # inputs that the data brings, though they have a default
    asked: Span | None = None  # where the size is asked for
    ragged: str | None = None  # the tokens' axis of rows of documents: its length is a value of the run time


def elaborate_model(
    spec: Spec, model: str | None = None, *, size: str | None = None, dims: Mapping[str, int] | None = None,
    options: Mapping[str, object] | None = None, training: bool = False, dtype: DType = DType.F32,
    ragged: str | None = None,
) -> tuple[Graph, ModelFacts]:  # fmt: skip
    """The forward graph of a model. Free dims that `dims` does not bind keep the size None.

    Options are numbers, texts, booleans, None, or expressions of the syntax tree. Raises SpecError.
    """
    made = open_model(spec, model, Request(size, dims or {}, options or {}, training, dtype, ragged=ragged))
    taps = export_taps(made)
    made.context.sink.raise_if_errors()
    return made.writer.finish(made.facts.model, {**made.outputs, **taps}), made.facts


def open_model(spec: Spec, model: str | None, request: Request) -> Elaborated:
    """Elaborate a model and leave its graph open. Raises SpecError."""
    return _guarded(_context(spec, request), model, request, apply=True)


def make_model(spec: Spec, model: str | None, request: Request) -> Elaborated:
    """Make a model without applying it: its sizes, its blocks' checks, its parameters. Raises SpecError."""
    return _guarded(_context(spec, request), model, request, apply=False)


def _context(spec: Spec, request: Request) -> Context:
    training, dtype = request.training, request.dtype
    return Context(spec, RULES, training, dtype, budget=request.budget, trace=request.trace, ragged=request.ragged)


def _guarded(context: Context, model: str | None, request: Request, apply: bool) -> Elaborated:
    try:
        return _open(context, model, request, apply)
    except Fault:
        assert context.sink.errors, "a fault is reported"
        raise SpecError(context.sink.items) from None
    except RecursionError:
        context.sink.add(Diagnostic("E0311", "the spec is nested too deeply to be elaborated"))
        raise SpecError(context.sink.items) from None


def _open(context: Context, model: str | None, request: Request, apply: bool) -> Elaborated:
    found = _find_model(context.spec, model)
    decl, module, layers = found.decl, found.module, found.layers
    assert decl is not None, "a model that was found"
    writer = Writer(context.dims)
    frame = Frame(context, writer, module, f"model {decl.name}")
    instance = Instance(decl, module, "", decl.name.span, frame.names, frame.dims)
    row = size_row(frame, found.sized, request.size or found.row, request.asked)
    batch_is_carried(frame, decl, row, request.dims)
    bind_model_dims(frame, decl, layers, row, {**base_dims(frame, layers), **request.dims})
    bind_model_options(frame, decl, layers, row, request.options)
    instance.later = declarations(frame, instance, decl.body, set())
    for derived, home in reversed(layers):
        extend(frame, derived, home, instance)
    total = _write_parameters(frame, writer, instance) if apply else 0
    context.sink.raise_if_errors()
    ports = [p for p in decl.signature.ports if p.default is None or p.name.text in request.brought]
    inputs = {port.name.text: _input(frame, writer, port, request.drawn) for port in ports}
    outputs: dict[str, Use] = {}
    if apply:
        given: Given = {port.name.text: (inputs[port.name.text], port.span) for port in ports}
        value = _apply(frame, instance, given, decl.name.span)
        context.sink.raise_if_errors()
        outputs = _outputs(decl, value)
    facts = _facts(found.name.text, row, total, frame, instance, inputs, outputs, writer)
    return Elaborated(context, writer, frame, instance, inputs, outputs, facts, sizes_of(found.sized))


def _apply(frame: Frame, instance: Instance, given: Given, span: Span) -> Value:
    """The model reads its inputs; its own frame has no caller to show."""
    kept, frame.dims = frame.dims, dict(frame.dims)
    try:
        return apply_instance(frame, instance, (), given, span)
    finally:
        frame.dims = kept


# ---- which model


def lineage(spec: Spec, model: str | None) -> list[s.Model | s.Derived]:
    """A model and those that it is derived from, in this order. Raises SpecError."""
    found = _find_model(spec, model)
    assert found.decl is not None, "a model that was found"
    return [*(derived for derived, _ in found.layers), found.decl]


def _find_model(spec: Spec, name: str | None) -> Named:
    """The model of a name, or the spec's first. Raises SpecError."""
    models = spec.models
    if not models:
        raise SpecError(Diagnostic("E0110", "the spec declares no model"))
    chosen = name if name is not None else next(iter(models))
    span = spec.main.file.span
    found = named(spec.main, s.QName(span, (s.Name(span, chosen),)))
    if found is None or found.decl is None:
        raise SpecError(_no_model(found.missing if found else chosen, models, found.layers if found else []))
    return found


def _no_model(name: str, models: Mapping[str, object], layers: Sequence[tuple[s.Derived, Module]]) -> Diagnostic:
    labels = (Label(layers[-1][0].base.span),) if layers else ()
    hint = did_you_mean(name, models)
    expected = "one of " + ", ".join(models)
    return Diagnostic("E0110", f"there is no model `{name}`", labels, hint=hint, expected=expected)


# ---- parameters, inputs, outputs


def _write_parameters(frame: Frame, writer: Writer, instance: Instance) -> int:
    """A node for each parameter; the `init` statement that matches last decides how it begins. How many elements."""
    context = frame.context
    context.sink.raise_if_errors()
    unused = {id(path): (path, where) for path, _, _, where in context.inits}
    total = 0
    context.spend_nodes(frame, count_owned(instance), instance.decl.name.span)
    for name, parameter, layer in all_parameters(instance):
        init: Value = parameter.init
        steps = name.split(".")
        for path, pattern, value, _ in context.inits:
            if len(pattern) == len(steps) and all(p in ("*", step) for p, step in zip(pattern, steps, strict=True)):
                init = value
                unused.pop(id(path), None)
        assert isinstance(init, Initialiser), f"{name} begins as {init}"
        attrs = {"dims": parameter.dims, "dtype": context.dtype, "init": init.attr, "trained": True}
        out = TensorType(parameter.dims, context.dtype)
        origin = frame.place(parameter.span).origin
        owner = name.rpartition(".")[0]
        writer.parameter(Node(name, "parameter", (), (out,), attrs, Phase.PREPARE, None, owner, layer, origin))
        total += d.total(parameter.dims) or 1
    for name, state, layer in all_states(instance):
        attrs = {"dims": state.dims, "dtype": context.dtype, "init": state.init.attr, "of": None, "role": "model"}
        out = TensorType(state.dims, context.dtype)
        owner, origin = name.rpartition(".")[0], frame.place(state.span).origin
        writer.parameter(Node(name, "state", (), (out,), attrs, Phase.PREPARE, None, owner, layer, origin))
    for path, where in unused.values():
        names = [name for name, _, _ in all_parameters(instance)]
        hint = did_you_mean(path.text, names)
        where.report("E0107", f"no parameter is called {path.text}", path.span, hint=hint)
    return total


def _input(frame: Frame, writer: Writer, port: s.Port, drawn: frozenset[str]) -> Use:
    """An input of the model: data of a microbatch, `batch` in front."""
    dims = tuple(axis for dim in port.dims or () for axis in d.axes(frame, dim))
    if not any(dim in dims for dim in frame.dims[BATCH]):
        dims = (*frame.dims[BATCH], *dims)
    if port.name.text in drawn and port.domain is None:
        return gaussian(frame, dims, port.span, port.name.text)
    if port.domain is None:
        return writer.input(port.name.text, TensorType(dims, frame.context.dtype))
    if port.domain.text == "bool":
        return writer.input(port.name.text, TensorType(dims, DType.BOOL))
    bound = d.axes(frame, s.DimRef(port.domain.span, port.domain.text))
    use = writer.input(port.name.text, TensorType(dims, DType.I64), bound[0])
    writer.limits[use.value] = bound[0]
    return use


def _outputs(decl: s.Model, value: Value) -> dict[str, Use]:
    """The outputs by name; `out`, `out.1`, … without one."""
    values = value if isinstance(value, tuple) else (value,)
    found: dict[str, Use] = {}
    for out, use in zip(decl.signature.outs, values, strict=True):
        assert isinstance(use, Use), describe(use)
        wanted = out.name.text if out.name is not None else "out"
        name = wanted if wanted not in found else f"{wanted}.{len(found)}"
        found[name] = use
    return found


def export_taps(made: Elaborated) -> dict[str, Use]:
    """Exported values by name; where two have one name, the second is called by its path."""
    found: dict[str, Use] = {}
    for name, path, use in made.writer.taps:
        free = name not in found and name not in made.outputs
        found[name if free else f"{path}.{name}"] = use
    return found


# ---- facts


def _facts(
    model: str, row: SizeRow | None, total: int, frame: Frame, instance: Instance, inputs: Mapping[str, Use],
    outputs: Mapping[str, Use], writer: Writer,
) -> ModelFacts:  # fmt: skip
    ports = tuple(_port_fact(name, use, writer) for name, use in inputs.items())
    outs = tuple(_port_fact(name, use, writer) for name, use in outputs.items())
    options = {name: _option_text(frame.names[name]) for name in (o.name.text for o in instance.decl.options)}
    dims = {name: axes[0] for name, axes in frame.dims.items() if len(axes) == 1}
    shapes = {
        node.id: tuple(dim.name for dim in node.outs[0].dims) for node in writer.parameters if node.op == "parameter"
    }
    taps = tuple(name for name, _, _ in writer.taps)
    size = row.label if row is not None else None
    return ModelFacts(model, size, total, options, ports, outs, taps, tuple(_chains(instance)), dims, shapes)


def _port_fact(name: str, use: Use, writer: Writer) -> PortFact:
    below = writer.limits.get(use.value)
    return PortFact(name, tuple(dim.name for dim in use.dims), use.dtype, below.name if below else None)


def _option_text(value: Value) -> str:
    return function_text(value) or (str(value).lower() if isinstance(value, bool) else str(value))


def _chains(instance: Instance) -> list[ChainFact]:
    found: list[ChainFact] = []
    for value in instance.names.values():
        if isinstance(value, Chain):
            template = value.templates[0]
            if not value.is_bank:
                found.append(ChainFact(value.path, value.dim.name, len(value.kinds), template.name))
            found += _chains(template)
        elif isinstance(value, Instance):
            found += _chains(value)
    return found


__all__ = ["DimNames", "ModelFacts", "Request", "elaborate_model", "export_taps", "lineage", "make_model", "open_model"]
