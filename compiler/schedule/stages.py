"""What each stage of a pipeline runs: one device's step graph becomes a graph for each stage.

In: a cut graph (`chunks.py`) and a schedule. Out: for each stage an ordinary graph with `lower.send` and
`lower.receive` where values cross, and for its nodes the part of a microbatch's work (an action of the schedule) that
they belong to. A parameter is on the stages that read it, its states with it. What follows the microbatches is in
`step_end.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..base.diagnostic import Diagnostic, SpecError
from ..cost.memory import STORED
from ..ir.graph import DUMP, Graph, GraphBuilder
from ..ir.layout import PIPE
from ..ir.levels import RECEIVE, SEND
from ..ir.types import Attr, Node, Phase, TensorType, Use
from .actions import COMPUTE, RECEIVES, SENDS, Action, Kind, Schedule
from .chunks import MICROBATCH, Chunked, Homes, Sum, Value, is_before
from .messages import local_sum, message_tags, total, value_name
from .step_end import Update, Writing

Part = tuple[Kind, int, int]  # what a device does for a microbatch, for which chunk and token slice


@dataclass(frozen=True)
class Stage:
    """One stage. `parts` are in the order in which a microbatch goes through them; `part` names that of a node.

    whole   the graph that it was cut from
    order   what runs when: a part and a microbatch
    ranks   the orders in which microbatches go through the parts: of each, the place of every part
    """

    graph: Graph
    whole: Graph
    parts: tuple[Part, ...]
    part: Mapping[str, int]
    order: tuple[tuple[int, int], ...]
    ranks: tuple[tuple[int, ...], ...]


def part_name(part: Part) -> str:
    """`forward 0`, of a later token slice `forward 0.1`"""
    kind, chunk, number = part
    return f"{kind.value} {chunk}.{number}" if number else f"{kind.value} {chunk}"


def staged(
    cuts: Mapping[str, tuple[Chunked, Schedule]], ahead: int, dump: Sequence[str] = ()
) -> tuple[dict[str, list[Stage]], dict[str, Homes]]:
    """The stages of some programs over the same parameters and states, and which stages have each of these.

    `ahead`: how many messages of a kind may be on their way; `dump`: names of values that the stages which make them
    give as outputs. Raises SpecError E0946.
    """
    drafts: dict[str, list[_Draft]] = {}
    homes: dict[str, Homes] = {}
    for name, (cut, schedule) in cuts.items():
        assert cut.placement == schedule.shape.placement, "the graph is cut as the schedule says"
        tags = message_tags(cut)
        drafts[name] = [_Draft(cut, schedule.actions[d], d, tags, ahead) for d in range(cut.devices)]
        for stored, places in _homes(cut, drafts[name]).items():
            homes[stored] = homes.get(stored, frozenset()) | places
    updates = {name: Update(cut, _with_states(cut, homes)) for name, (cut, _) in cuts.items()}
    return {name: [one.finish(updates[name], dump) for one in some] for name, some in drafts.items()}, homes


def dumped(step: Graph, dump: Sequence[str]) -> dict[str, Use]:
    """What of a step is to be looked at, by the names of the outputs that it becomes."""
    taps = {name: use for name, use in step.outputs.items() if name.startswith(DUMP)}
    return {**taps, **{DUMP + name: step[name].out() for name in dump if name in step and step[name].outs}}


def _homes(cut: Chunked, drafts: Sequence[_Draft]) -> dict[str, Homes]:
    """Where each parameter and state is: with those who read it."""
    found: dict[str, Homes] = {}
    for node in cut.step:
        if node.op in STORED:
            found[node.id] = frozenset(d for d, draft in enumerate(drafts) if node.id in draft.asked)
    for node in cut.step:
        if node.op == "assign" and node.phase in MICROBATCH:
            target = str(node.attrs["target"])
            if len(found[target]) > 1:
                title = f"`{target}` is written in every microbatch, and several stages read it"
                raise SpecError(Diagnostic("E0946", title, hint="place the layers that read it on one stage"))
    return found


def _with_states(cut: Chunked, homes: dict[str, Homes]) -> dict[str, Homes]:
    """`homes` completed: a parameter that nobody reads is on the first; a state with its parameter, or everywhere.

    Numbers that the update counts (a loss's scale, the steps that were none) each stage counts itself.
    """
    everywhere = frozenset(range(cut.devices))
    for node in cut.step:
        if node.op == "parameter" and not homes[node.id]:
            homes[node.id] = frozenset({0})
    counted = {str(node.attrs["target"]) for node in cut.step if node.op == "assign" and node.phase is Phase.UPDATE}
    for node in cut.step:
        if node.op == "state":
            of = homes.get(str(node.attrs["of"]), frozenset[int]())
            number = node.id in counted and not of and not node.outs[0].dims
            homes[node.id] = everywhere if number else homes[node.id] | of or everywhere
    return homes


@dataclass
class _Draft:
    """One stage's work for a microbatch, written down in order."""

    cut: Chunked
    actions: Sequence[Action]
    device: int
    tags: Mapping[object, int]
    ahead: int
    asked: dict[str, None] = field(init=False, default_factory=dict[str, None])  # leaves, and what is made once a step
    nodes: list[Node] = field(init=False, default_factory=list[Node])
    part: dict[str, int] = field(init=False, default_factory=dict[str, int])
    instead: dict[Value, Use] = field(init=False, default_factory=dict[Value, Use])

    def __post_init__(self) -> None:
        orders: dict[int, list[Part]] = {}
        for action in self.actions:
            if action.kind in COMPUTE | SENDS | RECEIVES:
                orders.setdefault(action.microbatch, []).append((action.kind, action.chunk, action.slice))
        self.parts = tuple(part for part in orders[0] if not self._is_empty(part))
        self.ranks = tuple(dict.fromkeys(tuple(map(order.index, self.parts)) for order in orders.values()))
        self.here = {node.id: node for node in self.cut.step}
        self.inside: dict[Part, list[Node]] = {}
        spread = {name for one in self.cut.sums.values() if one.spread for name in (*one.inner, one.root.id)}
        for node in self.cut.step:
            place = self.cut.place.get(node.id)
            if place is not None and node.id not in spread:
                self.inside.setdefault(place, []).append(node)
        self.made: set[str] = set()
        for number, part in enumerate(self.parts):
            self.number = number
            self._write(*part)

    # ---- parts

    def _border(self, kind: Kind, chunk: int, number: int) -> tuple[Kind, int, tuple[Value, ...]]:
        """The kind of send, the border, and the values of a slice's message."""
        if kind in (Kind.SEND_ACTIVATION, Kind.RECEIVE_ACTIVATION):
            border = chunk if kind is Kind.SEND_ACTIVATION else chunk - 1
            send, values = Kind.SEND_ACTIVATION, self.cut.activations[border]
        else:
            border = chunk - 1 if kind is Kind.SEND_GRADIENT else chunk
            send, values = Kind.SEND_GRADIENT, self.cut.gradients[border]
        return send, border, tuple(value for value in values if self.cut.place[value[0]][2] == number)

    def _is_empty(self, part: Part) -> bool:
        return part[0] in SENDS | RECEIVES and not self._border(*part)[2]

    def _write(self, kind: Kind, chunk: int, number: int) -> None:
        if kind in SENDS | RECEIVES:
            send, border, values = self._border(kind, chunk, number)
            for value in values:
                tag = self.tags[send, border, value]
                forward = send is Kind.SEND_ACTIVATION
                ends = (border, border + 1) if forward else (border + 1, border)
                peer = self.cut.placement[ends[1] if kind in SENDS else ends[0]]
                phase = Phase.FORWARD if forward else Phase.BACKWARD
                (self._send if kind in SENDS else self._receive)(value, peer, tag, phase)
            return
        halves = (Kind.INPUT, Kind.WEIGHT) if kind is Kind.BACKWARD else (kind,)
        found = [node for half in halves for node in self.inside.get((half, chunk, number), ())]
        if len(halves) > 1:
            known = {node.id: place for place, node in enumerate(self.cut.step)}
            found.sort(key=lambda node: known[node.id])
        for node in found:
            self._node(node, node.phase)
        if Kind.WEIGHT in halves and number == 0:  # the last
            for one in self.cut.sums.values():
                if one.spread and self.device in one.terms and self._chunk_of(one) == chunk:
                    self._local_sum(one)

    def _chunk_of(self, one: Sum) -> int:
        """Of this device's chunks with terms of a sum, the last to go backward."""
        return min(self.cut.place.get(use.node, self.cut.place[one.root.id])[1] for use in one.terms[self.device])

    def _local_sum(self, one: Sum) -> None:
        """This device's terms, added up over the microbatches."""
        kind, name = one.root.outs[0], local_sum(one.root.id)
        uses = [self._fitted(one.root, use, place) for place, use in enumerate(one.terms[self.device])]
        if len(uses) > 1:
            uses = [self._put(replace(one.root, id=f"{name}.add", op="add", uses=tuple(uses))).out()]
        self._put(replace(one.root, id=name, uses=(uses[0],), outs=(kind,)))

    def _fitted(self, root: Node, use: Use, place: int) -> Use:
        """A term in the type and the order of axes of the sum."""
        use, out = self._use(use, Phase.BACKWARD), root.outs[0]
        wanted = root.uses[0]
        names = dict(zip(wanted.dims, out.dims, strict=True))
        use = use.relabel(names)
        like = replace(root, attrs={}, body=None)
        if use.dtype is not out.dtype:
            name, kind = f"{local_sum(root.id)}.cast.{place}", TensorType(use.dims, out.dtype)
            made = replace(like, id=name, op="cast", uses=(use,), attrs={"to": out.dtype}, outs=(kind,))
            use = self._put(made).out()
        if use.dims != out.dims:
            made = replace(like, id=f"{local_sum(root.id)}.order.{place}", op="transpose", uses=(use,), outs=(out,))
            use = self._put(replace(made, attrs={"dims": out.dims})).out()
        return use

    # ---- nodes

    def _node(self, node: Node, phase: Phase) -> None:
        if node.op == "assign":
            self.asked[str(node.attrs["target"])] = None
        self._put(replace(node, uses=tuple(self._use(use, phase) for use in node.uses), phase=phase))

    def _put(self, node: Node) -> Node:
        self.nodes.append(node)
        self.part[node.id] = self.number
        self.made.add(node.id)
        return node

    def _use(self, use: Use, phase: Phase) -> Use:
        """An operand as it is here; what every device makes itself is made before its first reader."""
        if use.value in self.instead:
            found = self.instead[use.value]
            return Use(found.node, found.output, use.dims, use.dtype)
        node = self.here[use.node]
        if is_before(node):
            self.asked[node.id] = None
            self._ask(node)
        elif node.id in self.cut.free and node.id not in self.made:
            self._node(node, phase)
        return use

    def _ask(self, node: Node) -> None:
        for use in node.uses:
            if use.node not in self.asked:
                self.asked[use.node] = None
                self._ask(self.here[use.node])

    def _send(self, value: Value, peer: int, tag: int, phase: Phase) -> None:
        source = self.here[value[0]]
        use = self._use(Use(*value, source.outs[value[1]].dims, source.outs[value[1]].dtype), phase)
        attrs: dict[str, Attr] = {"axis": PIPE, "peer": peer, "tag": tag, "ahead": self.ahead}
        like = Node(f"send {self.number}/{value_name(value)}", SEND, (use,), (), attrs, phase)
        self._put(replace(like, path=source.path, origin=source.origin))

    def _receive(self, value: Value, peer: int, tag: int, phase: Phase) -> None:
        source = self.here[value[0]]
        attrs: dict[str, Attr] = {"axis": PIPE, "peer": peer, "tag": tag}
        made = Node(value_name(value), RECEIVE, (), (source.outs[value[1]],), attrs, phase)
        self.instead[value] = self._put(replace(made, path=source.path, origin=source.origin)).out()

    # ---- the whole graph

    def finish(self, update: Update, dump: Sequence[str]) -> Stage:
        """The stage's graph, its update and what is dumped of it included."""
        step, writing = self.cut.step, Writing(self.device, self.tags, self.ahead, update, self.instead)
        late = writing.write()
        wanted = {*self.asked, *writing.leaves}
        for node in reversed(list(step)):
            if node.id in wanted:
                wanted.update(use.node for use in node.uses)
        builder = GraphBuilder.rewriting(step)
        builder.extend(node for node in step if node.id in wanted and is_before(node))
        builder.extend(self.nodes)
        builder.extend(late)
        made = {node.id for node in (*self.nodes, *late)} | (wanted & {node.id for node in step if is_before(node)})
        for name, use in {**writing.outputs, **self._dumped(dump, made)}.items():
            builder.output(name, use)
        for key, body in step.bodies.items():
            builder.body(key, body)
        numbers = {part: number for number, part in enumerate(self.parts)}
        named = (((action.kind, action.chunk, action.slice), action.microbatch) for action in self.actions)
        order = tuple((numbers[part], microbatch) for part, microbatch in named if part in numbers)
        return Stage(builder.finish(), step, self.parts, self.part, order, self.ranks)

    def _dumped(self, dump: Sequence[str], made: Collection[str]) -> dict[str, Use]:
        """What this stage has of what is to be looked at; of a sum over stages what it is in all."""
        found: dict[str, Use] = {}
        for name, use in dumped(self.cut.step, dump).items():
            for node in (use.node, total(use.node)):
                if node in made:
                    found[name] = replace(use, node=node)
        return found
