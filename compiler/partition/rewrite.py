"""Writes a choice of strategies into a graph: every result gets its layout, every change between layouts its nodes.

In: a graph, a strategy for each node, and the cheapest ways between layouts. Out: one graph for all devices of the
mesh, with global sizes, in which an operand lies as its reader wants it. A value is brought to a layout once, before
its first reader, however many read it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..ir.graph import Graph, GraphBuilder
from ..ir.layout import Layout, Mesh
from ..ir.levels import PHASE_ORDER
from ..ir.types import Attr, Dim, Dims, Node, Phase, Use
from ..ops import attributes
from ..ops.collectives import COLLECTIVES
from ..ops.registry import REGISTRY
from .apart import TAKE_APART
from .relayout import Move, Paths
from .strategies import Option, Strategy, operand_layouts, result_layouts, summed_rows

Value = tuple[str, int]
Layouts = tuple[Layout, ...]
_F, _B = Phase.FORWARD, Phase.BACKWARD
# From which phases a value may be read: what runs once a step does not see what every microbatch makes.
_FROM: Mapping[Phase, tuple[Phase, ...]] = MappingProxyType(
    {
        Phase.PREPARE: (Phase.PREPARE,),
        _F: (Phase.PREPARE, _F),
        _B: (Phase.PREPARE, _F, _B),
        Phase.UPDATE: (Phase.PREPARE, Phase.UPDATE),
    }
)


def rewrite(graph: Graph, mesh: Mesh, strategies: Mapping[str, Strategy], paths: Paths, again: frozenset[str]) -> Graph:
    """The partitioned graph. `again`: nodes whose values are gathered anew for each phase and then dropped (ZeRO 3)."""
    return _Rewrite(graph, mesh, strategies, paths, again).run()


@dataclass(frozen=True, slots=True)
class _Lying:
    """What a strategy says of nodes: whether they are taken apart, how they want operands, how results lie."""

    strategy: Strategy
    apart: bool
    wanted: Layouts
    made: Layouts


@dataclass
class _Rewrite:
    graph: Graph
    mesh: Mesh
    strategies: Mapping[str, Strategy]
    paths: Paths
    again: frozenset[str]
    instead: dict[Value, Use] = field(default_factory=dict[Value, Use])
    fitted: dict[tuple[Value, Layout, Phase], Node] = field(default_factory=dict[tuple[Value, Layout, Phase], Node])
    known: dict[object, _Lying] = field(default_factory=dict[object, _Lying])  # by a strategy's identity, and of what
    layouts: dict[Layout, Layout] = field(default_factory=dict[Layout, Layout])  # equal ones are one object
    origin: dict[Value, Value] = field(default_factory=dict[Value, Value])  # of what was moved: what it is elsewhere
    sorted_by: dict[str, Use] = field(default_factory=dict[str, Use])  # of a node with sorted rows: what sorts them

    def run(self) -> Graph:
        self.builder = GraphBuilder.rewriting(self.graph)
        self.sorts = any(node.op == "dispatch" for node in self.graph)
        for node in self.graph:
            self._node(node, self.strategies[node.id])
        for name, use in self.graph.outputs.items():
            now = self._now(use)
            has = self._layout(now.value)
            source = self.builder[now.node]
            self.builder.output(name, self._fit(now, Layout(has.shards), replace(source, phase=self._seen(source))))
        return self.builder.finish(bodies=self.graph.bodies)

    def _node(self, node: Node, strategy: Strategy) -> None:
        now, lying = tuple([self._now(use) for use in node.uses]), self._lying(node, strategy)
        if lying.apart:
            self._apart(replace(node, uses=now), strategy)
        elif node.op == "assign":
            target = attributes.text(node.attrs, "target")
            self.builder.add(node.laid((self._fit(now[0], self.builder[target].layouts[0], node),), ()))
        else:
            uses = tuple([self._fit(use, want, node) for use, want in zip(now, lying.wanted, strict=True)])
            rows = summed_rows(node, strategy) if self.sorts else None
            if rows is not None:
                uses = tuple(self._masked(use, rows, node) if rows in use.dims else use for use in uses)
            node = node.laid(uses, lying.made)
            self._sort(node)
            self.builder.add(node)

    def _lying(self, node: Node, strategy: Strategy) -> _Lying:
        """Asked for once for all of a class."""
        key = id(strategy), tuple([len(use.dims) for use in node.uses]), tuple([len(out.dims) for out in node.outs])
        found = self.known.get(key)
        if found is None:
            wanted, made = operand_layouts(node, strategy, self.mesh), result_layouts(node, strategy, self.mesh)
            one = self.layouts.setdefault
            apart = any(option.apart for option in strategy)
            wanted, made = (tuple(one(each, each) for each in layouts) for layouts in (wanted, made))
            found = self.known[key] = _Lying(strategy, apart, wanted, made)
        return found

    def _now(self, use: Use) -> Use:
        """The edge that stands for this one now."""
        found = self.instead.get((use.node, use.output))
        return use if found is None else Use(found.node, found.output, use.dims, use.dtype)

    def _layout(self, value: Value) -> Layout:
        return self.builder[value[0]].layouts[value[1]]

    # ---- changes of layout

    def _fit(self, use: Use, wanted: Layout, reader: Node) -> Use:
        """The value as its reader wants it."""
        source = self.builder[use.node]
        has = source.layouts[use.output]
        if has is wanted or has == wanted:
            return use
        dims = source.outs[use.output].dims
        _, path = self.paths.find(dims, use.dtype.itemsize_bytes, has, wanted)
        value, phase = use.value, self._phase(source, use.value, path, reader)
        for move in path:
            value = (self._moved(source, value, dims, move, reader, phase).id, 0)
        return Use(value[0], value[1], use.dims, use.dtype)

    def _moved(self, source: Node, value: Value, dims: Dims, move: Move, reader: Node, phase: Phase) -> Node:
        """The node of one move, made once for all readers in or after its phase."""
        for earlier in (phase,) if self._anew(source, move) else _FROM[phase]:
            if (value, move.after, earlier) in self.fitted:
                return self.fitted[value, move.after, earlier]
        use = Use(value[0], value[1], dims, self.builder[value[0]].outs[value[1]].dtype)
        at = reader if phase is reader.phase and phase is not Phase.PREPARE else source
        sorting = self._sorting(use, move, replace(at, phase=phase))
        node = Node(
            self.builder.fresh(_name(source.id, value, move)), move.op, (use, *sorting), (use.type,),
            _attrs(move, dims), phase, None, at.path, at.layer, source.origin, (move.after,),
        )  # fmt: skip
        self.fitted[value, move.after, phase] = self.builder.add(node)
        self.origin[node.id, 0] = self.origin.get(value, value)
        self._sort(node)
        return node

    def _anew(self, source: Node, move: Move) -> bool:
        """Whether each phase makes a move for itself. The backward gathers again what the forward has gathered: what is
        kept is a device's part (as Korthikanti et al. 2022, section 4.2.2, keep a norm's)."""
        return source.id in self.again or (move.op == "all_gather" and source.phase is _F)

    # ---- sorted rows

    def _sort(self, node: Node) -> None:
        """Whose rows a node's rows are: those of what first sorted them."""
        if not self.sorts:
            return
        if node.op == "dispatch":
            self.sorted_by[node.id] = node.out(1)
        elif any(dim.runs is not None for out in node.outs for dim in out.dims):
            known = [use.node for use in node.uses if use.node in self.sorted_by and any(d.runs for d in use.dims)]
            if known:
                self.sorted_by[node.id] = self.sorted_by[known[0]]

    def _sorting(self, use: Use, move: Move, reader: Node) -> tuple[Use, ...]:
        """What sorts the rows that a move cuts or puts together, as it lies before and after."""
        rows = [at for at in (move.dim, move.to) if at is not None and use.dims[at].runs is not None]
        if not rows:
            return ()
        layouts = [move.before, move.after]
        if move.op != "all_to_all":
            layouts = [layout for layout in layouts if not layout.shards[rows[0]]]
        ids = self.sorted_by[use.node]
        if move.op == "all_to_all" and self.origin.get(use.value, use.value) == ids.value:
            return ()
        return tuple(self._ids(ids, use, layout, reader) for layout in layouts)

    def _ids(self, ids: Use, use: Use, layout: Layout, reader: Node) -> Use:
        """What sorts a value's rows, lying as the value does."""
        cut = dict(zip(use.dims, layout.shards, strict=True))
        return self._fit(ids, Layout(tuple(cut[dim] for dim in ids.dims)), reader)

    def _masked(self, use: Use, rows: Dim, reader: Node) -> Use:
        """A device's own rows, and 0 beside them."""
        names = dict(zip(self.builder[use.node].outs[use.output].dims, use.dims, strict=True))
        layout = self._layout(use.value)
        ids = self.sorted_by[use.node]
        ids = self._ids(ids.relabel(names), use, layout, reader)
        (axis,) = layout.shards[use.dims.index(rows)]
        node = Node(
            self.builder.fresh(f"mask/{use.node}"), "mask", (use, ids), (use.type,), {"axis": axis, "dim": rows},
            max(reader.phase, self.builder[use.node].phase, key=PHASE_ORDER.__getitem__), None, reader.path,
            reader.layer, reader.origin, (layout,),
        )  # fmt: skip
        return self.builder.add(node).out()

    def _phase(self, source: Node, value: Value, path: tuple[Move, ...], reader: Node) -> Phase:
        """A message about what is there before the microbatches is sent once a step; all else where it is read."""
        once = source.phase is Phase.PREPARE and reader.phase in (Phase.FORWARD, Phase.BACKWARD)
        if once and any(move.op in COLLECTIVES for move in path) and source.id not in self.again:
            return Phase.PREPARE
        return max(self._seen(source), reader.phase, key=PHASE_ORDER.__getitem__)

    def _seen(self, source: Node) -> Phase:
        """From when on a value is there: a sum over microbatches when all have run."""
        return Phase.UPDATE if source.op == "accumulate" else source.phase

    # ---- nodes taken apart

    def _apart(self, node: Node, strategy: Strategy) -> None:
        """The node's operators in its place; each cuts what the node cuts, and owes what it must."""
        owed = {d for option in strategy if option.apart for d in option.cut}

        def build(
            op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
        ) -> tuple[Use, ...]:
            outs = REGISTRY[op].infer(tuple(use.type for use in operands), attrs)
            name = self.builder.fresh(f"{node.id}.{hint or op}")
            made = replace(node, id=name, op=op, uses=operands, outs=outs, attrs=attrs, body=body)
            self._node(made, tuple(_option_of(made, option) for option in strategy))
            return tuple(made.out(index) for index in range(len(outs)))

        for index, use in enumerate(TAKE_APART[node.op](build, node)):
            names = dict(zip(use.dims, node.outs[index].dims, strict=True))
            assert not owed & set(use.dims), f"{node.id} is whole where its parts were joined"
            self.instead[node.id, index] = use.relabel(names)


def _option_of(node: Node, option: Option) -> Option:
    """What an axis does in an operator that a node was taken apart into: it cuts the same dims where they are."""
    from .strategies import options

    found = options(node)
    same = [one for one in found if one.cut and set(one.cut) <= set(option.cut) and not one.apart]
    return same[0] if same else found[0]


def _name(source: str, value: Value, move: Move) -> str:
    """`all_reduce/blocks.0.attn.o`, named after what it moves; a second result after its number."""
    of = value[0] if "/" not in value[0] or value[0] == source else source
    return f"{move.op}/{of}" + (f".{value[1]}" if value[1] else "")


def _attrs(move: Move, dims: Dims) -> dict[str, Attr]:
    found: dict[str, Attr] = {"axis": move.axis}
    if move.op == "all_to_all":
        assert move.dim is not None and move.to is not None, "an all-to-all joins one dim and cuts another"
        split, join = dims[move.to], dims[move.dim]
        found.update(split=split, split_into=split, join=join, join_into=join)
    elif move.dim is not None:
        found.update(dim=dims[move.dim], into=dims[move.dim])
    if move.op in ("all_reduce", "reduce_scatter", "partial"):
        found["reduction"] = move.reduction.value
    return found
