"""Memory by lifetime: what is alive when, over the order in which a step really runs.

In: a step's graph with sizes. Out: the peak in bytes, the node that runs there, and who owns what at that moment. The
order is the graph's: prepare, the microbatches' forward and backward, update. A value lives from the node that makes it
to its last reader; views share memory; a kernel that may overwrite an operand does so where nobody reads it again, and
so does an elementwise operator; an update writes over what it assigns to, what is only accumulated is made in its
accumulator, and a contraction that is only added to something adds into it. Parameters and optimizer state live
always, so do the data, accumulators from the first microbatch on.

This is what the graph alone tells, without torch. `lower/footprint.py` counts the lowered program itself, to the byte.

Sizes are rounded up as the allocator does: to 512 bytes by PyTorch's caching allocator on CUDA; on the CPU its events
count bytes as they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..ir.graph import Graph
from ..ir.levels import PHASE_ORDER
from ..ir.types import DType, Node, Phase, TensorType
from ..ops import attributes
from ..ops.attributes import dims as dims_of
from ..ops.collectives import COLLECTIVES
from ..ops.registry import REGISTRY
from ..ops.shapes import elements, without
from .flops import cost_of
from .packing import packed_bytes
from .roofline import VIEWS

CPU_ROUNDING_BYTES, CUDA_ROUNDING_BYTES = 1, 512
LITERALS = frozenset({"constant", "extent"})  # scalars that the program writes as numbers
STORED = frozenset({"parameter", "state"})
GIVEN = frozenset({"input", "step", "seed", "start"})
LASTING = STORED | GIVEN  # what a step never frees
MOVES = frozenset({"dot", "gather", "scatter_add", "sum", "max", "stack", "concat", "where", "cast"})  # new memory
Value = tuple[str, int]


class Owner(Enum):
    """Whose memory it is."""

    PARAMETER = "parameters"
    GRADIENT = "gradients"
    STATE = "optimizer state"
    ACTIVATION = "activations"
    WORKSPACE = "workspace"
    DATA = "data"

    __hash__ = object.__hash__  # of an Enum it is computed, and a walk asks for it at every step


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that one instance has alive at the peak, as one kind."""

    owner: Owner
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The peak of a step. `at` is the node that runs there; shares are sorted, the largest first."""

    peak_bytes: int
    at: str
    shares: tuple[Share, ...]

    def of(self, owner: Owner) -> int:
        """Bytes of one kind at the peak."""
        return sum(share.bytes for share in self.shares if share.owner is owner)


def step_memory(graph: Graph, rounding_bytes: int = CPU_ROUNDING_BYTES, threads: int = 1) -> Memory:
    """The peak of a step's graph, or of a model's alone. threads: of a CPU, each of which packs low products."""
    return _Walk(graph, rounding_bytes, threads).run()


def kept_for_backward(graph: Graph) -> dict[str, int]:
    """Activation bytes that outlive the forward, by the instance that made them, one microbatch."""
    walk = _Walk(graph, CPU_ROUNDING_BYTES)
    order = walk.order
    end = max((i for i, node in enumerate(order) if node.phase is Phase.FORWARD), default=-1)
    kept: Counter[str] = Counter()
    for root, birth in walk.birth.items():
        node = graph[root[0]]
        if node.phase is Phase.FORWARD and birth <= end < walk.death[root] and walk.owner(root) is Owner.ACTIVATION:
            kept[node.path] += walk.size(root)
    return dict(kept)


def alive_bytes(
    graph: Graph, rounding_bytes: int = CPU_ROUNDING_BYTES, order: Sequence[Node] | None = None
) -> dict[str, int]:
    """For each node the bytes that are alive while it runs, its workspace among them. order: of the nodes, where it is
    not the graph's own; each stands behind what it reads."""
    return _Walk(graph, rounding_bytes, wanted=order).course()


