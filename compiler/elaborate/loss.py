"""A recipe's loss on top of its model: one forward graph with the output `loss`.

The loss is an expression over the model's outputs, inputs and exported values, and the columns of the data. Every axis
may be named in it, and a reduction without dims goes over all of them: `mean(x)` is over the batch too, with its global
size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..base.diagnostic import Diagnostics, Label, SpecError, did_you_mean
from ..ir.graph import DUMP, Graph, GraphBuilder
from ..ir.types import Use
from . import arithmetic as a
from .causality import check_next_token
from .columns import Columns
from .foreign import without_gradient
from .frame import Budget, Fault, Frame
from .load import Spec
from .models import Elaborated, ModelFacts, Request, export_taps, open_model
from .recipe import Recipe, matches
from .sizes import BATCH
from .trace import Trace
from .values import Value, show_dims
from .writer import Writer


def elaborate_loss(
    spec: Spec, recipe: Recipe, *, training: bool = True, budget: Budget | None = None, trace: Trace | None = None,
    keep: Collection[str] = (),
) -> tuple[Graph, ModelFacts]:  # fmt: skip
    """The model with the recipe's sizes and options, and its loss, a scalar. Raises SpecError.

    `keep` names values (exported ones, or nodes) that become outputs `dump/NAME` where there are such, so that they
    stay though nothing reads them. Of several updates this is one (`Recipe.turns`): only its parameters are trained,
    its random numbers are its own.
    """
    chosen = recipe.model
    dims = {**recipe.dims, BATCH: recipe.batch}
    drawn = frozenset(column.name for column in recipe.columns if column.rule == "noise")
    brought = frozenset(column.name for column in recipe.columns)
    options, dtype = dict(chosen.options), recipe.precision.params
    request = Request(
        chosen.size,
        dims,
        options,
        training,
        dtype,
        budget or Budget(),
        trace,
        drawn,
        brought,
        chosen.span,
        ragged=recipe.rows.dim if recipe.rows is not None and recipe.rows.ragged else None,
    )
    made = open_model(spec, chosen.name, request)
    frame = Frame(made.context, made.writer, spec.main, "the loss", "loss", dims=dict(made.frame.dims), open=True)
    try:
        _check_sizes(frame, made, recipe)
        columns = {**made.inputs, **Columns(made, frame).read(recipe.columns)}
        taps = export_taps(made)
        frame.names.update({**columns, **taps, **made.outputs})
        loss = _scalar(frame, frame.evaluate(recipe.loss), recipe)
        check_next_token(frame, made, recipe, columns)
        _check_trainable(frame, made, recipe)
    except Fault:
        raise SpecError(made.context.sink.items) from None
    made.context.sink.raise_if_errors()
    graph = made.writer.finish(made.facts.model, {"loss": loss, **_kept(made.writer, keep, taps)})
    return _of_turn(graph, recipe), made.facts


def _kept(writer: Writer, names: Collection[str], taps: Mapping[str, Use]) -> dict[str, Use]:
    nodes = {node.id: node.out() for node in writer.region.nodes if node.id in names and node.outs}
    known = {**nodes, **taps}
    return {DUMP + name: known[name] for name in names if name in known}


def _check_sizes(frame: Frame, made: Elaborated, recipe: Recipe) -> None:
    """Report inputs whose size nobody says, and inputs that read a stream of ids and are not rows of it."""
    rows, place = recipe.rows, recipe.model.span
    streams = {column.name for column in recipe.columns if column.rule in ("read", "next")} if rows else set[str]()
    ports = {port.name.text: Label(port.span, "it stands here") for port in made.instance.decl.signature.ports}
    for name, use in made.inputs.items():
        own = tuple(dim for dim in use.dims if dim not in frame.dims[BATCH])
        free = ", ".join(dim.name for dim in own if dim.size is None)
        if free:
            title = f"how large is {free}? the model's input `{name}` leaves it free, and `dims` does not bind it"
            raise frame.fault("E0415", title, place, others=(ports[name],), hint=f"dims = [{free} = …]")
        if rows is not None and name in streams and [dim.size for dim in own] != [rows.length]:
            title = f"a row of the data is {rows.length} ids, the model reads `{name}` as {show_dims(own)}"
            hint = None if len(own) == 1 else "the batch is in front of every input and is not written"
            raise frame.fault("E0419", title, place, others=(ports[name],), hint=hint)


def _scalar(frame: Frame, value: Value, recipe: Recipe) -> Use:
    if not isinstance(value, Use):
        raise a.not_a_tensor(frame, value, recipe.loss.span)
    if value.dims:
        title = f"the loss is one number, this is {show_dims(value.dims)}"
        raise frame.fault("E0315", title, recipe.loss.span, hint="take its mean: mean(…)")
    return value


def _check_trainable(frame: Frame, made: Elaborated, recipe: Recipe) -> None:
    """Report a kernel that nobody knows the gradient of, before parameters that are trained."""
    names = [node.id for node in made.writer.parameters if node.op == "parameter"]
    trained = {name for name in names if any(matches(pattern.text, name) for pattern in recipe.params)}
    found = without_gradient(made.writer.region.nodes, trained)
    if found is not None and made.context.training:
        title = f"`{found.attrs['kernel']}` has neither a body nor a `backward`"
        hint = 'write `backward "package:function"` behind its name'
        notes = (f"parameters are trained through {found.id}",)
        frame.report("E0320", title, recipe.loss.span, "this loss has no gradient", notes=notes, hint=hint)


def _of_turn(graph: Graph, recipe: Recipe) -> Graph:
    """The graph of one update: the parameters that its patterns leave out stand still; its randomness is its own."""
    _check_patterns(graph, recipe)
    if not recipe.update and all(pattern.text == "*" for pattern in recipe.params):
        return graph
    builder = GraphBuilder.rewriting(graph)
    for node in graph:
        attrs = dict(node.attrs)
        if node.op == "parameter":
            attrs["trained"] = any(matches(pattern.text, node.id) for pattern in recipe.params)
        if "key" in attrs and recipe.update:
            attrs["key"] = f"{recipe.update}/{attrs['key']}"
        builder.add(replace(node, attrs=attrs))
    return builder.finish(graph.outputs, graph.bodies)


def _check_patterns(graph: Graph, recipe: Recipe) -> None:
    """Report patterns that fit nothing: of parameters that train, of instances that compute again."""
    again = () if recipe.plan is None else recipe.plan.recompute.paths
    names, paths = [node.id for node in graph.nodes("parameter")], sorted({node.path for node in graph if node.path})
    sink = Diagnostics()
    for code, noun, patterns, known in (
        ("E0418", "parameter", recipe.params, names), ("E0421", "instance", again, paths),
    ):  # fmt: skip
        for pattern in patterns:
            if pattern.text != "*" and not any(matches(pattern.text, name) for name in known):
                assert pattern.span is not None, "a pattern of a record has a place"
                hint = did_you_mean(pattern.text, known)
                sink.error(code, f"no {noun} falls to `{pattern.text}`", pattern.span, "", hint=hint)
    sink.raise_if_errors()
