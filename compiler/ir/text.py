"""A graph as text that people can read, and back: `parse_graph(print_graph(g)) == g`.

In: a graph. Out: its dims, a line a node, its outputs and the bodies of its kernel functions. Whatever a pass does can
so be looked at, compared line by line, cut down by hand and run again. Reading stands in `parse.py`.
An attribute `name`, `dims` or `dtype` without a value is what the line says already: the node's id, or the dims or the
dtype of its first result.

    graph tiny {
      dims batch = 4, D = 8, T = ?
      h = add(x[batch, T, D], attn.o[batch, T, D]) : f32[batch, T, D] @forward from tiny.partita:12
      output loss = loss.o[]
    }
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from .graph import Graph
from .layout import Layout
from .parse import parse_graph, said_already
from .types import Attr, Dim, Dims, DType, Node, Origin, TensorType, Use, dims_in

__all__ = ["parse_graph", "print_graph", "print_node"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_'.]*(?:/[A-Za-z0-9_'.]+)*", re.ASCII)
_RESERVED = frozenset({"graph", "microbatches", "dims", "output", "body", "true", "false", "none", "inf", "nan", "dim"})
_DTYPES = frozenset(dtype.value for dtype in DType)

_Table = Mapping[str, Dim]


def print_graph(graph: Graph) -> str:
    """The graph's text, with a line break at its end."""
    return "\n".join(_lines(graph, "")) + "\n"


def print_node(node: Node) -> str:
    """One node's line, sizes of dims beside their names."""
    return _node(node, {}, lambda _use: None)


def _lines(graph: Graph, margin: str) -> Iterator[str]:
    """The graph and, nested, its bodies."""
    table = _dims(graph)
    inner = margin + "  "
    yield f"graph {_name(graph.name)} {{"
    if graph.microbatches != 1:
        yield f"{inner}microbatches {graph.microbatches}"
    if table:
        yield f"{inner}dims {', '.join(map(_sized, table.values()))}"

    def dtype_of(use: Use) -> DType | None:
        outs = graph[use.node].outs if use.node in graph else ()
        return outs[use.output].dtype if use.output < len(outs) else None

    for node in graph:
        yield inner + _node(node, table, dtype_of)
    for name, use in graph.outputs.items():
        yield f"{inner}output {_name(name)} = {_use(use, table, dtype_of)}"
    for key, body in graph.bodies.items():
        first, *rest = _lines(body, inner)
        yield f"{inner}body {_name(key)} = {first}"
        yield from rest
    yield f"{margin}}}"


def _dims(graph: Graph) -> dict[str, Dim]:
    """Every dim by name: of operands and results, then those that stand in attributes and outputs alone."""
    found = dict(graph.dims())
    for node in graph:
        for value in node.attrs.values():
            for dim in dims_in(value):
                found.setdefault(dim.name, dim)
    for use in graph.outputs.values():
        for dim in use.dims:
            found.setdefault(dim.name, dim)
    return found


def _node(node: Node, table: _Table, dtype_of: Callable[[Use], DType | None]) -> str:
    uses = ", ".join(_use(use, table, dtype_of) for use in node.uses)
    outs = ", ".join(_type(out, table) for out in node.outs) or "()"
    parts = [f"{_name(node.id)} = {_name(node.op)}({uses}) : {outs}"]
    if node.attrs:
        said = said_already(node.id, node.outs)
        attrs = ", ".join(
            key if is_said(said, key, value) else f"{_key(key)} = {_attr(value, table)}"
            for key, value in node.attrs.items()
        )
        parts.append(f"{{{attrs}}}")
    if node.body is not None:
        parts.append(f"body({_name(node.body)})")
    parts.append(f"@{node.phase.value}")
    if node.layer is not None:
        parts.append(f"layer({_name(node.layer.chain)}, {node.layer.index})")
    if node.path:
        parts.append(f"path({_name(node.path)})")
    if node.host:
        parts.append("host")
    if node.layouts:
        pairs = zip(node.layouts, node.outs, strict=True)
        parts.append(f"layout({', '.join(_layout(layout, out.dims) for layout, out in pairs)})")
    if node.origin:
        parts.append(f"from {_origin(node.origin)}")
    return " ".join(parts)


def _layout(layout: Layout, dims: Dims) -> str:
    """`[batch: data, V: data tensor] sum context`: the dims that are cut, by which axes; what is owed over which."""
    pairs = zip(dims, layout.shards, strict=True)
    cut = (f"{_name(d.name)}: {' '.join(map(_name, axes))}" for d, axes in pairs if axes)
    return " ".join([f"[{', '.join(cut)}]", *(f"{how.value} {_name(axis)}" for axis, how in layout.partial)])


def is_said(said: Mapping[str, Attr], key: str, value: Attr) -> bool:
    """Whether a bare key says the value; True and 1 are two values."""
    return key in said and type(said[key]) is type(value) and said[key] == value


def _origin(origin: Iterable[Origin]) -> str:
    return ", ".join(f"{_name(place.file)}:{place.line}" for place in origin)


def _use(use: Use, table: _Table, dtype_of: Callable[[Use], DType | None]) -> str:
    output = f":{use.output}" if use.output else ""
    dtype = "" if dtype_of(use) is use.dtype else f" as {use.dtype.value}"
    return f"{_name(use.node)}{output}[{_dim_list(use.dims, table)}]{dtype}"


def _type(type_: TensorType, table: _Table) -> str:
    return f"{type_.dtype.value}[{_dim_list(type_.dims, table)}]"


def _dim_list(dims: Dims, table: _Table) -> str:
    return ", ".join(_dim(dim, table) for dim in dims)


def _dim(dim: Dim, table: _Table) -> str:
    """Its name; beside it the size, where that is not the one that the graph's table gives."""
    return _name(dim.name) if table.get(dim.name) == dim else _sized(dim)


def _sized(dim: Dim) -> str:
    """`T = 4`; what is sorted with what it is sorted by, `rows = 8 runs(E = 4, 2, batch)`."""
    runs = ""
    if dim.runs is not None:
        lists = "".join(f", {_name(name)}" for name in dim.runs.lists)
        word = "part" if dim.runs.part else "runs"
        runs = f" {word}({_sized(dim.runs.by)}, {dim.runs.each}{lists})"
    return f"{_name(dim.name)} = {'?' if dim.size is None else dim.size}{runs}"


def _name(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text not in _RESERVED else json.dumps(text)


def _key(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _attr(value: Attr, table: _Table) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value)
        case DType():
            return value.value
        case Dim():
            plain = _dim(value, table)
            return f"dim({plain})" if plain in _DTYPES or not _PLAIN.fullmatch(plain) else plain
        case tuple():
            items = [_attr(item, table) for item in value]
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
