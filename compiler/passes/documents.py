"""documents: rows that hold several documents, or padding; what mixes the tokens of a row never crosses a document.

In: a graph with a loss whose rows of T tokens are ragged. Out: the same with three more inputs that the data brings,

    rows.segment   i64[batch, T]    the number of each token's document in its row (padding has a number of its own)
    rows.position  i64[batch, T]    its place in its document: what `index` is now
    rows.weight    float[batch, T]  n/N where the token's loss counts, of N among the batch's n tokens, else 0

and every operator that brings tokens together held to one document, as its roles say: a reduction over the keys' axis S
of a value that has the queries' T too leaves out the pairs of different documents; attention is told the numbers; a
recurrence begins anew; a window sees the filling where it reaches over an end. The mean of the loss over all tokens
becomes Σ loss · weight / n. What asks for a document as a whole (a sum over T, its length, a token of it) is found
for each token (`of_document.py`), and its mean over rows is weighed by tokens too. Whatever else mixes tokens is
refused, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOSS, Level
from ..ir.types import Attr, Dim, Dims, DType, Node, Use
from ..ops import attributes
from ..ops.build import Builder
from ..ops.definition import Role
from ..ops.offsets import start_operands
from ..ops.registry import REGISTRY
from ..ops.structure import axis_pair
from .bodies import with_documents, with_restarts
from .grown import Grown, refuse
from .of_document import Rows
from .tokens import Places, token_places

SEGMENT, POSITION, WEIGHT = "rows.segment", "rows.position", "rows.weight"
Value = tuple[str, int]


@dataclass(frozen=True)
class Documents:
    """dim: the name of the tokens' axis. batch: that of the rows'."""

    dim: str = "T"
    batch: str = "batch"

    name: ClassVar[str] = "documents"
    levels: ClassVar[tuple[Level, ...]] = (LOSS,)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        return _Apart(graph, token_places(graph, self.dim), self.dim, self.batch).rewrite()


@dataclass
class _Apart:
    """Writes the graph anew; types are inferred again, because positions have the batch's axis now."""

    graph: Graph
    places: Places
    dim: str
    batch: str
    new: dict[Value, Use] = field(default_factory=dict[Value, Use])
    zero: dict[Value, frozenset[Dim]] = field(default_factory=dict[Value, frozenset[Dim]])  # between documents

    def rewrite(self) -> Graph:
        rows = next((node for node in self.graph.nodes("input") if self._is_rows(node)), None)
        if rows is None:
            raise SpecError(Diagnostic("E0915", f"no input has rows [{self.batch}, {self.dim}] to keep apart"))
        self.rows = rows.outs[0].dims
        self.tokens, self.row = self.rows[1], self.rows[0]
        self.build = Builder(GraphBuilder.rewriting(self.graph))
        number = self.graph.outputs["loss"].dtype
        self.segment, self.position, self.weight = (
            self.build.input(name, self.rows, dtype)
            for name, dtype in ((SEGMENT, DType.I64), (POSITION, DType.I64), (WEIGHT, number))
        )
        self.grown = Grown(self.build, self.row, self.tokens)
        self.documents = Rows(self.build, self.row, self.tokens, self.segment, self.position)
        for node in self.graph:
            with self.build.within(path=node.path, phase=node.phase, layer=node.layer, origin=node.origin):
                self._node(node)
        for name, use in self.graph.outputs.items():
            self.build.output(name, self._use(use))
        for key, body in self.graph.bodies.items():
            self.build.graph.body(key, body)
        return self.build.finish()

    def _is_rows(self, node: Node) -> bool:
        return tuple(d.name for d in node.outs[0].dims) == (self.batch, self.dim)

    # ---- edges

    def _use(self, use: Use) -> Use:
        """The same operand in the new graph, in the reader's labels; the batch's axis may have come in."""
        found = self.new[use.value]
        names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
        return found.relabel(names)

    def _tokens_of(self, node: Node) -> Dims:
        """The axes of a node that stand for tokens, as it calls them."""
        return self.places.labels(node)

    # ---- nodes

    def _node(self, node: Node) -> None:
        uses = tuple(map(self._use, node.uses))
        axes = self._tokens_of(node)
        if node.op == "index" and axes:
            self._give(node, (self.position.relabel({self.tokens: axes[0]}),))
        elif node.op == "extent":
            self._extent(node)
        elif not axes and self._over_rows(node) and self.tokens in uses[0].dims:
            self._mean_of_documents(node, uses)
        elif not axes:
            self._copy(node, uses)
        elif set(axes) != {self.tokens} and any(
            self.tokens in new.dims and self.tokens not in old.dims for new, old in zip(uses, node.uses, strict=True)
        ):
            refuse(node, "what a whole document gives meets its tokens under another name")
        elif node.op == "gather" and attributes.dim(node.attrs, "dim") in axes:
            self._pick(node, uses)
        elif node.op == "attention":
            self._attention(node, uses)
        elif node.op == "window":
            self._window(node, uses)
        elif node.op == "scan":
            self._scan(node, uses)
        else:
            self._mixed(node, uses, axes)

    def _mixed(self, node: Node, uses: tuple[Use, ...], axes: Dims) -> None:
        """By its roles: what keeps tokens apart stays, what reduces over keys is masked, the rest is refused."""
        definition = REGISTRY[node.op]
        roles = definition.roles(node)
        if set(axes) & set(start_operands(node)) and definition.kernel is not None:
            refuse(node, f"{node.op} counts positions by itself")
        over = tuple(dim for dim in axes if roles[dim] is not Role.MAP)
        if not over and axis_pair(node) and set(axis_pair(node) or ()) & set(axes):
            refuse(node, f"{node.op} cuts the tokens' axis into pieces or joins it with others")
        if not over:
            self._copy(node, uses, zero=self._still_zero(node))
            return
        kept = tuple(dim for dim in axes if roles[dim] is Role.MAP)
        if node.op == "softmax" and len(over) == 1 and len(kept) == 1:
            self._copy(node, (self._where(kept[0], over[0], uses[0], -math.inf),), zero=frozenset((*kept, *over)))
        elif node.op in ("sum", "max") and len(over) == 1 and len(kept) == 1:
            fill = 0.0 if node.op == "sum" else -math.inf
            masked = (
                uses[0] if self._apart(node.uses[0], kept[0], over[0]) else self._where(*kept, *over, uses[0], fill)
            )
            self._copy(node, (masked,))
        elif node.op == "dot" and len(over) == 1 and len(kept) == 1:
            self._copy(node, self._masked_factors(node, uses, kept[0], over[0]))
        elif not kept and self._over_rows(node):
            self._mean(node, uses)
        elif node.op == "sum" and not kept and len(over) == 1:
            self._total(node, uses[0], over[0])
        else:
            refuse(node, f"{node.op} brings tokens of a row together, whatever document they are of")

    def _where(self, here: Dim, there: Dim, use: Use, fill: float) -> Use:
        empty = self.build.constant(fill, use.dtype, hint="rows/empty")
        kept = self.build.one("where", self.documents.pair(here, there), use, empty, hint="rows/kept")
        return self.grown.ordered(kept, use.dims)

    def _masked_factors(self, node: Node, uses: tuple[Use, ...], here: Dim, there: Dim) -> tuple[Use, ...]:
        """One factor of a product is zero between documents, or is made so."""
        both = [place for place, use in enumerate(node.uses) if {here, there} <= set(use.dims)]
        if not both:
            both = [next(place for place, use in enumerate(uses) if there in use.dims)]
        elif any(self._apart(node.uses[place], here, there) for place in both):
            return uses
        at = both[0]
        return (*uses[:at], self._where(here, there, uses[at], 0.0), *uses[at + 1 :])

    def _apart(self, use: Use, here: Dim, there: Dim) -> bool:
        """Whether a value is zero between documents."""
        names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
        return {names.get(dim) for dim in self.zero.get(use.value, ())} == {here, there}

    def _still_zero(self, node: Node) -> frozenset[Dim]:
        """The axes between which a result is zero, because the operator is linear in an operand that is."""
        for group in REGISTRY[node.op].linear(node):
            for place in group if len(group) == 1 else ():
                use = node.uses[place]
                names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
                found = frozenset(names[dim] for dim in self.zero.get(use.value, ()))
                if found and found <= set(node.outs[0].dims):
                    return found
        return frozenset()

    def _mean(self, node: Node, uses: tuple[Use, ...]) -> None:
        """sum[batch, T](x) / n, which only the mean of the whole batch is: Σ x · weight / n."""
        over = attributes.dims(node.attrs, "over")
        count = math.prod(dim.size or 0 for dim in over)
        readers = [self.graph[edge.consumer] for edge in self.graph.users(node.id)]
        means = all(reader.op == "mul" and self._is_share(reader, count) for reader in readers)
        if not set(self.rows) <= set(over) or not readers or not means:
            refuse(node, "a sum over tokens is weighed as the mean over the batch and all tokens, no other is")
        weighed = self.build.one("mul", uses[0], self.weight, hint="rows/weighed")
        self._copy(node, (self.grown.ordered(weighed, uses[0].dims),))

    def _over_rows(self, node: Node) -> bool:
        return node.op == "sum" and self.row in attributes.dims(node.attrs, "over")

    def _mean_of_documents(self, node: Node, uses: tuple[Use, ...]) -> None:
        """sum[batch](x) / B of what documents give: Σ x · weight / n, each document by how many tokens it has."""
        over = attributes.dims(node.attrs, "over")
        readers = [self.graph[edge.consumer] for edge in self.graph.users(node.id)]
        count = math.prod(dim.size or 0 for dim in over)
        if not readers or not all(reader.op == "mul" and self._is_share(reader, count) for reader in readers):
            refuse(node, "what documents give is weighed by their tokens in a mean over the batch, no other sum is")
        alone = [one for one in self.graph.nodes("input") if self.row in one.outs[0].dims and not self._tokens_in(one)]
        if alone:
            refuse(node, f"`{alone[0].id}` has one value a row, which may hold several documents")
        weighed = self.build.one("mul", uses[0], self.weight, hint="rows/weighed")
        total = self.build.one("sum", weighed, over=(*over, self.tokens), hint="rows/sum")
        share = self.build.constant(1 / (self.tokens.size or 1), total.dtype, hint="rows/share")
        mean = self.build.one("mul", total, share, hint="rows/mean")
        self._give(node, (self.grown.ordered(mean, node.outs[0].dims),))

    def _tokens_in(self, node: Node) -> bool:
        return bool(self.places.places.get((node.id, 0)))

    def _total(self, node: Node, x: Use, axis: Dim) -> None:
        """A sum over each document; where all that reads it divides by the row's width, by the document's length."""
        others = tuple(dim for dim in attributes.dims(node.attrs, "over") if dim != axis)
        found = self.build.one("sum", x, over=others, hint="rows/sum") if others else x
        found = self.documents.total(found, axis)
        readers = [self.graph[edge.consumer] for edge in self.graph.users(node.id)]
        count = math.prod(dim.size or 0 for dim in (axis, *others))
        if readers and all(reader.op == "mul" and self._is_share(reader, count) for reader in readers):
            found = self.documents.share(found, axis.size or 1)
        self._give(node, (self.grown.ordered(found, node.outs[0].dims),))

    def _extent(self, node: Node) -> None:
        """How many tokens a document has, times what else is counted."""
        over = attributes.dims(node.attrs, "over")
        if not set(over) & self.places.dims or self.row in over:
            self._copy(node, ())
            return
        others = math.prod(dim.size or 1 for dim in over if dim not in self.places.dims)
        length = self.documents.length(node.outs[0].dtype)
        whole = self.build.constant(others, length.dtype, hint="rows/others")
        self._give(node, (length if others == 1 else self.build.one("mul", length, whole, hint="rows/extent"),))

    def _pick(self, node: Node, uses: tuple[Use, ...]) -> None:
        """x[T = e]: place e of each token's own document."""
        axis = attributes.dim(node.attrs, "dim")
        table, ids = uses
        if (self.places.of(node.uses[1]) or (self.tokens,)) != (self.tokens,) or ids.dtype is not DType.I64:
            refuse(node, "a token is picked for tokens under another name")
        self._give(node, (self.grown.ordered(self.documents.picked(table, axis, ids), node.outs[0].dims),))

    def _is_share(self, reader: Node, count: int) -> bool:
        values = (
            self.graph[use.node].attrs.get("value") for use in reader.uses if self.graph[use.node].op == "constant"
        )
        return any(isinstance(value, float) and math.isclose(value * count, 1.0, rel_tol=1e-6) for value in values)

    def _attention(self, node: Node, uses: tuple[Use, ...]) -> None:
        """Queries see keys of their own document; positions may stay the row's, which differ by a constant there."""
        axes = self._tokens_of(node)
        queries, keys = (attributes.dims(node.attrs, name) for name in "TS")
        if not set(keys) & set(axes):
            self._copy(node, uses)
            return
        if not set(queries) & set(axes) or len(queries) != 1 or len(keys) != 1:
            refuse(node, "it sees all tokens of a row from outside of their documents")
        numbers = tuple(self.segment.relabel({self.tokens: dim}) for dim in (*queries, *keys))
        at = len(uses) - len(start_operands(node))
        assert node.body is not None, "attention has a body"
        key = f"{node.body}.documents"
        self.build.graph.body(key, with_documents(self.graph.bodies[node.body], node, self.row, at))
        self._copy(node, (*uses[:at], *numbers, *uses[at:]), body=key)

    def _window(self, node: Node, uses: tuple[Use, ...]) -> None:
        """Places of another document are filled, as those outside of the row are."""
        dim, out, size = (attributes.dim(node.attrs, name) for name in ("dim", "out", "size"))
        if dim not in self._tokens_of(node):
            self._copy(node, uses)
            return
        if node.attrs["stride"] != 1 or out.size != dim.size:
            refuse(node, "a window of tokens with a stride, or without padding, has no document of its own")
        (x,) = self.grown.copied(node, uses)
        fit: dict[str, Any] = {**node.attrs, "fill": -1.0}
        seen = self.build.one("window", self.segment.relabel({self.tokens: dim}), hint="rows/seen", **fit)
        same = self.build.one("eq", seen, self.segment.relabel({self.tokens: out}), hint="rows/same")
        assert size in same.dims, "a window has its places"
        fill = self.build.constant(attributes.number(node.attrs, "fill"), x.dtype, hint="rows/empty")
        self._give(node, (self.grown.ordered(self.build.one("where", same, x, fill, hint="rows/kept"), x.dims),))

    def _scan(self, node: Node, uses: tuple[Use, ...]) -> None:
        """A recurrence along tokens takes its first carries again where a document begins."""
        along, carries = attributes.dim(node.attrs, "dim"), int(attributes.number(node.attrs, "carries"))
        axes = self._tokens_of(node)
        if along not in axes:
            self._mixed(node, uses, axes)
            return
        if node.attrs["reverse"] or set(axes) != {along}:
            refuse(node, "a recurrence backwards, or over all tokens at each step, is not kept within documents")
        emits = node.attrs["emits"]
        assert isinstance(emits, tuple), "a scan says what it emits"
        asked = {edge.use.output for edge in self.graph.users(node.id)}
        asked |= {use.output for use in self.graph.outputs.values() if use.node == node.id}
        if asked - set(range(carries, carries + len(emits))):
            refuse(node, "the last state of a recurrence is that of the row's last document")
        assert node.body is not None, "a scan has a body"
        key, first = f"{node.body}.documents", carries + int(attributes.number(node.attrs, "steps"))
        self.build.graph.body(key, with_restarts(self.graph.bodies[node.body], node, self.row, carries, first))
        place = self.position.relabel({self.tokens: along})
        operands = (*uses[:first], place, *uses[first:], *uses[:carries])
        self._copy(node, operands, body=key, steps=first - carries + 1)

    # ---- copies

    def _copy(
        self,
        node: Node,
        uses: tuple[Use, ...],
        *,
        zero: frozenset[Dim] = frozenset(),
        body: str | None = None,
        **more: Attr,
    ) -> None:
        self._give(node, self.grown.copied(node, uses, body, **more))
        if zero:
            self.zero[node.id, 0] = zero

    def _give(self, node: Node, found: Sequence[Use]) -> None:
        for index, use in enumerate(found):
            self.new[node.id, index] = use
