"""Runs a graph on numpy arrays and compares what comes out, with the tolerance that summation order deserves.

`leaf_values` gives every leaf an array, from a seed. `run` asks the reference interpreter, microbatch by microbatch.
`assert_same_values` is what every pass is held to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import Dim, Node

Array = Any
LEAVES = frozenset({"parameter", "state", "input", "start", "step", "seed"})


def leaf_values(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Arrays for all leaves: normal numbers, ids below their dim, starts of 0."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {"step": np.asarray(3), "seed": np.asarray(11)}
    for node in graph:
        if node.op in {"parameter", "state", "input"}:
            shape = [dim.size or 0 for dim in node.outs[0].dims]
            below = node.attrs.get("below")
            if isinstance(below, Dim):
                found[node.id] = rng.integers(0, below.size or 1, shape)
            else:
                found[node.id] = rng.normal(0.0, 0.7, shape)
        elif node.op in LEAVES:
            found[node.id] = found.get(node.op, np.asarray(0))
    return found


def run(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name and what is assigned, by target. Inputs larger than a microbatch are cut into its parts.

    An output that keeps the batch's dim is the last microbatch's.
    """
    if graph.microbatches == 1:
        return interpret(graph, values)
    return interpret(graph, values, microbatches=microbatches_of(graph, values))


def microbatches_of(graph: Graph, values: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The inputs of each microbatch."""
    inputs = graph.nodes("input")
    return [{node.id: _part(node, values[node.id], at) for node in inputs} for at in range(graph.microbatches)]


def _part(node: Node, value: Array, number: int) -> Array:
    """The rows of an input that microbatch `number` sees."""
    for axis, dim in enumerate(node.outs[0].dims):
        if dim.size is not None and dim.size != value.shape[axis]:
            value = np.take(value, range(number * dim.size, (number + 1) * dim.size), axis)
    return value


def _last_part(wanted: Array, found: Array) -> Array:
    """Of a whole batch's value, the rows that the last microbatch has."""
    for axis, size in enumerate(np.shape(found)):
        wanted = np.take(wanted, range(wanted.shape[axis] - size, wanted.shape[axis]), axis)
    return wanted


# ---- comparing


def error(found: Array, wanted: Array) -> float:
    """‖found − wanted‖ / max(‖wanted‖, 1)."""
    assert np.shape(found) == np.shape(wanted), f"shapes {np.shape(found)} and {np.shape(wanted)}"
    return float(np.linalg.norm(np.subtract(found, wanted)) / max(float(np.linalg.norm(wanted)), 1.0))


def spread(graph: Graph, values: Mapping[str, Array]) -> dict[str, float]:
    """How far last-bit noise on the leaves moves each output: what another order of summation may do."""
    wanted = run(graph, values)
    found = dict.fromkeys(wanted, 0.0)
    rng = np.random.default_rng(1)
    for _ in range(3):
        noisy = {
            name: value * (1 + rng.uniform(-2e-16, 2e-16, np.shape(value))) if value.dtype.kind == "f" else value
            for name, value in values.items()
        }
        for name, value in run(graph, noisy).items():
            found[name] = max(found[name], error(value, wanted[name]))
    return found


def assert_same_values(before: Graph, after: Graph, values: Mapping[str, Array]) -> None:
    """Every output and write of `before` is one of `after`, the same up to summation order (1e-10, or 100 × spread)."""
    wanted, found = run(before, values), run(after, values)
    missing = wanted.keys() - found.keys()
    assert not missing, f"outputs lost: {sorted(missing)}"
    if after.microbatches > 1:
        wanted = {name: _last_part(value, found[name]) for name, value in wanted.items()}
    errors = {name: error(found[name], value) for name, value in wanted.items()}
    far = {name: size for name, size in errors.items() if not size <= 1e-10}
    if far:
        allowed = spread(before, values)
        far = {name: size for name, size in far.items() if not size <= 100 * allowed[name]}
    assert not far, f"values changed: {far}"


def assert_close(found: Mapping[str, Array], wanted: Mapping[str, Array], most: float) -> None:
    """Each wanted value is found, within a relative error."""
    errors = {name: error(found[name], value) for name, value in wanted.items()}
    far = {name: size for name, size in errors.items() if not size <= most}
    assert not far, f"too far apart: {far}"
