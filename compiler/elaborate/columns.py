"""The columns of a recipe's data as inputs of its graph.

In: a model that is applied to its inputs, and the columns. Out: what the data brings beside the model's inputs, for the
loss. A column that follows another is like it; tensors have the axes that the record writes, and are ids where it names
their bound. What a record writes of a column that the model reads must agree with the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..ir.types import Dims, DType, TensorType, Use
from .frame import Frame
from .models import Elaborated
from .primitives import gaussian
from .recipe import Column
from .sizes import BATCH
from .values import show_dims


@dataclass(frozen=True, slots=True)
class Columns:
    """Makes inputs in the frame of the loss."""

    made: Elaborated
    frame: Frame

    def read(self, columns: Iterable[Column]) -> dict[str, Use]:
        """Inputs by column, of those that the model does not read. Raises Fault, SpecError."""
        found: dict[str, Use] = {}
        for column in columns:
            if column.name in self.made.inputs:
                self._check(column, self.made.inputs[column.name])
            elif column.rule in ("tensors", "noise"):
                found[column.name] = self._own(column)
            else:
                found[column.name] = self._like(column, {**self.made.inputs, **found})
        return found

    def _axes(self, column: Column) -> Dims:
        axes: list[Dims] = [self.frame.dims[BATCH]]
        for name in column.dims:
            if name not in self.frame.dims:
                assert column.span is not None, "a column of a record has a place"
                hint = did_you_mean(name, self.frame.dims)
                raise self.frame.fault("E0201", f"the model has no dim {name}", column.span, hint=hint)
            axes.append(self.frame.dims[name])
        return tuple(dim for group in axes for dim in group)

    def _check(self, column: Column, use: Use) -> None:
        """A column that the model reads: what is written of it must be so."""
        if column.rule not in ("tensors", "noise"):
            return
        wrong = bool(column.dims) and self._axes(column) != use.dims
        if wrong or (column.rule == "noise" and not use.dtype.is_float):
            assert column.span is not None, "a column of a record has a place"
            title = f"the model reads `{column.name}` as {use.dtype.value} {show_dims(use.dims)}"
            raise self.frame.fault("E0419", title, column.span, found=f"{column.rule}({', '.join(column.dims)})")

    def _own(self, column: Column) -> Use:
        dims = self._axes(column)
        if column.rule == "noise":
            assert column.span is not None, "a column of a record has a place"
            return gaussian(self.frame, dims, column.span, column.name)
        writer = self.made.writer
        if column.below is None:
            return writer.input(column.name, TensorType(dims, self.frame.context.dtype))
        below = self.frame.dims.get(column.below, ())
        if len(below) != 1 or column.span is None:
            assert column.span is not None, "a column of a record has a place"
            raise self.frame.fault("E0201", f"the model has no dim {column.below}", column.span)
        use = writer.input(column.name, TensorType(dims, DType.I64), below[0])
        writer.limits[use.value] = below[0]
        return use

    def _like(self, column: Column, known: dict[str, Use]) -> Use:
        of = column.of if column.of is not None else next(iter(self.made.inputs), None)
        if of is None or of not in known:
            names = ", ".join(known) or "none"
            title = f"the column `{column.name}` is made of `{of}`, which is no input of the model"
            hint = did_you_mean(of or "", known)
            raise SpecError(Diagnostic("E0110", title, expected=f"one of {names}", hint=hint))
        like, writer = known[of], self.made.writer
        below = writer.limits.get(like.value)
        use = writer.input(column.name, TensorType(like.dims, like.dtype), below)
        if below is not None:
            writer.limits[use.value] = below
        return use
