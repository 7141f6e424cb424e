"""Rows of a mixture: dense values [.., T, E, ..] written again as rows [.., P, ..], one a picked (token, expert).

In: the region of one `top`, and the builder of a new graph that holds the dense values already. Out: the row form of a
value: what has tokens alone is gathered by token, what has experts alone by expert (or joins a grouped product), what
has both is computed again from the row forms of its operands if its operator keeps T and E apart, else gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Dim, Dims, DType, Node, Use, dims_in
from ..ops.build import Builder
from ..ops.definition import Role
from ..ops.offsets import start_operands
from ..ops.registry import REGISTRY

Value = tuple[str, int]
Transform = Callable[[Dims], Dims]


@dataclass(frozen=True, slots=True)
class Axes:
    """The dims of a region: it is picked for `others` and `tokens`, of `experts`; `rows` are the pairs."""

    others: Dims
    tokens: Dim
    experts: Dim
    rows: Dim

    @property
    def picked(self) -> Dims:
        return (*self.others, self.tokens, self.experts)

    def sparse(self, dims: Dims) -> Dims:
        """The dims of the row form of a value."""
        if self.tokens not in dims and self.experts not in dims:
            return dims
        missing = tuple(d for d in self.others if d not in dims)
        at = self.tokens if self.tokens in dims else self.experts
        return tuple(new for d in dims for new in ((*missing, self.rows) if d == at else (d,)) if new != self.experts)

    def apart(self, node: Node) -> bool:
        """Whether an operator keeps tokens and experts apart, so that it can run row by row."""
        definition = REGISTRY[node.op]
        scan = node.body is not None and definition.kernel is None
        if scan or definition.effects.random or definition.effects.writes or not node.outs:
            return False
        roles = definition.roles(node)
        kept = all(roles.get(dim) is Role.MAP for dim in self.picked if dim in roles)
        return kept and not {self.tokens, self.experts} & set(start_operands(node))

    def weights(self, node: Node) -> int | None:
        """For a contraction of rows with what each expert has of its own: which operand the experts' is."""
        if node.op != "dot":
            return None
        for place, use in enumerate(node.uses):
            other = node.uses[1 - place]
            own = self.experts in use.dims and not {self.tokens, *self.others} & set(use.dims)
            if own and self.tokens in other.dims:
                return place
        return None


@dataclass
class Region:
    """The rows of one pick, written as they are asked for. `token` and `expert` are the ids of each row's pair."""

    graph: Graph
    build: Builder
    axes: Axes
    token: Use
    expert: Use
    resolve: Callable[[Use], Use]
    bodies: dict[tuple[str, Axes], str]
    known: dict[Value, Use] = field(default_factory=dict[Value, Use])
    pair: Use | None = None

    def of(self, use: Use) -> Use:
        """The row form of an operand, in the reader's labels."""
        names = dict(zip(self.graph[use.node].outs[use.output].dims, use.dims, strict=True))
        found = self._value(use) if self._renamed(names) else self._value(self.graph[use.node].out(use.output))
        return found.relabel({} if self._renamed(names) else names)

    def _renamed(self, names: Mapping[Dim, Dim]) -> bool:
        """Whether the reader calls tokens or experts otherwise than the producer: then it is gathered as it is read."""
        return any((old in self.axes.picked or new in self.axes.picked) and old != new for old, new in names.items())

    def _value(self, use: Use) -> Use:
        a, dims = self.axes, use.dims
        if a.tokens not in dims and a.experts not in dims:
            return self.resolve(use)
        plain = use == self.graph[use.node].out(use.output)
        if plain and use.value in self.known:
            return self.known[use.value]
        if a.experts not in dims:
            found = self._gather(use, self.token, a.tokens)
        elif a.tokens not in dims:
            found = self._gather(use, self.expert, a.experts)
        elif plain and not set(dims) <= set(a.picked) and a.apart(self.graph[use.node]):
            return self._again(self.graph[use.node])[use.output]
        else:
            found = self._pairs(use)
        if plain:
            self.known[use.value] = found
        return found

    def _gather(self, use: Use, ids: Use, dim: Dim) -> Use:
        with self._as(self.graph[use.node]):
            found = self.build.one("gather", self.resolve(use), ids, dim=dim)
            return ordered(self.build, found, self.axes.sparse(use.dims))

    def _pairs(self, use: Use) -> Use:
        """What has tokens and experts, picked element by element."""
        a = self.axes
        size = None if a.tokens.size is None or a.experts.size is None else a.tokens.size * a.experts.size
        both = Dim(f"{a.rows.name}.pairs", size)
        with self._as(self.graph[use.node]):
            if self.pair is None:
                width = self.build.constant(a.experts.size or 0, DType.I64)
                first = self.build.one("mul", self.token, width)
                self.pair = self.build.one("add", first, self.expert, hint="pair")
            flat = self.build.one("merge_dims", self.resolve(use), dims=(a.tokens, a.experts), into=both)
            return ordered(self.build, self.build.one("gather", flat, self.pair, dim=both), a.sparse(use.dims))

    def _again(self, node: Node) -> tuple[Use, ...]:
        """The operator applied to rows."""
        with self._as(node):
            found = self.applied(node)
        for index, use in enumerate(found):
            self.known[node.id, index] = use
        return found

    def applied(self, node: Node) -> tuple[Use, ...]:
        """The results of an operator on rows; of a contraction with each expert's own weights, a grouped product."""
        place = self.axes.weights(node)
        if place is not None:
            return (ordered(self.build, self._grouped(node, place), self.axes.sparse(node.outs[0].dims)),)
        uses = tuple(self.of(use) for use in node.uses)
        return copied(self.build, node, uses, self.axes.sparse, self._body(node))

    def _grouped(self, node: Node, place: int) -> Use:
        x, w = self.of(node.uses[1 - place]), self.resolve(node.uses[place])
        over = tuple(d for d in dims_in(node.attrs["over"]) if d not in self.axes.picked)
        return self.build.one("grouped_dot", x, w, self.expert, dim=self.axes.experts, over=over, hint=_hint(node))

    def terms(self, node: Node) -> Use:
        """The terms of a sum over experts (and other dims), row by row; summed over rows if it is over tokens too."""
        over = tuple(dims_in(node.attrs["over"]))
        inner = tuple(d for d in over if d not in (self.axes.tokens, self.axes.experts))
        place = self.axes.weights(node)
        if place is not None:
            found, left = self._grouped(node, place), tuple(d for d in inner if d in self.axes.others)
        elif node.op == "dot":
            found, left = self.build.one("dot", *map(self.of, node.uses), over=inner), ()
        else:
            found, left = self.of(node.uses[0]), inner
        left += (self.axes.rows,) if self.axes.tokens in over else ()
        return self.build.one("sum", found, over=left) if left else found

    def _body(self, node: Node) -> str | None:
        """The key of a kernel function's meaning for rows."""
        if node.body is None:
            return None
        made = (node.body, self.axes)
        if made not in self.bodies:
            number = sum(name == node.body for name, _ in self.bodies)
            key = f"{node.body}.rows.{number}" if number else f"{node.body}.rows"
            assert key not in self.graph.bodies, f"a body is called {key} already"
            self.build.graph.body(key, _body_of_rows(node, self.graph.bodies[node.body], self.axes))
            self.bodies[made] = key
        return self.bodies[made]

    def _as(self, node: Node) -> Any:
        return self.build.within(path=node.path, layer=node.layer, origin=node.origin)


