"""A graph as a person reads it: one aligned line a node, phase by phase; for the exact form see compiler/ir/text.py.

In: a graph. Out: `id  type  op[dims](operands, options)`. Left out is what the type says already, where a node comes
from, the bodies of kernel functions; a type without a dtype is f32, and `x[T -> S]` reads x with T called S.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..compiler.ir.graph import Graph
from ..compiler.ir.levels import PHASE_ORDER
from ..compiler.ir.types import Attr, Dims, DType, Node, TensorType, Use, dims_in
from .describe import dims_text, number_text

WIDEST_ID, WIDEST_TYPE = 36, 30  # longer ones push the rest of their line to the right
IN_THE_TYPE = frozenset({"dims", "dtype", "to", "name", "trained", "role"})


def brief(graph: Graph) -> str:
    """The text, with a line break at its end."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    sizes = ", ".join(f"{name} = {dim.size or '?'}" for name, dim in graph.dims().items())
    yield f"{graph.name}: {sizes}"
    if graph.microbatches > 1:
        yield f"forward and backward run {graph.microbatches} times"
    rows = [(node, node.id, ", ".join(map(_type, node.outs)), _call(graph, node)) for node in graph]
    wide = min(max((len(name) for _, name, _, _ in rows), default=0), WIDEST_ID)
    broad = min(max((len(kind) for _, _, kind, _ in rows), default=0), WIDEST_TYPE)
    for phase in PHASE_ORDER:
        found = [row for row in rows if row[0].phase is phase]
        yield from [phase.value] if found else []
        yield from (f"  {name:<{wide}}  {kind:<{broad}}  {call}" for _, name, kind, call in found)
    if graph.outputs:
        yield "outputs"
        wide = min(max(map(len, graph.outputs)), WIDEST_ID)
        yield from (f"  {name:<{wide}}  {_use(graph, use)}" for name, use in graph.outputs.items())


def _type(kind: TensorType) -> str:
    dtype = "" if kind.dtype is DType.F32 else kind.dtype.value
    return f"{dtype}{dims_text(kind.dims)}" or "[]"


def _use(graph: Graph, use: Use) -> str:
    """The operand's name, which of several results it is, and the axes that are called otherwise here."""
    number = f":{use.output}" if use.output else ""
    pairs = zip(graph[use.node].outs[use.output].dims, use.dims, strict=True)
    renamed = ", ".join(f"{theirs.name} -> {ours.name}" for theirs, ours in pairs if theirs != ours)
    return f"{use.node}{number}" + (f"[{renamed}]" if renamed else "")


def _call(graph: Graph, node: Node) -> str:
    attrs = {key: value for key, value in node.attrs.items() if key not in IN_THE_TYPE}
    match node.op:
        case "parameter" | "state":
            init = attrs.get("init")
            frozen = "" if node.attrs.get("trained", True) else ", not trained"
            return f"{node.op} ~ {_initial(init) if isinstance(init, tuple) else init}{frozen}"
        case "input":
            return f"input, ids in {attrs['below']}" if attrs.get("below") else "input"
        case "constant":
            return number_text(attrs.get("value"))
        case _:
            return _applied(graph, node, attrs)


def _initial(init: tuple[Attr, ...]) -> str:
    arguments = ", ".join(map(number_text, init[1:]))
    return f"{init[0]}({arguments})" if arguments else str(init[0])


def _applied(graph: Graph, node: Node, attrs: dict[str, Attr]) -> str:
    over: Dims = tuple(dict.fromkeys(dim for value in attrs.values() for dim in dims_in(value)))
    options = [
        f"{key} = {number_text(value)}"
        for key, value in attrs.items()
        if value is not None and not isinstance(value, tuple) and not any(dims_in(value))
    ]
    brackets = f"[{' '.join(dim.name for dim in over)}]" if over else ""
    return f"{node.op}{brackets}({', '.join([*(_use(graph, use) for use in node.uses), *options])})"