@dataclass
class _Walk:
    """One pass over the order: where each piece of memory is born and dies."""

    graph: Graph
    rounding_bytes: int
    threads: int = 1
    wanted: Sequence[Node] | None = None
    order: Sequence[Node] = field(init=False)
    root: dict[Value, Value] = field(init=False, default_factory=dict[Value, Value])
    birth: dict[Value, int] = field(init=False, default_factory=dict[Value, int])
    death: dict[Value, int] = field(init=False, default_factory=dict[Value, int])

    def __post_init__(self) -> None:
        given = self.graph if self.wanted is None else self.wanted
        self.order = sorted(given, key=lambda node: _stage(node.phase))
        self.gradients = {use.node for name, use in self.graph.outputs.items() if name.startswith("grad/")}
        self.gradients |= {use.node for node in self.graph.nodes("accumulate") for use in node.uses}
        self._last = _last_reads(self.order, self.graph)
        self._assigned = {str(node.attrs["target"]) for node in self.order if node.op == "assign"}
        self._into = accumulated(self.graph) if self.graph.microbatches > 1 else {}
        self._joins = _gathered(self.order, self.graph, self._into)
        for total in self._into.values():
            self.root[total], self.birth[total], self.death[total] = total, -1, self._last.get(total, len(self.order))
        for position, node in enumerate(self.order):
            self._place(position, node)

    def _place(self, position: int, node: Node) -> None:
        """Decides for each result whether it is new memory or that of an operand."""
        for index, out in enumerate(node.outs):
            value = (node.id, index)
            shared = self._reused(position, node, index, out)
            root = self.root[value] = shared or value
            if shared is None:
                self.birth[value] = position
            elif node.id in self.gradients:
                self.gradients.add(shared[0])  # what a sum of gradients begins with
            self.death[root] = max(self.death.get(root, position), self._last.get(value, position))

    def _reused(self, position: int, node: Node, index: int, out: TensorType) -> Value | None:
        if (node.id, index) in self._into:
            return self._into[node.id, index]
        if (node.id, index) in self._joins:
            return self.root[self._joins[node.id, index]]
        if node.op in VIEWS or node.op == "stop" or (node.op == "accumulate" and self.graph.microbatches == 1):
            return self.root[node.uses[0].value]
        for operand in _may_overwrite(node, index):
            use = node.uses[operand]
            root = self.root[use.value]
            same = self.bytes(use.type) == self.bytes(out)
            if same and self.death[root] <= position and self._free(root, node):
                return root
        return None

    def _free(self, root: Value, node: Node) -> bool:
        """Whether a node may write there at all: of what lives always, the update over what it assigns to."""
        if self.graph[root[0]].op in STORED:
            return node.phase is Phase.UPDATE and root[0] in self._assigned
        return self.graph[root[0]].op not in GIVEN

    def owner(self, root: Value) -> Owner:
        """Whose a piece of memory is."""
        node = self.graph[root[0]]
        if node.op in GIVEN:
            return Owner.DATA
        if node.op in STORED:
            return Owner.PARAMETER if node.op == "parameter" else Owner.STATE
        return Owner.GRADIENT if node.id in self.gradients or node.op == "accumulate" else Owner.ACTIVATION

    def bytes(self, out: TensorType) -> int:
        """A tensor's memory, rounded as the allocator rounds."""
        exact = elements(out.dims) * out.dtype.itemsize_bytes
        return -(-exact // self.rounding_bytes) * self.rounding_bytes

    def run(self) -> Memory:
        """The highest moment of the course, the first where there are several."""
        course = self.course()
        peak, at = sum(self._alive_at(-1).values()), -1
        for position, node in enumerate(self.order):
            if course[node.id] > peak:
                peak, at = course[node.id], position
        where = self.order[at].id if at >= 0 else ""
        workspace = self._workspace(self.order[at]) if at >= 0 else 0
        return Memory(peak, where, self._shares(self._alive_at(at), where, workspace))

    def course(self) -> dict[str, int]:
        """Follows the order: what is alive while each node runs, with its workspace."""
        alive = self._alive_at(-1)
        total = sum(alive.values())
        dying = _by_position(self.death)
        born = _by_position(self.birth)
        found: dict[str, int] = {}
        for position, node in enumerate(self.order):
            for value in born.get(position, ()):
                if value not in alive:
                    alive[value] = self.size(value)
                    total += alive[value]
            found[node.id] = total + self._workspace(node)
            for value in dying.get(position, ()):
                if self.graph[value[0]].op not in LASTING:
                    total -= alive.pop(value, 0)
        return found

    def _workspace(self, node: Node) -> int:
        """What its operator declares; what a collective stages; of a product of bfloat16 on a CPU what is packed, its
        left operand being the first and lying in the order of its dims."""
        if node.op in COLLECTIVES:
            return _staged_bytes(node, self.rounding_bytes == CPU_ROUNDING_BYTES)
        if node.op != "dot" or node.uses[0].dtype is not DType.BF16 or self.rounding_bytes != CPU_ROUNDING_BYTES:
            return cost_of(node).workspace_bytes
        left, over = node.uses[0].dims, dims_of(node.attrs, "over")
        rows, turned = elements(without(left, over)), bool(left) and left[-1] not in over
        columns = elements(node.outs[0].dims) // max(1, rows)
        return packed_bytes(rows, columns, elements(over), turned, self.threads)

    def _alive_at(self, position: int) -> dict[Value, int]:
        """What `run` holds while it computes the node at that position; before the first one at -1."""

        def lives(value: Value) -> bool:
            return self.graph[value[0]].op in LASTING or self.birth[value] <= position <= self.death[value]

        return {value: self.size(value) for value in self.birth if lives(value)}

    def size(self, value: Value) -> int:
        """What a value holds through a step: nothing where it is a literal of the program."""
        node = self.graph[value[0]]
        times = self.graph.microbatches if node.op == "input" else 1  # the caller holds the rows of all microbatches
        return 0 if node.op in LITERALS else times * self.bytes(node.outs[value[1]])

    def _shares(self, alive: dict[Value, int], at: str, workspace: int) -> tuple[Share, ...]:
        found: Counter[tuple[Owner, str]] = Counter()
        for value, size in alive.items():
            found[self.owner(value), self.graph[value[0]].path] += size
        if workspace:
            found[Owner.WORKSPACE, self.graph[at].path] += workspace
        shares = (Share(owner, path, size) for (owner, path), size in found.items() if size)
        return tuple(sorted(shares, key=lambda s: (-s.bytes, s.owner.value, s.path)))


def _staged_bytes(node: Node, gloo: bool) -> int:
    """What a message takes beside its operand and result: copies with the cut axis in front, and of what is summed the
    others' terms (as `lower/workspace.py` has it; gloo holds the terms of all)."""
    before, after = (elements(each.dims) * each.dtype.itemsize_bytes for each in (node.uses[0].type, node.outs[0]))
    if node.op == "all_reduce":
        return 0
    if node.op == "all_to_all":
        return before + after
    dims, own = node.uses[0].type.dims, attributes.dim(node.attrs, "dim")
    copied = own not in dims or elements(dims[: dims.index(own)]) > 1
    if node.op == "all_gather":
        return before + after if copied else 0
    return (before if copied else 0) + (max(0, before - after) if gloo else after if copied else 0)


def _stage(phase: Phase) -> int:
    """Forward and backward are one stretch: the graph's order stands."""
    return PHASE_ORDER[Phase.FORWARD if phase is Phase.BACKWARD else phase]


def accumulated(graph: Graph) -> dict[Value, Value]:
    """The accumulator of each value that is made in one: itself, and contractions and scatters that only it reads."""
    readers: Counter[Value] = Counter(use.value for node in graph for use in node.uses)
    found: dict[Value, Value] = {}

    def gather(value: Value, total: Value) -> None:
        node = graph[value[0]]
        if node.op in ("dot", "scatter_add", "add") and readers[value] == 1:
            found[value] = total
            if node.op == "add":
                for use in node.uses:
                    gather(use.value, total)

    for node in graph.nodes("accumulate"):
        found[node.id, 0] = (node.id, 0)
        gather(node.uses[0].value, (node.id, 0))
    return found


def _gathered(order: Sequence[Node], graph: Graph, into: Mapping[Value, Value]) -> dict[Value, Value]:
    """Contractions and scatters that add into an earlier value: only their sum reads them both."""
    readers: Counter[Value] = Counter(use.value for node in graph for use in node.uses)
    made = {node.id: position for position, node in enumerate(order)}
    found: dict[Value, Value] = {}
    for node in graph.nodes("add"):
        parts = sorted((use for use in node.uses if readers[use.value] == 1), key=lambda use: made[use.node])
        if (node.id, 0) in into or not parts or graph[parts[0].node].op in LASTING | LITERALS:
            continue
        first, *others = parts
        for use in others:
            if graph[use.node].op in ("dot", "scatter_add") and set(use.dims) == set(first.dims):
                found[use.value] = first.value
    return found


def _may_overwrite(node: Node, index: int) -> Iterable[int]:
    """Operands whose memory result `index` may take: what the operator declares; any where it is elementwise."""
    definition = REGISTRY[node.op]
    declared = sorted(definition.effects.overwrites)
    if declared:
        return declared if len(node.outs) == 1 else declared[index : index + 1]
    elementwise = definition.kernel is None and node.op not in MOVES and node.uses
    return range(len(node.uses)) if elementwise else ()


def _last_reads(order: Sequence[Node], graph: Graph) -> dict[Value, int]:
    """Each value's last reader by position; outputs live to the end, values of `prepare` through all microbatches."""
    last: dict[Value, int] = {}
    stretch = max((i for i, node in enumerate(order) if node.phase in (Phase.FORWARD, Phase.BACKWARD)), default=-1)
    for position, node in enumerate(order):
        for use in node.uses:
            again = graph.microbatches > 1 and graph[use.node].phase is Phase.PREPARE and position <= stretch
            last[use.value] = stretch if again else position
    for name, use in graph.outputs.items():
        if not name.startswith("grad/"):
            last[use.value] = len(order)
    return last


def _by_position(positions: dict[Value, int]) -> dict[int, list[Value]]:
    found: dict[int, list[Value]] = {}
    for value, position in positions.items():
        found.setdefault(position, []).append(value)
    return found