def copied(build: Builder, node: Node, uses: tuple[Use, ...], sparse: Transform, body: str | None) -> tuple[Use, ...]:
    """The same operator on operands of other dims; results in the order that `sparse` gives the old ones."""
    attrs: dict[str, Any] = {name: _attr(value, sparse) for name, value in node.attrs.items()}
    found = build(node.op, *uses, hint=_hint(node), body=body, **attrs)
    return tuple(ordered(build, use, sparse(out.dims)) for use, out in zip(found, node.outs, strict=True))


def _attr(value: Attr, sparse: Transform) -> Attr:
    if isinstance(value, tuple) and value and all(isinstance(item, Dim) for item in value):
        return sparse(tuple(item for item in value if isinstance(item, Dim)))
    return value


def ordered(build: Builder, use: Use, dims: Dims) -> Use:
    """The axes in this order."""
    return use if use.dims == dims else build.one("transpose", use, dims=dims)


def _hint(node: Node) -> str:
    return node.id.removeprefix(f"{node.path}.") if node.path else node.id


def _body_of_rows(node: Node, body: Graph, axes: Axes) -> Graph:
    """A kernel function's meaning on rows: every tensor inside that had tokens or experts has rows instead."""
    names: dict[Dim, Dim] = {}
    for use, inner in zip(node.uses, body.nodes("input"), strict=True):
        names.update(zip(use.dims, inner.outs[0].dims, strict=True))
    inside = Axes(
        tuple(names.get(d, d) for d in axes.others),
        names.get(axes.tokens, axes.tokens),
        names.get(axes.experts, axes.experts),
        axes.rows,
    )
    build = Builder(GraphBuilder(body.name))
    known: dict[Value, Use] = {}
    for inner in body:
        with build.within(path=inner.path, layer=inner.layer, origin=inner.origin, phase=inner.phase):
            uses = tuple(known[use.value].relabel(_labels(body, use)) for use in inner.uses)
            nested = None
            if inner.body is not None:
                nested = inner.body
                build.graph.body(nested, _body_of_rows(inner, body.bodies[inner.body], inside))
            for index, use in enumerate(copied(build, inner, uses, inside.sparse, nested)):
                known[inner.id, index] = use
    for name, use in body.outputs.items():
        build.output(name, known[use.value].relabel(_labels(body, use)))
    return build.finish()


def _labels(body: Graph, use: Use) -> Mapping[Dim, Dim]:
    return dict(zip(body[use.node].outs[use.output].dims, use.dims, strict=True))
