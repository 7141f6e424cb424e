"""route: a mixture of experts, dense in meaning, becomes dispatch, experts over rows, combine.

In: a graph in which every expert is applied to every token and the results are summed with weights that a `top` made
zero for all but k experts. Out: the same values from the k experts that each token picked:

    Σ_e g[t, e] f(x[t], w[e])   =   Σ over the picked pairs (t, e) of g[t, e] f(x[t], w[e])

The right side has k rows for each token, exactly: `dispatch` sorts the pairs by expert, contractions with what an
expert owns become grouped products, and `scatter_add` brings the rows back to their tokens. Nothing is dropped and
there is no capacity. What is zero outside of the pick is proven (`masked.py`), not guessed from a pattern; where the
experts would still run densely, that is the user's error. It runs before differentiation: gradients cost k / E too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOSS, MODEL, Level
from ..ir.types import Dim, Dims, Node, Runs, Use, dims_in
from ..ops.build import Builder
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from .masked import Masks
from .rows import Axes, Region, ordered

_SIGNATURE = frozenset({"parameter", "state", "input"})
WEIGHED = "sum what the gates multiply, `sum[E](gates * experts(x))`; read what an expert gives nowhere else"
ALIKE = "only experts that are made alike share a product of sorted rows: `bank E of …`, not `bank e in E of …`"
_NEW = "\x00"  # marks the ids of new nodes while the old ones keep theirs


@dataclass(frozen=True)
class Route:
    """batch: the name of the dim that is never sorted along where there is another, so that rows stay apart."""

    batch: str = "batch"

    name: ClassVar[str] = "route"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        for key in {node.body for node in graph.nodes("scan")}:
            _refuse_dense(graph.bodies[key or ""])
        if not graph.nodes("top"):
            return graph
        routed = _Routing(graph, self.batch).rewrite()
        _refuse_dense(routed)
        return routed


class _Builder(Builder):
    """Marks the ids of the nodes that it makes."""

    def _make(self, op: str, *args: Any, hint: str | None = None, **more: Any) -> Node:
        return super()._make(op, *args, hint=f"{_NEW}{hint or op}", **more)


@dataclass
class _Routing:
    """Copies the graph; at each weighted sum of experts writes the sum over rows instead."""

    graph: Graph
    batch: str
    regions: dict[tuple[str, Dims], Region] = field(default_factory=dict[tuple[str, Dims], Region])
    instead: dict[tuple[str, int], Use] = field(default_factory=dict[tuple[str, int], Use])
    dims: dict[str, Dim] = field(default_factory=dict[str, Dim])
    bodies: dict[tuple[str, Axes], str] = field(default_factory=dict[tuple[str, Axes], str])

    def rewrite(self) -> Graph:
        self.masks = Masks(self.graph)
        self.dims = dict(self.graph.dims())
        self.build = _Builder(GraphBuilder.rewriting(self.graph))
        for key, body in self.graph.bodies.items():
            self.build.graph.body(key, body)
        for node in self.graph:
            picks = _summed_picks(self.masks, node)
            # Experts that are picked once, not for each of several tokens, have nothing to be sorted by.
            several = [axes for axes in picks if len(axes[1]) > 1]
            found = [axes for axes in several if _has_experts(self.graph, node, self._axes(*axes))]
            if found:
                self._combine(node, *min(found, key=lambda pick: self._count(pick[0])))
            else:
                self.build.graph.add(replace(node, uses=tuple(map(self._resolve, node.uses))))
        for name, use in self.graph.outputs.items():
            self.build.output(name, self._resolve(use))
        return _live(self.build.finish()) if self.instead else self.graph

    def _resolve(self, use: Use) -> Use:
        found = self.instead.get(use.value)
        return use if found is None else Use(found.node, found.output, use.dims, use.dtype)

    def _count(self, pick: str) -> int:
        k = self.graph[pick].attrs["k"]
        assert isinstance(k, int), "k is a whole number"
        return k

    def _axes(self, pick: str, labels: Dims) -> Axes:
        """Tokens are the longest axis that is picked for; the batch only where there is no other."""
        experts = self.masks.experts(pick, labels)
        rows = tuple(d for d in labels if d != experts)
        free = [d for d in rows if d.name != self.batch] or list(rows)
        tokens = max(reversed(free), key=lambda d: d.size or 0)
        k = self._count(pick)
        others = tuple(d for d in rows if d != tokens)
        size = None if tokens.size is None else tokens.size * k
        dim, number = Dim(f"{experts}.rows", size, Runs(experts, k, tuple(d.name for d in others))), 0
        while self.dims.get(dim.name, dim) != dim:
            number += 1
            dim = replace(dim, name=f"{experts}.rows.{number}")
        return Axes(others, tokens, experts, dim)

    def _region(self, pick: str, labels: Dims, node: Node) -> Region:
        if (pick, labels) not in self.regions:
            axes = self._axes(pick, labels)
            self.dims[axes.rows.name] = axes.rows
            with self.build.within(path=node.path, layer=node.layer, origin=node.origin):
                source = self.graph[pick].out().relabel(dict(zip(self.graph[pick].outs[0].dims, labels, strict=True)))
                token, expert = self.build(
                    "dispatch", source, hint="dispatch", dim=axes.tokens, experts=axes.experts, into=axes.rows,
                    k=self._count(pick),
                )  # fmt: skip
            self.regions[pick, labels] = Region(self.graph, self.build, axes, token, expert, self._resolve, self.bodies)
        return self.regions[pick, labels]

    def _combine(self, node: Node, pick: str, labels: Dims) -> None:
        """y[t] = Σ over the rows of t, of the sum's terms."""
        region = self._region(pick, labels, node)
        axes, out = region.axes, node.outs[0]
        with self.build.within(path=node.path, layer=node.layer, origin=node.origin):
            rows = region.terms(node)
            if axes.tokens in out.dims:
                rows = self.build.one("scatter_add", rows, region.token, dim=axes.tokens, dims=out.dims)
            found = ordered(self.build, rows, out.dims)
        self.instead[node.id, 0] = found


