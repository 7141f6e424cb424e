"""An operator written again on operands that have got the axis of the rows, or that of their tokens.

In: a node, and its operands in a new graph. Out: its results there: types are inferred again, what names axes names
the new ones too, and the order of axes is the old one with the new in front. `documents.py` rewrites a graph by this:
positions, which were one vector for all rows, are a matrix where each row has documents of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.types import Attr, Dim, Dims, Node, Use
from ..ops import attributes
from ..ops.build import Builder
from ..ops.registry import REGISTRY
from .of_document import in_front


@dataclass(frozen=True)
class Grown:
    """What is written into a new graph. row, tokens: the axes that may have come in."""

    build: Builder
    row: Dim
    tokens: Dim

    def copied(self, node: Node, uses: tuple[Use, ...], body: str | None = None, **more: Attr) -> tuple[Use, ...]:
        """The operator on the new operands; results in the old order, the batch's axis in front where it came in."""
        before = {dim for use in node.uses for dim in use.dims}
        come = {dim for use in uses for dim in use.dims} - before
        grown = tuple(
            dim for dim in (self.row, self.tokens) if dim in come and node.outs and dim not in node.outs[0].dims
        )
        if (
            not grown
            and body is None
            and not more
            and all(a.dims == b.dims for a, b in zip(uses, node.uses, strict=True))
        ):
            self.build.graph.add(replace(node, uses=uses))
            return tuple(node.out(index) for index in range(len(node.outs)))
        if grown and node.body is not None:
            refuse(node, f"{node.op} of what positions or whole documents give")
        attrs: dict[str, Any] = {**node.attrs, **more}
        if grown and node.op in ("expand", "transpose"):
            attrs["dims"] = in_front(self.row, attributes.dims(node.attrs, "dims"), grown)
        if node.op == "expand":
            uses = (self._agreeing(uses[0], tuple(attributes.dims(attrs, "dims"))),)
        outs = REGISTRY[node.op].infer(tuple(use.type for use in uses), attrs)
        made = self.build.graph.add(replace(node, uses=uses, outs=outs, attrs=attrs, body=body or node.body))
        return tuple(self.ordered(made.out(i), old.dims) for i, old in enumerate(node.outs))

    def ordered(self, use: Use, dims: Dims) -> Use:
        """The axes as they stood, those that came in in front."""
        order = in_front(self.row, dims, use.dims)
        return use if use.dims == order else self.build.one("transpose", use, dims=order, hint="rows/order")

    def _agreeing(self, use: Use, dims: Dims) -> Use:
        """The axes in the order that they have in `dims`."""
        order = tuple(dim for dim in dims if dim in use.dims)
        return use if order == use.dims else self.build.one("transpose", use, dims=order, hint="rows/order")


def refuse(node: Node, why: str) -> NoReturn:
    """Raises SpecError E0915 at the node's place."""
    place = f" ({node.origin[0].file}:{node.origin[0].line})" if node.origin else ""
    raise SpecError(
        Diagnostic(
            "E0915", f"`{node.id}`{place} cannot keep the documents of a row apart: {why}",
            hint="rows = chunk(T) reads on over the ends of documents",
        )
    )  # fmt: skip
