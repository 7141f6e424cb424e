"""What stages of a pipeline do once a step, after the microbatches: sums that several have terms of, and the update.

In: a cut graph (`chunks.py`) and which stages have each parameter and state. Out: the update of all stages in one
order (`Update`), and of that each stage's nodes (`Writing`). The update of a parameter runs where the parameter is. A
sum over parameters of all stages (the gradients' norm) is summed on each stage, every parameter once, and joined along
the axis of the pipeline; gradients of a parameter that several stages read are exchanged and added in one order, so
that its copies stay equal to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..ir.graph import DUMP
from ..ir.layout import PIPE
from ..ir.levels import RECEIVE, SEND
from ..ir.types import Attr, DType, Node, Phase, TensorType, Use
from ..ops.registry import REGISTRY
from ..ops.shapes import elements
from .chunks import Chunked, Homes, Sum, Value, is_before
from .messages import local_sum, total, value_name


@dataclass(frozen=True)
class _Join:
    """A value of all stages: `node` is a sum whose operands each have one device, or a value that one device has."""

    name: str
    operands: tuple[Use, ...]
    owners: tuple[int, ...]
    like: Node
    out: TensorType


@dataclass
class Update:
    """The update of all stages: its nodes in order with what must be joined between them, and where each value is."""

    cut: Chunked
    stored: Mapping[str, Homes]
    steps: list[Node | _Join] = field(init=False, default_factory=list[Node | _Join])
    homes: dict[str, Homes] = field(init=False, default_factory=dict[str, Homes])
    joined: dict[Value, Use] = field(init=False, default_factory=dict[Value, Use])
    outputs: dict[str, Use] = field(init=False, default_factory=dict[str, Use])

    def __post_init__(self) -> None:
        self.everywhere = frozenset(range(self.cut.devices))
        for node in self.cut.step:
            if node.phase is not Phase.UPDATE:
                self.homes[node.id] = self._home(node)
            else:
                self._node(node)
        for name, use in self.cut.step.outputs.items():
            if not name.startswith(DUMP):
                self.outputs[name] = self._everywhere(use, self.cut.step[use.node])

    def _home(self, node: Node) -> Homes:
        """Where a value that was made before is."""
        if node.id in self.stored:
            return self.stored[node.id]
        if node.id in self.cut.sums:
            return frozenset(self.cut.sums[node.id].terms)
        if node.id in self.cut.place:
            return frozenset({self.cut.device(node.id)})
        return self._common(node.uses)

    def _common(self, uses: Iterable[Use]) -> Homes:
        return self.everywhere.intersection(*(self.homes[use.node] for use in uses))

    def _node(self, node: Node) -> None:
        common = self._common(node.uses)
        if node.op == "assign":
            target = self.stored[str(node.attrs["target"])]
            use = node.uses[0] if target <= common else self._everywhere(node.uses[0], node)
            self.steps.append(replace(node, uses=(use,)))
        elif common:
            self.homes[node.id] = common
            self.steps.append(node)
        elif node.op == "add" and all(use.dims == node.outs[0].dims for use in node.uses):
            owners = tuple(min(self.homes[use.node]) for use in node.uses)
            self.steps.append(_Join(node.id, node.uses, owners, node, node.outs[0]))
            self.homes[node.id] = self.everywhere
        else:
            uses = self._together(node)
            self.steps.append(replace(node, uses=uses))
            self.homes[node.id] = self._common(uses)

    def _together(self, node: Node) -> tuple[Use, ...]:
        """Operands that no stage has all of: the smaller are told to all, until one has the others."""
        uses = list(node.uses)
        for place in sorted(range(len(uses)), key=lambda place: elements(uses[place].dims)):
            if not self._common(uses):
                uses[place] = self._everywhere(uses[place], node)
        return tuple(uses)

    def _everywhere(self, use: Use, like: Node) -> Use:
        """A value that all stages have: the first that has it tells the others."""
        if self.homes[use.node] == self.everywhere:
            return use
        if use.value not in self.joined:
            name = f"{value_name(use.value)}/all"
            join = _Join(name, (use,), (min(self.homes[use.node]),), like, use.type)
            self.steps.append(join)
            self.homes[name] = self.everywhere
            self.joined[use.value] = Use(name, 0, use.dims, use.dtype)
        found = self.joined[use.value]
        return Use(found.node, 0, use.dims, use.dtype)


@dataclass
class Writing:
    """The update of one stage."""

    device: int
    tags: Mapping[object, int]
    ahead: int
    update: Update
    instead: Mapping[Value, Use]
    nodes: list[Node] = field(init=False, default_factory=list[Node])
    leaves: dict[str, None] = field(init=False, default_factory=dict[str, None])
    outputs: dict[str, Use] = field(init=False, default_factory=dict[str, Use])

    def write(self) -> list[Node]:
        """Its nodes, in an order that is the same on all stages for what they do together."""
        cut, wanted = self.update.cut, {use.node for use in self.update.outputs.values()}
        mine: list[Node | _Join] = []
        for step in reversed(self.update.steps):
            if isinstance(step, _Join):
                mine.append(step)
                pairs = zip(step.operands, step.owners, strict=True)
                wanted.update(use.node for use, owner in pairs if owner == self.device)
            elif step.id in wanted or (step.op == "assign" and self.device in self._target(step)):
                mine.append(step)
                wanted.update(use.node for use in step.uses)
        for one in cut.sums.values():
            if one.spread and self.device in one.terms:
                self._exchange(one)
        for step in reversed(mine):
            if isinstance(step, _Join):
                self._join(step)
            else:
                self.nodes.append(replace(step, uses=tuple(map(self._use, step.uses))))
                if step.op == "assign":
                    self.leaves[str(step.attrs["target"])] = None
        self.outputs = {name: self._use(use) for name, use in self.update.outputs.items()}
        return self.nodes

    def _target(self, node: Node) -> Homes:
        return self.update.stored[str(node.attrs["target"])]

    def _use(self, use: Use) -> Use:
        cut = self.update.cut
        if use.node in cut.sums and cut.sums[use.node].spread:
            return Use(total(use.node), 0, use.dims, use.dtype)
        if use.node in cut.step:
            node = cut.step[use.node]
            if is_before(node):
                self.leaves[use.node] = None
        found = self.instead.get(use.value)
        return use if found is None else Use(found.node, found.output, use.dims, use.dtype)

    def _exchange(self, one: Sum) -> None:
        """Each device's part to every other that has one; all add them in the order of devices."""
        name, kind, devices = one.root.id, one.root.outs[0], sorted(one.terms)
        like = replace(one.root, phase=Phase.UPDATE, attrs={}, body=None)
        mine = Use(local_sum(name), 0, kind.dims, kind.dtype)
        parts = {self.device: mine}
        for other in devices:
            if other != self.device:
                attrs: dict[str, Attr] = {"axis": PIPE, "peer": other, "tag": self.tags[name, self.device, other]}
                sent = replace(like, id=f"{name}/to {other}", op=SEND, uses=(mine,), outs=())
                self.nodes.append(replace(sent, attrs={**attrs, "ahead": self.ahead}))
        for other in devices:
            if other != self.device:
                attrs = {"axis": PIPE, "peer": other, "tag": self.tags[name, other, self.device]}
                came = replace(like, id=f"{name}/from {other}", op=RECEIVE, uses=(), attrs=attrs)
                self.nodes.append(came)
                parts[other] = came.out()
        uses = tuple(parts[device] for device in devices)
        self.nodes.append(replace(like, id=total(name), op="add", uses=uses))

    def _join(self, join: _Join) -> None:
        """This stage's terms, or nothing, and then the sum over all stages."""
        mine = [self._use(use) for use, owner in zip(join.operands, join.owners, strict=True) if owner == self.device]
        out, wire = join.out, DType.I64 if join.out.dtype is DType.BOOL else join.out.dtype
        like = replace(join.like, phase=Phase.UPDATE, attrs={}, body=None, layer=None)
        if not mine:
            zero: dict[str, Attr] = {"value": 0, "dims": out.dims, "dtype": wire}
            here = self._put(replace(like, id=f"{join.name}/none", op="constant", uses=(), attrs=zero), wire, out)
        else:
            here = mine[0]
            if len(mine) > 1:
                here = self._put(replace(like, id=f"{join.name}/here", op="add", uses=tuple(mine)), out.dtype, out)
            if wire is not out.dtype:
                to: dict[str, Attr] = {"to": wire}
                here = self._put(replace(like, id=f"{join.name}/wire", op="cast", uses=(here,), attrs=to), wire, out)
        attrs: dict[str, Attr] = {"axis": PIPE, "reduction": "sum"}
        name = join.name if wire is out.dtype else f"{join.name}/sum"
        found = self._put(replace(like, id=name, op="all_reduce", uses=(here,), attrs=attrs), wire, out)
        if wire is not out.dtype:
            back: dict[str, Attr] = {"to": out.dtype}
            self._put(replace(like, id=join.name, op="cast", uses=(found,), attrs=back), out.dtype, out)

    def _put(self, node: Node, dtype: DType, out: TensorType) -> Use:
        node = replace(node, outs=(TensorType(out.dims, dtype),))
        assert node.op in REGISTRY, f"no operator {node.op}"
        self.nodes.append(node)
        return node.out()
