"""Says what is wrong with a graph: run between passes, so that a fault shows at the pass that made it.

In: a graph, the level that it claims, and a check of one node by its operator's rules (those stand above this folder,
in `ops/check.py`). Out: problems in words, none for a sound graph. A problem is the compiler's fault, not the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .graph import Graph
from .levels import MODEL, MOVES, PHASE_ORDER, Level
from .types import Dim, Dims, Node, Phase, Use, dims_in

NodeCheck = Callable[[Node], Iterable[str]]

_PER_MICROBATCH = frozenset({Phase.FORWARD, Phase.BACKWARD})
_TARGETS = frozenset({"parameter", "state"})
_NUMBERS = frozenset({"constant", "extent"})  # written into whatever reads them


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which node (or output, or the graph as a whole)."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def verify(
    graph: Graph, level: Level, check_node: NodeCheck | None = None, sound: Graph | None = None
) -> list[Problem]:  # fmt: skip
    """Everything that is wrong with the graph at this level; bodies are verified as models.

    sound: a graph without problems, which this one was made from. What an operator's rules see of a node is not shown
    to them again where it is the same there, nor is a body: a step's other passes leave most nodes as they are.
    """
    found = [
        *_structure(graph),
        *_legal(graph, level),
        *_phases(graph),
        *_targets(graph),
        *_sizes(graph),
        *_outputs(graph, level),
        *_layouts(graph, level),
        *_spaces(graph),
    ]
    if check_node is not None:
        new = graph if sound is None else [n for n in graph if n.id not in sound or not _same(n, sound[n.id])]
        found += [Problem(node.id, message) for node in new for message in check_node(node)]
    for key, body in graph.bodies.items():
        if sound is None or sound.bodies.get(key) is not body:
            inside = verify(body, MODEL, check_node)
            found += [Problem(f"body {key} / {problem.where}", problem.message) for problem in inside]
    return found


def _same(node: Node, other: Node) -> bool:
    """Whether two nodes have one operator with the same attributes and types."""
    if node is other:
        return True
    same = node.op == other.op and node.attrs is other.attrs and node.outs is other.outs
    reads, others = [(use.dims, use.dtype) for use in node.uses], [(use.dims, use.dtype) for use in other.uses]
    return same and reads == others


def _structure(graph: Graph) -> Iterator[Problem]:
    """Operands exist, stand before their reader, and agree with their producer in number, size and dtype."""
    seen: set[str] = set()
    agreed: set[tuple[Dims, Dims]] = set()  # what is read as what: few are told apart
    in_order = True  # and then without a cycle: nobody need look for one
    for node in graph:
        for place, use in enumerate(node.uses):
            if use.node not in seen:
                in_order = False
                yield Problem(node.id, f"operand {place} is {use.node}, which does not stand before it")
                continue
            outs = graph[use.node].outs
            made = outs[use.output] if 0 <= use.output < len(outs) else None
            if made is None or use.dtype is not made.dtype or (use.dims, made.dims) not in agreed:
                said = list(_edge(graph[use.node], use))
                yield from (Problem(node.id, f"operand {place} {words}") for words in said)
                if made is not None and not said:
                    agreed.add((use.dims, made.dims))
        if node.body is not None and node.body not in graph.bodies:
            yield Problem(node.id, f"its body {node.body!r} is not among the graph's bodies")
        for out in node.outs:
            if len(set(out.dims)) != len(out.dims):
                yield Problem(node.id, f"a result has one dim twice: {', '.join(map(str, out.dims))}")
        seen.add(node.id)
    if not in_order and not graph.is_acyclic():
        yield Problem(graph.name, "has a cycle")


def _edge(producer: Node, use: Use) -> Iterator[str]:
    """What an edge and the result that it reads disagree in."""
    if not 0 <= use.output < len(producer.outs):
        yield f"is result {use.output} of {producer.id}, which has {len(producer.outs)}"
        return
    out = producer.outs[use.output]
    if use.dtype is not out.dtype:
        yield f"reads {use.dtype.value} of {producer.id}, which is {out.dtype.value}"
    if [dim.size for dim in use.dims] != [dim.size for dim in out.dims]:
        read, made = _shape(use.dims), _shape(out.dims)
        yield f"reads [{read}] of {producer.id}, which is [{made}]"
    if len(set(use.dims)) != len(use.dims):
        yield f"labels two axes alike: [{_shape(use.dims)}]"


def _shape(dims: Iterable[Dim]) -> str:
    return ", ".join(f"{dim.name} = {'?' if dim.size is None else dim.size}" for dim in dims)


def _legal(graph: Graph, level: Level) -> Iterator[Problem]:
    for node in graph:
        if node.phase not in level.phases:
            yield Problem(node.id, f"phase {node.phase.value} has no place at level {level.name}")
        if node.op in level.barred:
            yield Problem(node.id, f"operator {node.op} has no place at level {level.name}")


def _phases(graph: Graph) -> Iterator[Problem]:
    """Phases never go backwards, and what runs once a step reads microbatches' values through accumulate only."""
    for node in graph:
        if node.op == "accumulate" and node.phase not in _PER_MICROBATCH:
            yield Problem(node.id, f"accumulates in phase {node.phase.value}, which runs once")
        for use in node.uses:
            if use.node not in graph:
                continue
            source = graph[use.node]
            if PHASE_ORDER[source.phase] > PHASE_ORDER[node.phase]:
                yield Problem(node.id, f"runs in {node.phase.value} but reads {source.id} of {source.phase.value}")
            once = node.phase is Phase.UPDATE
            if once and source.phase in _PER_MICROBATCH and source.op != "accumulate":
                yield Problem(node.id, f"reads {source.id} of every microbatch; only accumulate may stand between")
            if not once and source.op == "accumulate":
                yield Problem(node.id, f"reads the sum {source.id} before all microbatches have run")


