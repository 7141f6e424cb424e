"""Catches a next-token loss on a model that sees the next token.

Along the graph we follow which axes of a value are positions of the tokens (T, or S where T was renamed), and which
values have seen all positions: an attention whose mask is `full`, a sum over the only such axis. What a mask of the
data or of the spec's own hides cannot be decided here, so it is let through: an error means a leak for certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.types import Attr, Dim, DType, Node, Use
from .frame import Frame
from .models import Elaborated
from .recipe import Column, Recipe

Value = tuple[str, int]
_REDUCTIONS = frozenset({"sum", "max", "dot", "logsumexp"})
_REORDERING = frozenset({"gather", "split_dim", "merge_dims", "concat", "split", "stack", "unstack", "scatter_add"})


@dataclass
class _Sight:
    """What values see of the tokens."""

    axes: dict[Value, frozenset[int]] = field(default_factory=dict[Value, frozenset[int]])  # places of position axes
    whole: dict[Value, Node] = field(default_factory=dict[Value, Node])  # values that saw everything, and where

    def positions(self, use: Use) -> set[Dim]:
        return {use.dims[at] for at in self.axes.get(use.value, ())}

    def follow(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            seen = {dim for use in node.uses for dim in self.positions(use)}
            leak = next((self.whole[use.value] for use in node.uses if use.value in self.whole), None)
            if leak is None and self._leaks(node):
                leak = node
            for index, out in enumerate(node.outs):
                value = (node.id, index)
                if leak is not None:
                    self.whole[value] = leak
                if node.op not in _REORDERING or _keeps(node, seen):
                    self.axes[value] = frozenset(at for at, dim in enumerate(out.dims) if dim in seen)

    def _leaks(self, node: Node) -> bool:
        """Whether every position comes together here without a mask."""
        if node.op == "attention":
            keys = _dims(node.attrs, "S")
            masked = node.attrs["mask"] != "full" or any(use.dtype is DType.BOOL for use in node.uses)
            return not masked and bool(self.positions(node.uses[1]) & keys)
        if node.op not in _REDUCTIONS:
            return False
        over = _dims(node.attrs, "V" if node.op == "logsumexp" else "over")
        return any(positions and positions <= over for positions in map(self.positions, node.uses)) and not any(
            self.positions(use) - over for use in node.uses
        )


def _keeps(node: Node, seen: set[Dim]) -> bool:
    """Whether a node that reorders axes leaves the positions alone."""
    touched = {dim for value in node.attrs.values() for dim in _flat(value)}
    return not (touched & seen)


def _flat(value: Attr) -> set[Dim]:
    if isinstance(value, Dim):
        return {value}
    return {dim for part in value for dim in _flat(part)} if isinstance(value, tuple) else set()


def _dims(attrs: Mapping[str, Attr], name: str) -> set[Dim]:
    return _flat(attrs[name])


def foresight(graph: Graph) -> str | None:
    """Where a model that maps ids[batch, T] to outputs lets every position see all, in words; None if it does not.

    Such a model cannot go on with a row of ids: what it says of the last one follows from those behind it.
    """
    rows = [node for node in graph.nodes("input") if node.outs[0].dtype is DType.I64]
    found = [use for name, use in graph.outputs.items() if name == "logits"] or list(graph.outputs.values())
    if len(rows) != 1 or len(rows[0].outs[0].dims) != 2 or len(found) != 1:
        return None
    sight = _Sight({(rows[0].id, 0): frozenset({1})})
    sight.follow(node for node in graph if node.op != "input")
    leak = sight.whole.get(found[0].value)
    if leak is None:
        return None
    place = ", ".join(f"{origin.file}:{origin.line}" for origin in leak.origin[:3])
    return f"{leak.id} mixes {rows[0].outs[0].dims[1]} without a causal mask ({place})"


def check_next_token(frame: Frame, made: Elaborated, recipe: Recipe, columns: Mapping[str, Use]) -> None:
    """Report a loss against the next token whose prediction has seen it."""
    targets = {columns[c.name].value: c for c in recipe.columns if c.rule == "next" and c.name in columns}
    nodes = made.writer.region.nodes
    for target, column in targets.items():
        source = columns.get(column.of or "")
        if source is None:
            continue
        sight = _Sight()
        last = len(source.dims) - 1  # rows are [batch, T]
        sight.axes[source.value] = frozenset({last})
        sight.follow(nodes)
        for node in nodes:
            if node.op in ("cross_entropy", "gather") and node.uses[1].value == target:
                leak = sight.whole.get(node.uses[0].value)
                if leak is not None:
                    _report(frame, recipe, column, source.dims[last], leak)
                    return


def _report(frame: Frame, recipe: Recipe, column: Column, dim: Dim, leak: Node) -> None:
    t = dim.name
    seen = f"{column.of}[{t} = t + 1], which is `{column.name}`"
    place = ", ".join(f"{origin.file}:{origin.line}" for origin in leak.origin[:3])
    frame.report(
        "E0316", f"what the loss predicts at t sees {seen}", recipe.loss.span, "a loss of the next token",
        notes=(f"{leak.id} mixes {t} without a causal mask ({place})",),
        hint="pass `mask = causal` where attention is made",
    )  # fmt: skip
