"""How far rounding may move a graph's outputs: a bound from the graph's own types, to first order.

In: a graph with types and exact (float64) leaves. Every value y that an operator rounds is y (1 + ε) with |ε| ≤ r u: u
the unit roundoff of its type, r the roundings on the way to one element; sums of a wide accumulator count through
γ_n = n u / (1 - n u) (Higham 2002, section 3.1). The ε are drawn at the ends of their range, ±r u, and the reference
interpreter propagates them: no operator is told anything about errors. The bound is SAFETY times the largest of some
draws in norm, and a float32's roundoff of 1 an element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Node, TensorType, Use
from partita.compiler.ops.definition import Precision
from partita.compiler.ops.registry import REGISTRY

from .values import Array, run

# True roundings are neither independent of each other nor at the ends of their range, as those drawn are.
SAFETY, DRAWS = 4.0, 3

UNIT: Mapping[DType, float] = {DType.BF16: 2.0**-8, DType.F16: 2.0**-11, DType.F32: 2.0**-24, DType.F64: 2.0**-53}
_COPIES = frozenset(
    {
        "split_dim", "merge_dims", "expand", "transpose", "stack", "unstack", "concat", "split", "gather", "neg", "abs",
        "maximum", "minimum", "max", "where", "stop", "accumulate", "window", "floor",
    }
)  # fmt: skip
_LEAVES = frozenset({"parameter", "state", "input", "random", "gaussian"})


def _roundings(node: Node, output: TensorType) -> float:
    """r u of one result: its own rounding, what a fused kernel rounds inside, and γ_n of its wide sums."""
    own = UNIT[output.dtype]
    kept = set[Dim].intersection(*(set(out.dims) for out in node.outs))
    summed = math.prod(dim.size or 1 for dim in {dim for use in node.uses for dim in use.dims} - kept)
    wide = min(own, UNIT[DType.F32])
    gamma = summed * wide / (1 - summed * wide)
    if REGISTRY[node.op].precision in (Precision.CONTRACTION, Precision.INSIDE, Precision.HIGH):
        low = max((UNIT[use.dtype] for use in node.uses if use.dtype in UNIT), default=own)
        kernels = low if node.op.startswith("attention") else 0.0  # weights are rounded before they meet the values
        return own + gamma + kernels
    steps = len(node.uses) - 1 if node.op == "add" else 1  # an n-ary sum rounds n - 1 times
    return max(1, steps) * own


def perturbed(graph: Graph) -> tuple[Graph, dict[str, tuple[tuple[int, ...], float]]]:
    """The graph with a factor behind every rounded value, and of each factor its input's id, shape and range."""
    builder = GraphBuilder(graph.name, graph.microbatches)
    moved: dict[tuple[str, int], str] = {}
    factors: dict[str, tuple[tuple[int, ...], float]] = {}

    def now(use: Use) -> Use:
        name = moved.get(use.value)
        return use if name is None else Use(name, 0, use.dims, use.dtype)

    for node in graph:
        builder.add(replace(node, uses=tuple(map(now, node.uses))))
        if node.op in _COPIES | _LEAVES:
            continue
        for index, out in enumerate(node.outs):
            if not out.dtype.is_float:
                continue
            name = f"round/{node.id}:{index}"
            attrs = {"name": name, "below": None, "dims": out.dims, "dtype": out.dtype}
            factor = builder.add(Node(name, "input", (), (out,), attrs, node.phase))
            factors[name] = (tuple(dim.size or 1 for dim in out.dims), _roundings(node, out))
            made = Node(f"{name}.value", "mul", (node.out(index), factor.out()), (out,), {}, node.phase)
            moved[node.id, index] = builder.add(made).id
    for name, use in graph.outputs.items():
        builder.output(name, now(use))
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return builder.finish(), factors


def rounding_bounds(graph: Graph, values: Mapping[str, Array]) -> dict[str, float]:
    """For each output the largest norm of its error that rounding explains."""
    exact = run(graph, values)
    moving, factors = perturbed(graph)
    rng = np.random.default_rng(5)
    found = dict.fromkeys(exact, 0.0)
    for _ in range(DRAWS):
        drawn = {name: 1 + size * rng.choice([-1.0, 1.0], shape) for name, (shape, size) in factors.items()}
        for name, value in run(moving, {**values, **drawn}).items():
            found[name] = max(found[name], float(np.linalg.norm(np.subtract(value, exact[name]))))
    return {name: SAFETY * size + 2.0**-24 * np.sqrt(np.size(exact[name])) for name, size in found.items()}
