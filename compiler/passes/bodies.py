"""Bodies of operators that are told of documents: attention's scores masked by number, a recurrence begun anew.

In: a body and what its node reads. Out: the same body with more inputs, in the order of the node's new operands.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Dim, DType, Node, Use
from ..ops.build import Builder
from ..ops.shapes import without


def with_documents(body: Graph, node: Node, row: Dim, at: int) -> Graph:
    """Attention's meaning with the numbers of the queries' and the keys' documents as operands `at` and `at` + 1."""
    inputs = body.nodes("input")

    def inside(place: int, dim: Dim) -> Dim:
        return inputs[place].outs[0].dims[node.uses[place].dims.index(dim)]

    (queries,), (keys,) = (_formal(node, name) for name in "TS")
    axes = inside(0, queries), inside(1, keys)
    build = Builder(GraphBuilder(body.name))
    for inner in inputs[:at]:
        build.graph.add(inner)
    numbers = [build.input(f"document.{dim}", (inside(0, row), dim), DType.I64) for dim in axes]
    masked = [inner for inner in body.nodes("softmax") if set(axes) <= set(inner.uses[0].dims)]
    for inner in body:
        if inner in masked:
            scores = inner.uses[0]
            same = build.one("eq", *numbers, hint="rows/same")
            empty = build.constant(-math.inf, scores.dtype, hint="rows/empty")
            kept = _ordered(build, build.one("where", same, scores, empty, hint="rows/kept"), scores)
            build.graph.add(replace(inner, uses=(kept,)))
        elif inner.id not in build.graph:
            build.graph.add(inner)
    assert len(masked) == 1, "attention has one softmax over the keys"
    return _finished(build, body)


def with_restarts(body: Graph, node: Node, row: Dim, carries: int, first: int) -> Graph:
    """A step that takes the first carries (its last operands) where the token's place (operand `first`) is 0."""
    inputs = body.nodes("input")
    row = inputs[0].outs[0].dims[node.uses[0].dims.index(row)]
    build = Builder(GraphBuilder(body.name))
    for inner in inputs[:first]:
        build.graph.add(inner)
    place = build.input("rows.position", (row,), DType.I64)
    for inner in inputs[first:]:
        build.graph.add(inner)
    begins = [build.input(f"begin.{i}", one.outs[0].dims, one.outs[0].dtype) for i, one in enumerate(inputs[:carries])]
    starts = build.one("eq", place, build.constant(0, DType.I64, hint="rows/zero"), hint="rows/begins")
    now: dict[str, Use] = {}
    for inner, begin in zip(inputs[:carries], begins, strict=True):
        now[inner.id] = _ordered(build, build.one("where", starts, begin, inner.out(), hint="rows/carry"), inner.out())
    for inner in body:
        if inner.id not in build.graph:
            build.graph.add(replace(inner, uses=tuple(_through(use, now) for use in inner.uses)))
    return _finished(build, body, now)


def _formal(node: Node, name: str) -> tuple[Dim, ...]:
    value = node.attrs[name]
    assert isinstance(value, tuple), f"{name} is dims"
    return tuple(d for d in value if isinstance(d, Dim))


def _through(use: Use, now: dict[str, Use]) -> Use:
    found = now.get(use.node)
    return use if found is None else Use(found.node, found.output, use.dims, use.dtype)


def _ordered(build: Builder, use: Use, like: Use) -> Use:
    assert not without(use.dims, like.dims), "a carry and scores have the batch's axis"
    return use if use.dims == like.dims else build.one("transpose", use, dims=like.dims, hint="rows/order")


def _finished(build: Builder, body: Graph, now: dict[str, Use] | None = None) -> Graph:
    for name, use in body.outputs.items():
        build.output(name, _through(use, now or {}))
    for key, inner in body.bodies.items():
        build.graph.body(key, inner)
    return build.finish()
