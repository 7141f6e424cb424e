"""`scan t in T carry h = zeros[C] { … next h = … emit y = … }`: recurrence along a dim, as one `scan` node.

The body is read once, with placeholders for the carries and for t, and its nodes are cut out of the graph: what they
read from outside becomes the scan's operands, `x[T = t]` the slice of a step; what depends on no step stays outside. A
carry takes the axes that its next value has (`carry h = zeros[C]` carries the batch too), so the body is read again
until they settle. Randomness is drawn outside, for all steps at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..base.span import Span
from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Dim, DType, Node, TensorType, Use
from ..language import syntax as s
from ..ops.scan import emits_attr
from . import arithmetic as a
from . import dims as d
from . import statements
from .frame import Fault, Frame, Loop
from .structure import arranged
from .values import show_dims
from .writer import Region, Writer

_ROUNDS = 8  # how often a carry may grow


@dataclass(frozen=True, slots=True)
class _Carry:
    """A carry as it starts, and the placeholder that the body reads."""

    name: str
    start: Use
    mark: Use
    span: Span


def scan(frame: Frame, statement: s.Scan) -> None:
    """Read a scan; what it emits gets a name in the frame."""
    if not isinstance(frame.output, Writer):
        raise frame.fault("E0114", "`scan` cannot stand here", statement.span, hint="blocks and their functions scan")
    dim = _dim(frame, statement)
    carries = [_carry(frame, carry) for carry in statement.carries]
    for _ in range(_ROUNDS):
        region, loop = _read(frame, frame.output, statement, dim, carries)
        grown = [_grown(frame, carry, loop, dim) for carry in carries]
        if grown == carries:
            break
        frame.output.forget(region.nodes)
        carries = grown
    else:
        raise frame.fault("E0317", "the axes of the carries never settle", statement.span)
    results = _Cut(frame, frame.output, dim, carries, region, loop).node(statement)
    for (name, _), use in zip(loop.emits.items(), results, strict=True):
        frame.names[name] = use


# ---- reading


def _dim(frame: Frame, statement: s.Scan) -> Dim:
    bound = d.axes(frame, s.DimRef(statement.dim.span, statement.dim.text))
    if len(bound) != 1:
        raise frame.fault("E0207", f"a scan runs along one axis, not {show_dims(bound)}", statement.dim.span)
    for name in (statement.index, *(carry.name for carry in statement.carries)):
        d.taken(frame, name)
    return bound[0]


def _carry(frame: Frame, written: s.Carry) -> _Carry:
    value = frame.evaluate(written.value)
    dtype = value.dtype if isinstance(value, Use) else frame.context.dtype
    start = a.tensor(frame, value, dtype, written.value.span)
    return _marked(frame, written.name.text, start, written.span)


def _marked(frame: Frame, name: str, start: Use, span: Span) -> _Carry:
    return _Carry(name, start, Use(f"\0{frame.path}.{name}", 0, start.dims, start.dtype), span)


def _read(frame: Frame, writer: Writer, statement: s.Scan, dim: Dim, carries: list[_Carry]) -> tuple[Region, Loop]:
    """The body's nodes, and what it says comes next and is emitted."""
    loop = Loop(frozenset(carry.name for carry in carries), dim)
    at = Use(f"\0{frame.path}.{statement.index}", 0, (), DType.I64)
    writer.limits[at.value] = dim
    names = {**frame.names, statement.index.text: at, **{carry.name: carry.mark for carry in carries}}
    inner = replace(frame, names=names, dims=dict(frame.dims), unnamed={}, loop=loop)
    with writer.capture() as region:
        if statements.run_body(inner, statement.body.statements) is not None:
            raise frame.fault("E0114", "`return` cannot stand in a scan", statement.span, hint="emit y = …")
        _complete(frame, statement, loop)
        loop.index = at.node
        for carry in carries:
            _settle(inner, carry, loop)
    if any(node.op == "assign" for node in region.nodes):
        title = "a state cannot change from step to step of a scan"
        raise frame.fault("E0318", title, statement.span, hint="carry it: scan t in T carry h = …")
    if region.taps:
        raise frame.fault("E0114", "`tap` cannot stand in a scan", statement.span, hint="emit it, then tap it")
    return region, loop


