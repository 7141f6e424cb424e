"""token_slices: the tokens of every row are computed slice after slice (TeraPipe, Li et al. 2021), of any lengths.

In: a graph whose rows are T positions long, and the lengths of the slices. Out: the same with a node for each slice in
the place of each node that has positions: slice s computes its own positions, and reads what earlier slices made where
it looks back: keys and values of attention end to end, the state of a scan. Sums over T are sums over the slices.
It runs before the gradients are taken: what later slices owe to the keys of earlier ones follows by differentiation.

A node's dims say how it reads: positions that it maps are cut; keys (a second dim of positions beside the queries') are
all those up to the slice's end, if nothing behind the query reaches the result (`hindsight.py`). Whatever else brings
positions together, or a sum over them back to single ones, looks ahead, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import ClassVar, NoReturn

from ..base.diagnostic import Diagnostic, SpecError
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import LOSS, MODEL, Level
from ..ir.slices import MARK, dims_of, own, up_to
from ..ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use, dims_in, with_dims
from ..ops import attributes
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from ..ops.shapes import elements
from ..ops.structure import axis_pair
from .hindsight import Hindsight

_LOW = frozenset({"max", "logsumexp", "softmax", "log_softmax"})  # what ignores -inf


@dataclass(frozen=True)
class TokenSlices:
    """lengths: of the slices, in order; together the size of the dim. dim: the name of the dim that counts tokens."""

    lengths: tuple[int, ...] = ()
    dim: str = "T"

    name: ClassVar[str] = "token_slices"
    levels: ClassVar[tuple[Level, ...]] = (MODEL, LOSS)
    gives: ClassVar[Level | None] = None
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        tokens = graph.dims().get(self.dim)
        if len(self.lengths) < 2 or tokens is None:
            return graph
        if sum(self.lengths) != tokens.size or min(self.lengths) < 1:
            title = f"slices of {sum(self.lengths)} tokens do not make up {self.dim} = {tokens.size}"
            raise SpecError(Diagnostic("E0917", title, hint="lengths from 1 on that add up"))
        return _Slicing(graph, tokens, self.lengths).rewrite()


def _refuse(node: Node, why: str) -> NoReturn:
    place = f" ({node.origin[0].file}:{node.origin[0].line})" if node.origin else ""
    hint = "only a model in which no token sees a later one can be cut into token slices"
    raise SpecError(Diagnostic("E0917", f"`{node.id}`{place} cannot be cut into token slices: {why}", hint=hint))


def _positions(graph: Graph, tokens: Dim) -> frozenset[Dim]:
    """The dim of the tokens, and what readers call it."""
    found, before = {tokens}, 0
    while before != len(found):
        before = len(found)
        for node in graph:
            for use in node.uses:
                for mine, theirs in zip(use.dims, graph[use.node].outs[use.output].dims, strict=True):
                    if mine in found or theirs in found:
                        found |= {mine, theirs}
    return frozenset(found)


@dataclass
class _Slicing:
    """`own[value][s]`: what slice s has of a value; `late`: values that wait for every slice."""

    graph: Graph
    tokens: Dim
    lengths: Sequence[int]
    own: dict[tuple[str, int], list[Use]] = field(default_factory=dict[tuple[str, int], list[Use]])
    back: dict[tuple[str, int, Dim, int], Use] = field(default_factory=dict[tuple[str, int, Dim, int], Use])
    late: set[str] = field(default_factory=set[str])
    bodies: dict[str, Graph] = field(default_factory=dict[str, Graph])

    def __post_init__(self) -> None:
        self.positions = _positions(self.graph, self.tokens)
        self.begins = (0, *accumulate(self.lengths))
        self.facts = Hindsight(self.graph)
        self.builder = GraphBuilder.rewriting(self.graph)

    # ---- the new graph: the first slice with what has no positions, the others, then what waits for all of them

    def rewrite(self) -> Graph:
        early, sliced, late = self._sorted()
        first = {node.id for node in early}
        for node in self.graph:
            if node.id in first:
                self.builder.add(_whole_extent(node))
            elif node.id in sliced:
                self._first(node)
        for at in range(1, len(self.lengths)):
            for node in sliced.values():
                if node.op not in ("input", "start"):
                    self._one(node, at)
        for node in late:
            self._late(node)
        outputs = {name: self._whole(use) for name, use in self.graph.outputs.items()}
        return self.builder.finish(outputs, {**self.graph.bodies, **self.bodies})

    def _first(self, node: Node) -> None:
        if node.op == "input":
            self._cut(node)
        elif node.op != "start":
            self._one(node, 0)

    def _sorted(self) -> tuple[list[Node], dict[str, Node], list[Node]]:
        """Nodes without positions that depend on no slice, those with positions, and the rest."""
        early: list[Node] = []
        sliced: dict[str, Node] = {}
        late: list[Node] = []
        after: set[str] = set()
        for node in self.graph:
            behind = next((use.node for use in node.uses if use.node in after), None)
            if not self._dims(node) and not self._is_start(node):
                (early if behind is None else late).append(node)
                after |= set() if behind is None else {node.id}
                continue
            if behind is not None:
                _refuse(node, f"it brings `{behind}`, which all tokens made, back to single ones")
            self._check(node)
            sliced[node.id] = node
            if self._total(node):
                late.append(node)
                after.add(node.id)
        return early, sliced, late

    def _dims(self, node: Node) -> Dims:
        """The dims of positions that a node names, the queries' first."""
        found = dict.fromkeys(dim for dim in dims_of(node) if dim in self.positions)
        return tuple(sorted(found, key=lambda dim: dim != self.tokens))

    def _is_start(self, node: Node) -> bool:
        return node.op == "start" and attributes.dim(node.attrs, "dim") in self.positions

    # ---- what can be cut

    def _check(self, node: Node) -> None:
        dims = self._dims(node)
        first = next(iter(dims), self.tokens)
        if axis_pair(node) is not None and set(axis_pair(node) or ()) & self.positions:
            _refuse(node, "it takes the tokens apart in another way")
        if node.op in ("state", "parameter", "assign"):
            _refuse(node, "it lasts beyond the step")
        if len(dims) > 2 or (len(dims) == 2 and (node.op == "input" or first != self.tokens)):
            _refuse(node, f"it has {' and '.join(map(str, dims))}, of which none can be cut")
        if node.op == "scan":
            self._check_scan(node)
        elif len(dims) == 2:
            self._check_keys(node, *dims)
        elif node.op not in ("start", "input"):
            role = REGISTRY[node.op].roles(node).get(first, Role.MAP)
            if role is not Role.MAP and (role is not Role.SUM or any(first in out.dims for out in node.outs)):
                _refuse(node, f"it needs all of {first} at once")

    def _check_scan(self, node: Node) -> None:
        (dim, *others) = self._dims(node)
        if others or node.attrs["dim"] != dim or node.attrs["reverse"]:
            _refuse(node, "it goes from the last token to the first, or along another dim")

    def _check_keys(self, node: Node, query: Dim, key: Dim) -> None:
        """Whether nothing of the keys behind a query reaches the result."""
        roles = REGISTRY[node.op].roles(node)
        if roles.get(query, Role.MAP) is not Role.MAP:
            _refuse(node, f"it needs all of {query} at once")
        if node.op == "attention":
            if node.attrs["mask"] != "causal":
                _refuse(node, f"every token sees all of {key}")
        elif roles.get(key, Role.MAP) is not Role.MAP:
            if node.op in _LOW:
                hidden = (query, key) in self.facts.lows(node.uses[0])
            else:
                hidden = roles[key] is Role.SUM and self._sums_nothing(node, (query, key))
            if not hidden:
                _refuse(node, f"nothing says that a token leaves the later ones of {key} out")

    def _sums_nothing(self, node: Node, pair: tuple[Dim, Dim]) -> bool:
        """Whether terms behind the query are zero: those of a set of operands in which the node is linear are."""
        groups = REGISTRY[node.op].linear(node)
        return any(all(pair in self.facts.zeros(node.uses[place]) for place in group) for group in groups if group)

    def _total(self, node: Node) -> bool:
        """Whether a node gives a sum over all tokens: what it gives has no positions, though it reads some."""
        if node.op in ("start", "input", "scan") or not self._dims(node):
            return False
        return not any(set(out.dims) & self.positions for out in node.outs)

    # ---- one node for one slice

    def _one(self, node: Node, at: int) -> None:
        dims = self._dims(node)
        names = {dims[0]: self._dim(dims[0], at)} | {key: self._prefix(key, at) for key in dims[1:]}
        uses = tuple(self._use(node, use, names, dims[1:], at) for use in node.uses)
        if node.op == "scan" and at:
            carries = int(str(node.attrs["carries"]))
            uses = (*(self.own[node.id, place][at - 1] for place in range(carries)), *uses[carries:])
        outs = tuple(TensorType(tuple(names.get(d, d) for d in out.dims), out.dtype) for out in node.outs)
        attrs = {key: with_dims(value, names) for key, value in node.attrs.items()}
        body = None if node.body is None else self._body(node.body, names, at)
        made = replace(node, id=own(node.id, at), uses=uses, outs=outs, attrs=attrs, body=body)
        self.builder.add(made)
        for index in range(len(outs)):
            self.own.setdefault((node.id, index), []).append(made.out(index))

    def _dim(self, dim: Dim, at: int) -> Dim:
        return Dim(own(dim.name, at), self.lengths[at])

    def _prefix(self, dim: Dim, at: int) -> Dim:
        """Everything up to the slice's end."""
        return Dim(up_to(dim.name, at), self.begins[at + 1])

    def _use(self, node: Node, use: Use, names: Mapping[Dim, Dim], keys: Dims, at: int) -> Use:
        source = self.graph[use.node]
        if self._is_start(source):
            dim = attributes.dim(source.attrs, "dim")
            if dim not in names:
                _refuse(node, f"it asks where {dim} begins, and has no {dim}")
            return self._constant(source, 0 if dim in keys else self.begins[at])
        if use.value not in self.own:
            return use
        mine = tuple(names.get(dim, dim) for dim in use.dims)
        held = [dim for dim in use.dims if dim in self.positions]
        if not held and self.graph[use.node].op == "scan":
            _refuse(node, "it reads a state that all tokens made")
        found = self._up_to(use.value, at) if held and set(held) <= set(keys) else self.own[use.value][at]
        return Use(found.node, found.output, mine, use.dtype)

    def _constant(self, like: Node, value: int) -> Use:
        """Where a part begins, a number that is known."""
        name = f"{like.id}{MARK}{value}"
        if name not in self.builder:
            attrs: Mapping[str, Attr] = MappingProxyType({"value": value, "dims": (), "dtype": DType.I64})
            self.builder.add(replace(like, id=name, op="constant", attrs=attrs))
        return self.builder[name].out()

    def _cut(self, node: Node) -> None:
        """An input comes whole; slices are views of it."""
        self.builder.add(node)
        (dim,) = self._dims(node)[:1]
        parts = tuple(self._dim(dim, at) for at in range(len(self.lengths)))
        outs = tuple(
            TensorType(tuple(part if d == dim else d for d in node.outs[0].dims), node.outs[0].dtype) for part in parts
        )
        made = replace(node, id=f"{node.id}{MARK}cut", op="split", uses=(node.out(),), outs=outs)
        self.builder.add(replace(made, attrs=MappingProxyType({"dim": dim, "parts": parts})))
        self.own[node.id, 0] = [made.out(at) for at in range(len(parts))]

    def _up_to(self, value: tuple[str, int], at: int) -> Use:
        """What slices 0 to `at` have of a value, end to end."""
        pieces = self.own[value][: at + 1]
        if len(pieces) == 1:
            return pieces[0]
        source = self.graph[value[0]]
        dims = source.outs[value[1]].dims
        (dim,) = (d for d in dims if d in self.positions)
        if (*value, dim, at) not in self.back:
            self.back[*value, dim, at] = self._joined(source, dims, dim, pieces, f"{MARK}to{at}", self._prefix(dim, at))
        return self.back[*value, dim, at]

    def _joined(self, like: Node, dims: Dims, dim: Dim, pieces: Sequence[Use], mark: str, whole: Dim) -> Use:
        parts = tuple(piece.dims[dims.index(dim)] for piece in pieces)
        out = TensorType(tuple(whole if d == dim else d for d in dims), pieces[0].dtype)
        node = Node(
            self.builder.fresh(f"{like.id}{mark}"), "concat", tuple(pieces), (out,),
            MappingProxyType({"dim": whole, "parts": parts}), like.phase, path=like.path, layer=like.layer,
            origin=like.origin,
        )  # fmt: skip
        return self.builder.add(node).out()

    def _body(self, key: str, names: Mapping[Dim, Dim], at: int) -> str:
        """The meaning of a kernel function for a slice's sizes."""
        name = f"{key}{MARK}{at}"
        body = self.graph.bodies[key]
        if not any(dim in names for dim in _every_dim(body)):
            return key
        self.bodies.setdefault(name, _renamed(body, names))
        return name

    # ---- what waits for every slice

    def _late(self, node: Node) -> None:
        if self._total(node):
            for index, out in enumerate(node.outs):
                assert index == 0, f"{node.id}: one sum over all tokens"
                pieces = tuple(replace(piece, dims=out.dims) for piece in self.own[node.id, index])
                total = replace(node, op="add", uses=pieces, attrs=MappingProxyType({}), body=None)
                self.builder.add(total)
            del self.own[node.id, 0]
            return
        self.builder.add(replace(_whole_extent(node), uses=tuple(map(self._whole, node.uses))))

    def _whole(self, use: Use) -> Use:
        """A value of the old graph in the new one, all slices together."""
        if use.value not in self.own:
            return use
        dims = self.graph[use.node].outs[use.output].dims
        held = [dim for dim in dims if dim in self.positions]
        pieces = self.own[use.value]
        if not held:  # the state that a scan leaves
            return Use(pieces[-1].node, pieces[-1].output, use.dims, use.dtype)
        if len(held) > 1:
            _refuse(self.graph[use.node], "what it gives of each slice has another length")
        found = self._joined(self.graph[use.node], dims, held[0], pieces, f"{MARK}all", held[0])
        return Use(found.node, found.output, use.dims, use.dtype)


