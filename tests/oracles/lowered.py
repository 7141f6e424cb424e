"""Runs a graph as lowered: emitted, printed, imported and interpreted, in float64.

In: a graph and arrays for its leaves by id. Out: its outputs and, by name, what it left in parameters and states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Attr, DType, Node, TensorType, Use
from partita.compiler.lower.build import compile_graphs
from partita.runtime.execute import DTYPES
from partita.runtime.folder import executable

from .values import Array


def doubled(graph: Graph) -> Graph:
    """The graph with every float32 a float64, its inputs called by their ids."""
    builder = GraphBuilder(graph.name, graph.microbatches)
    builder.extend(_node(node) for node in graph)
    for name, use in graph.outputs.items():
        builder.output(name, _use(use))
    for key, body in graph.bodies.items():
        builder.body(key, doubled(body))
    return builder.finish()


def _wide(dtype: DType) -> DType:
    return DType.F64 if dtype is DType.F32 else dtype


def _use(use: Use) -> Use:
    return replace(use, dtype=_wide(use.dtype))


def _attr(value: Attr) -> Attr:
    if isinstance(value, tuple):
        return tuple(map(_attr, value))
    return _wide(value) if isinstance(value, DType) else value


def _node(node: Node) -> Node:
    outs = tuple(TensorType(t.dims, _wide(t.dtype)) for t in node.outs)
    attrs = MappingProxyType({key: _attr(value) for key, value in node.attrs.items()})
    return _called_by_id(replace(node, uses=tuple(_use(u) for u in node.uses), outs=outs, attrs=attrs))


def _called_by_id(node: Node) -> Node:
    if node.op != "input" or "." not in node.id:
        return node
    return replace(node, attrs=MappingProxyType({**node.attrs, "name": node.id}))


def called_by_ids(graph: Graph) -> Graph:
    """The graph, its inputs called by their ids: a random graph may have two of one name."""
    builder = GraphBuilder(graph.name, graph.microbatches)
    builder.extend(map(_called_by_id, graph))
    for name, use in graph.outputs.items():
        builder.output(name, use)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return builder.finish()


def run_lowered(
    graph: Graph, values: Mapping[str, Array], microbatches: Sequence[Mapping[str, Array]] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The outputs, and the store after the run."""
    build, sources = compile_graphs({"step": graph}, {}, {})
    runnable = executable(build, sources)
    program = build.programs["step"]
    kept = [*build.parameters, *build.states]
    store = {t.name: torch.tensor(values[t.name], dtype=DTYPES[t.dtype]) for t in kept}
    names = {str(node.attrs["name"]): node.id for node in graph.nodes("input")}
    parts = [values] * program.microbatches if microbatches is None else microbatches
    data = [
        {i.name: torch.tensor(part[names[i.name]], dtype=DTYPES[i.dtype]) for i in program.inputs if i.source == "data"}
        for part in parts
    ]
    outputs = runnable.run("step", store, data, int(values.get("step", 0)), int(values.get("seed", 0)))
    return {k: _array(v) for k, v in outputs.items()}, {k: _array(v) for k, v in store.items()}


def _array(value: torch.Tensor) -> Array:
    """numpy knows no bfloat16."""
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()