def _complete(frame: Frame, statement: s.Scan, loop: Loop) -> None:
    """Every carry goes on, and something comes of it. Raises Fault."""
    if loop.broken:
        raise Fault
    for carry in statement.carries:
        if carry.name.text not in loop.nexts:
            hint = f"say what the next step reads: next {carry.name} = …"
            raise frame.fault("E0317", f"the carry `{carry.name}` never changes", carry.span, hint=hint)
    if not loop.emits:
        raise frame.fault("E0317", "this scan emits nothing", statement.span, hint="say what comes of it: emit y = …")


def _settle(frame: Frame, carry: _Carry, loop: Loop) -> None:
    """What comes next, in the carry's dtype and, where it can be, with its axes in order."""
    use, span = loop.nexts[carry.name]
    if use.dtype is not carry.mark.dtype:
        if use.dtype.is_float or not carry.mark.dtype.is_float:
            title = f"the carry `{carry.name}` begins as {carry.mark.dtype.value} and goes on as {use.dtype.value}"
            raise frame.fault("E0317", title, span)
        use = a.tensor(frame, use, carry.mark.dtype, span)
    if set(use.dims) <= set(carry.mark.dims):
        use = arranged(frame, use, carry.mark.dims, span)
    loop.nexts[carry.name] = (use, span)


def _grown(frame: Frame, carry: _Carry, loop: Loop, dim: Dim) -> _Carry:
    """The carry with the axes that its next value has beyond it."""
    use, span = loop.nexts[carry.name]
    more = tuple(axis for axis in use.dims if axis not in carry.mark.dims)
    if not more:
        return carry
    if dim in more:
        title = f"the carry `{carry.name}` would have the axis {dim}, along which it is carried"
        raise frame.fault("E0317", title, span, hint=f"read one step of what it is made of: x[{dim} = t]")
    return _marked(frame, carry.name, arranged(frame, carry.start, (*more, *carry.mark.dims), carry.span), carry.span)


# ---- cutting the body out