# ---- what is summed


def _over(node: Node) -> Dims:
    return tuple(dims_in(node.attrs["over"])) if node.op in ("sum", "dot") else ()


def _summed_picks(masks: Masks, node: Node) -> list[tuple[str, Dims]]:
    """The picks along whose dim a sum runs, of terms that are zero outside of them."""
    over = _over(node)
    found: dict[tuple[str, Dims], None] = {}
    for use in node.uses if over else ():
        for pick, labels in masks.of(use).items():
            if masks.experts(pick, labels) in over:
                found[pick, labels] = None
    return list(found)


def _has_experts(graph: Graph, root: Node, axes: Axes) -> bool:
    """Whether what is summed comes from contractions with what each expert has of its own."""
    return _expert_product(graph, root.uses, axes) is not None or _with_experts(root, axes)


def _with_experts(node: Node, axes: Axes) -> bool:
    wide = any(d not in axes.picked for d in _over(node))
    return axes.weights(node) is not None and wide


def _expert_product(graph: Graph, uses: Iterable[Use], axes: Axes) -> Node | None:
    """The first contraction of tokens with experts' own weights that runs for every pair, going back row by row."""
    stack, seen = list(uses), set[str]()
    while stack:
        use = stack.pop()
        node = graph[use.node]
        both = {axes.tokens, axes.experts} <= set(use.dims)
        if node.id in seen or not both or set(use.dims) <= set(axes.picked) or not axes.apart(node):
            continue
        seen.add(node.id)
        if _with_experts(node, axes):
            return node
        stack += node.uses
    return None


def _member_product(graph: Graph, uses: Iterable[Use], axes: Axes) -> Node | None:
    """A contraction of tokens that a member of a bank of unlike members does: what they give is stacked along E."""
    for stack in _stacks(graph, uses, axes):
        for use in stack.uses:
            found = _contraction(graph, use, axes.tokens, {stack.id})
            if found is not None:
                return found
    return None