def _targets(graph: Graph) -> Iterator[Problem]:
    """What is written exists and can be written: a parameter or a state, of the value's dims and dtype."""
    for node in graph.nodes("assign"):
        target = node.attrs.get("target")
        if not isinstance(target, str) or target not in graph or graph[target].op not in _TARGETS:
            yield Problem(node.id, f"writes {target!r}, which is no parameter or state here")
        elif node.uses and node.uses[0].type != graph[target].outs[0]:
            yield Problem(node.id, f"writes a value of another type than {target}'s")
    for node in graph.nodes("state"):
        owner = node.attrs.get("of")
        if owner is not None and owner not in graph:
            yield Problem(node.id, f"is a state of {owner!r}, which is not here")


def _sizes(graph: Graph) -> Iterator[Problem]:
    """A dim's name has one size in the whole graph."""
    sizes: dict[str, int | None] = {}
    asked: set[Dims] = set()  # few are told apart
    for node in graph:
        attrs = [tuple(dims_in(value)) for value in node.attrs.values() if isinstance(value, Dim | tuple)]
        for dims in (*attrs, *[use.dims for use in node.uses], *[out.dims for out in node.outs]):
            if dims not in asked:
                asked.add(dims)
                for dim in dims:
                    if sizes.setdefault(dim.name, dim.size) != dim.size:
                        yield Problem(node.id, f"dim {dim.name} is {dim.size} here and {sizes[dim.name]} before")


def _layouts(graph: Graph, level: Level) -> Iterator[Problem]:
    """Every result of a partitioned graph has a layout that fits it; a graph of another level has none."""
    for node in graph:
        if len(node.layouts) != (len(node.outs) if level.laid else 0):
            yield Problem(node.id, f"{len(node.layouts)} layouts for {len(node.outs)} results at level {level.name}")
            continue
        for out, layout in zip(node.outs, node.layouts, strict=False):
            axes = [a for cut in layout.shards for a in cut] + [a for a, _ in layout.partial]
            if len(layout.shards) != len(out.dims) or len(set(axes)) != len(axes):
                yield Problem(node.id, f"the layout {layout} does not fit [{_shape(out.dims)}]")
    for node in graph.nodes("assign") if level.laid else ():
        use, target = node.uses[0], graph[str(node.attrs["target"])]
        if graph[use.node].layouts[use.output : use.output + 1] != target.layouts:
            yield Problem(node.id, f"writes a value that lies otherwise than {target.id}")


def _spaces(graph: Graph) -> Iterator[Problem]:
    """What lies on the host is read there, and nothing else, but for what moves it."""
    for node in graph:
        for use in node.uses if node.op not in MOVES else ():
            if use.node not in graph:
                continue
            source = graph[use.node]
            if source.host is not node.host and source.op not in _NUMBERS:
                there = ("the device", "the host")
                yield Problem(node.id, f"runs on {there[node.host]} but reads {source.id}, on {there[source.host]}")
        if node.op in MOVES and node.host is not (node.op == "offload"):
            yield Problem(node.id, f"{node.op} gives a value on the other side")
    for node in graph.nodes("assign"):
        target = str(node.attrs.get("target"))
        if target in graph and graph[target].host is not node.host:
            yield Problem(node.id, f"writes {target}, which lies on the other side")


def _outputs(graph: Graph, level: Level) -> Iterator[Problem]:
    for name, use in graph.outputs.items():
        if use.node not in graph:
            yield Problem(f"output {name}", f"is {use.node}, which is not here")
        else:
            yield from (Problem(f"output {name}", said) for said in _edge(graph[use.node], use))
    for wanted in level.outputs:
        if not any(name == wanted or (wanted.endswith("/") and name.startswith(wanted)) for name in graph.outputs):
            yield Problem(graph.name, f"level {level.name} wants an output {wanted}")
    loss = graph.outputs.get("loss") if "loss" in level.outputs else None
    if loss is not None and loss.dims:
        yield Problem("output loss", f"is not a scalar: [{_shape(loss.dims)}]")