@dataclass
class _Cut:
    """Makes the body a graph of its own, and the scan's operands of what it reads from outside."""

    frame: Frame
    writer: Writer
    dim: Dim
    carries: list[_Carry]
    region: Region
    loop: Loop
    steps: list[Use] = field(default_factory=list[Use])
    outer: list[Use] = field(default_factory=list[Use])
    inputs: dict[object, str] = field(default_factory=dict[object, str])  # what is read -> the input that stands for it
    sliced: dict[str, str] = field(default_factory=dict[str, str])  # a node that is a slice -> its input
    nodes: list[Node] = field(default_factory=list[Node])
    leaves: dict[str, list[Node]] = field(default_factory=dict[str, list[Node]])

    def node(self, statement: s.Scan) -> tuple[Use, ...]:
        """Write the scan; the edges of what it emits."""
        self.own = {node.id for node in self.region.nodes}
        self.constants = {node.id: node for node in self.region.nodes if node.op == "constant"}
        self.leaves = {"carry": [], "step": [], "outer": []}
        self.writer.forget(self.region.nodes)
        self.taken = {*self.own}
        span = statement.span
        for carry in self.carries:
            self.inputs[carry.mark.node] = self._input("carry", carry.name, carry.mark.type)
        for node in self.region.nodes:
            self._visit(node, span)
        nexts = [self._moved(self.loop.nexts[carry.name][0], span) for carry in self.carries]
        emits = [self._moved(use, span) for use in self.loop.emits.values()]
        key = self._keep([*nexts, *emits])
        uses = (*(carry.start for carry in self.carries), *self.steps, *self.outer)
        present = {dim for use in uses for dim in use.dims}
        attrs: dict[str, Attr] = {
            "dim": self.dim, "reverse": False, "carries": len(self.carries), "steps": len(self.steps), "saves": True,
            "emits": emits_attr([use.type for use in emits]),
            "rows": tuple(dim for dim in dict.fromkeys(self.frame.carried) if dim in present and dim != self.dim),
        }  # fmt: skip
        results = self.frame.emit("scan", *uses, span=span, hint="scan", body=key, **attrs)
        return results[len(nexts) : len(nexts) + len(emits)]

    def _input(self, kind: str, wanted: str, type_: TensorType) -> str:
        name, number = wanted, 0
        while name in self.taken:
            number += 1
            name = f"{wanted}.{number}"
        self.taken.add(name)
        attrs: dict[str, Attr] = {"name": name, "below": None, "dims": type_.dims, "dtype": type_.dtype}
        self.leaves[kind].append(Node(name, "input", (), (type_,), attrs))
        return name

    def _visit(self, node: Node, span: Span) -> None:
        picks = node.op == "gather" and node.uses[1].node == self.loop.index and node.attrs["dim"] == self.dim
        if picks and self._is_outside(node.uses[0]):
            self.sliced[node.id] = self._step(node.uses[0], node.id)
            return
        if "key" in node.attrs:
            self.sliced[node.id] = self._drawn(node, span)
            return
        if self._stays_outside(node):
            self._put_outside(node)
            return
        self.nodes.append(replace(node, uses=tuple(self._moved(use, span) for use in node.uses), layer=None))

    def _stays_outside(self, node: Node) -> bool:
        """Whether every step would compute the same; numbers are made where they are read."""
        constants = [use.node in self.constants for use in node.uses]
        return not all(constants) and all(
            constant or self._is_outside(use) for constant, use in zip(constants, node.uses, strict=True)
        )

    def _put_outside(self, node: Node) -> None:
        """In front of the scan, with copies of the numbers that it reads."""
        for use in node.uses:
            if use.node in self.constants and self.writer.find(use.node) is None:
                self.writer.add(self.constants[use.node])
        self.own.discard(self.writer.add(node).id)

    def _is_outside(self, use: Use) -> bool:
        return use.node not in self.own and use.node not in self.inputs and use.node != self.loop.index

    def _step(self, use: Use, name: str) -> str:
        """A value of which every step reads its slice."""
        at = use.dims.index(self.dim)
        key = ("step", use.value, at)
        if key not in self.inputs:
            self.steps.append(use)
            rest = (*use.dims[:at], *use.dims[at + 1 :])
            self.inputs[key] = self._input("step", f"{name}.{self.dim}", TensorType(rest, use.dtype))
        return self.inputs[key]

    def _drawn(self, node: Node, span: Span) -> str:
        """Random numbers for all steps, drawn in front of the scan."""
        dims = (self.dim, *node.outs[0].dims)
        keys = (self.writer.key("seed"), self.writer.key("step"), *(self.writer.start(dim) for dim in dims))
        attrs: dict[str, Attr] = {"dims": dims, "dtype": node.outs[0].dtype, "key": ""}
        hint = node.id.rpartition(".")[2]
        return self._step(self.frame.emit1(node.op, *keys, span=span, hint=f"all.{hint}", **attrs), node.id)

    def _moved(self, use: Use, span: Span) -> Use:
        """An edge of the body."""
        if use.node in self.sliced:
            return Use(self.sliced[use.node], 0, use.dims, use.dtype)
        if use.node in self.own:
            return use
        if use.node == self.loop.index:
            counted = self.frame.emit1("index", self.writer.start(self.dim), span=span, dim=self.dim)
            self.inputs[use.node] = self._step(counted, "t")
        if use.node not in self.inputs and use.value not in self.inputs:
            self.outer.append(use)
            self.inputs[use.value] = self._input("outer", use.node.lstrip("\0"), use.type)
        name = self.inputs.get(use.node) or self.inputs[use.value]
        return Use(name, 0, use.dims, use.dtype)

    def _keep(self, outputs: list[Use]) -> str:
        """The body's graph, kept under a key of its own."""
        number, key = 0, "scan"
        while key in self.writer.bodies:
            number += 1
            key = f"scan.{number}"
        builder = GraphBuilder(key)
        for kind in ("carry", "step", "outer"):
            builder.extend(self.leaves[kind])
        builder.extend(self.nodes)
        for body in {node.body for node in self.nodes if node.body is not None}:
            builder.body(body, self.writer.bodies[body])
        for number, use in enumerate(outputs):
            builder.output(str(number), use)
        self.writer.body(key, _live(builder.finish()))
        return key


def _live(graph: Graph) -> Graph:
    """The body without what nothing reads; its inputs stay."""
    needed = {use.node for use in graph.outputs.values()}
    for node in reversed(list(graph)):
        if node.id in needed:
            needed |= {use.node for use in node.uses}
    builder = GraphBuilder(graph.name)
    builder.extend(node for node in graph if node.op == "input" or node.id in needed)
    return builder.finish(graph.outputs, graph.bodies)