def _whole_extent(node: Node) -> Node:
    """The global size of a dim stays the whole's: it is written down before the dim is cut."""
    if node.op != "extent":
        return node
    attrs = {"value": elements(attributes.dims(node.attrs, "over")), "dims": (), "dtype": DType.I64}
    return replace(node, op="constant", attrs=attrs)


def _every_dim(graph: Graph) -> Iterator[Dim]:
    yield from graph.dims().values()
    for node in graph:
        for value in node.attrs.values():
            yield from dims_in(value)


def _renamed(body: Graph, names: Mapping[Dim, Dim]) -> Graph:
    builder = GraphBuilder.rewriting(body)
    for node in body:
        outs = tuple(TensorType(_through(out.dims, names), out.dtype) for out in node.outs)
        attrs = {key: with_dims(value, names) for key, value in node.attrs.items()}
        builder.add(replace(node, uses=tuple(use.relabel(names) for use in node.uses), outs=outs, attrs=attrs))
    for name, use in body.outputs.items():
        builder.output(name, use.relabel(names))
    for key, inner in body.bodies.items():
        builder.body(key, _renamed(inner, names))
    return builder.finish()


def _through(dims: Iterable[Dim], names: Mapping[Dim, Dim]) -> Dims:
    return tuple(names.get(dim, dim) for dim in dims)
