"""A recipe's loss on top of its model: one forward graph with the output `loss`.

The loss is an expression over the model's outputs, inputs and exported values, and the columns of the data. Every axis
may be named in it, and a reduction without dims goes over all of them: `mean(x)` is over the batch too, with its global
size.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..ir.graph import Graph
from ..ir.types import TensorType, Use
from . import arithmetic as a
from .causality import check_next_token
from .frame import Budget, Fault, Frame
from .load import Spec
from .models import Elaborated, ModelFacts, Request, export_taps, open_model
from .recipe import Column, Recipe
from .sizes import BATCH
from .trace import Trace
from .values import Value, show_dims


def elaborate_loss(
    spec: Spec, recipe: Recipe, *, training: bool = True, budget: Budget | None = None, trace: Trace | None = None
) -> tuple[Graph, ModelFacts]:
    """The model with the recipe's sizes and options, and its loss, a scalar. Raises SpecError."""
    chosen = recipe.model
    dims = {**recipe.dims, BATCH: recipe.batch}
    precision = recipe.precision.params
    request = Request(chosen.size, dims, dict(chosen.options), training, precision, budget or Budget(), trace)
    made = open_model(spec, chosen.name, request)
    columns = {**made.inputs, **_columns(made, recipe.columns)}
    frame = Frame(
        made.context, made.writer, spec.main, "the loss", "loss",
        names={**columns, **export_taps(made), **made.outputs}, dims=dict(made.frame.dims), open=True,
    )  # fmt: skip
    try:
        loss = _scalar(frame, frame.evaluate(recipe.loss), recipe)
        check_next_token(frame, made, recipe, columns)
    except Fault:
        raise SpecError(made.context.sink.items) from None
    made.context.sink.raise_if_errors()
    return made.writer.finish(made.instance.name, {"loss": loss}), made.facts


def _scalar(frame: Frame, value: Value, recipe: Recipe) -> Use:
    if not isinstance(value, Use):
        raise a.not_a_tensor(frame, value, recipe.loss.span)
    if value.dims:
        title = f"the loss is one number, this is {show_dims(value.dims)}"
        raise frame.fault("E0315", title, recipe.loss.span, hint="take its mean: mean(…)")
    return value


def _columns(made: Elaborated, columns: Iterable[Column]) -> dict[str, Use]:
    """Inputs that the data brings beside the model's: each is like the input that it is made of."""
    found: dict[str, Use] = {}
    for column in columns:
        if column.name in made.inputs:
            continue
        known = {**made.inputs, **found}
        of = column.of if column.of is not None else next(iter(made.inputs), None)
        if of is None or of not in known:
            names = ", ".join(known) or "none"
            title = f"the column `{column.name}` is made of `{of}`, which is no input of the model"
            hint = did_you_mean(of or "", known)
            raise SpecError(Diagnostic("E0110", title, expected=f"one of {names}", hint=hint))
        like = known[of]
        below = made.writer.limits.get(like.value)
        use = made.writer.input(column.name, TensorType(like.dims, like.dtype), below)
        if below is not None:
            made.writer.limits[use.value] = below
        found[column.name] = use
    return found