def _stacks(graph: Graph, uses: Iterable[Use], axes: Axes) -> Iterator[Node]:
    """Where values of tokens become one along E, going back as long as both are carried."""
    todo, seen = list(uses), set[str]()
    while todo:
        use = todo.pop()
        node = graph[use.node]
        if use.node in seen or not {axes.tokens, axes.experts} <= set(use.dims):
            continue
        seen.add(use.node)
        if node.op == "stack" and node.attrs["dim"] == axes.experts:
            yield node
        elif axes.apart(node):
            todo += node.uses


def _contraction(graph: Graph, use: Use, tokens: Dim, readers: set[str]) -> Node | None:
    """A product of tokens with what has none, on the way to `readers` and read by nothing else."""
    todo, alone = [use], set(readers)
    while todo:
        use = todo.pop()
        node = graph[use.node]
        if tokens not in use.dims or any(edge.consumer not in alone for edge in graph.users(node.id)):
            continue
        if node.op == "dot" and any(tokens not in other.dims for other in node.uses):
            return node
        alone.add(node.id)
        todo += node.uses
    return None


# ---- what is left


def _live(graph: Graph) -> Graph:
    """Without what nobody needs any more; what took the place of a node that is gone takes its id."""
    needed = {use.node for use in graph.outputs.values()}
    kept: list[Node] = []
    for node in reversed(list(graph)):
        if node.op in _SIGNATURE or REGISTRY[node.op].effects.writes or node.id in needed:
            needed.update(use.node for use in node.uses)
            kept.append(node)
    kept.reverse()
    names = _names(kept)
    builder = GraphBuilder.rewriting(graph)
    for node in kept:
        uses = tuple(replace(use, node=names.get(use.node, use.node)) for use in node.uses)
        builder.add(replace(node, id=names.get(node.id, node.id), uses=uses))
    for name, use in graph.outputs.items():
        builder.output(name, replace(use, node=names.get(use.node, use.node)))
    used = {node.body for node in kept}
    for key, body in graph.bodies.items():
        if key in used:
            builder.body(key, body)
    return builder.finish()


def _names(kept: Sequence[Node]) -> dict[str, str]:
    """Ids that a spec could give for those of new nodes: where a dense node is gone, its own."""
    taken = {node.id for node in kept if _NEW not in node.id}
    found: dict[str, str] = {}
    for node in kept:
        if _NEW in node.id:
            wanted, number = node.id.replace(_NEW, ""), 0
            name = wanted
            while name in taken:
                number += 1
                name = f"{wanted}.{number}"
            found[node.id] = name
            taken.add(name)
    return found


def _refuse_dense(graph: Graph) -> None:
    """Experts that run for every token though the gates are zero for most are an error, not a slow program."""
    if not graph.nodes("top"):
        return
    masks = Masks(graph)
    for node in graph:
        for pick, labels in masks.zero.get((node.id, 0), {}).items():
            experts, k = masks.experts(pick, labels), graph[pick].attrs["k"]
            rows = tuple(d for d in labels if d != experts)
            if not rows or set(node.outs[0].dims) <= set(labels) or not _keeps(node, labels):
                continue
            for tokens in rows:
                axes = Axes(tuple(d for d in rows if d != tokens), tokens, experts, Dim("rows", None))
                product = _expert_product(graph, node.uses, axes)
                if product is not None:
                    _refuse(node, product, f"{k} of {experts.name} = {experts.size}", WEIGHED)
                product = _member_product(graph, node.uses, axes)
                if product is not None:
                    _refuse(node, product, f"{k} of {experts.name} = {experts.size}", ALIKE)


def _keeps(node: Node, labels: Dims) -> bool:
    roles = REGISTRY[node.op].roles(node)
    return all(roles.get(dim) is Role.MAP for dim in labels if dim in roles)


def _refuse(node: Node, product: Node, picked: str, hint: str) -> None:
    place = f" ({node.origin[0].file}:{node.origin[0].line})" if node.origin else ""
    raise SpecError(
        Diagnostic(
            "E0914",
            f"`{node.id}`{place} runs every expert (`{product.id}`) though only {picked} are picked for a token",
            hint=hint,
        )
    )
