"""What a step is run on, and how far apart two arrays are.

In: the graphs of a step. Out: an array for each leaf, from a seed: weights near their initial values, but none of them
zero, so that nothing is hidden by a factor of nothing; ids below their dim; rows with two documents where rows have
documents. Distances are norms: ‖found − wanted‖ / ‖wanted‖, bit for bit where the values are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...compiler.interpret import initial_value
from ...compiler.ir.graph import Graph
from ...compiler.ir.types import Dim, Node
from ...compiler.ops.definition import Array
from ...compiler.passes.documents import POSITION, SEGMENT, WEIGHT

Value = tuple[str, int]
Leaves = Mapping[str, Array]

STEP = 3  # of the training: counts and rates are neither the first nor nothing
ALLOWED = 1e-10  # of a norm; a hundred times what noise in the last bit does, where that is more
LEAST = 1e-6  # norms below count as this
_NOISE = 0.1
_DRAWN = frozenset({"random", "gaussian"})


@dataclass(frozen=True, slots=True)
class Gap:
    """One value as a form of the step has it (`found`) and as the form before has it (`wanted`). `where`: a device or
    a microbatch, if the form has several."""

    value: Value
    error: float
    wanted: Array
    found: Array
    where: str = ""


def distance(found: Array, wanted: Array) -> float:
    """‖found − wanted‖ / max(‖wanted‖, 1e-6). Equal infinities and NaN are no distance, others an infinite one."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return float("inf")
    if found.dtype.kind == "f" or wanted.dtype.kind == "f":
        same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.subtract(found, wanted, dtype=np.float64))
        size = float(np.linalg.norm(np.where(np.isfinite(wanted), wanted, 0.0)))
        error = float(np.linalg.norm(apart)) / max(size, LEAST)
        return float("inf") if np.isnan(error) else error
    return 0.0 if np.array_equal(found, wanted) else float("inf")


def is_drawn(node: Node) -> bool:
    """Whether its values are random numbers, which every form must draw bit for bit alike."""
    return node.op in _DRAWN


# ---- leaves


def leaf_values(graphs: Iterable[Graph], seed: int, step: int = STEP) -> dict[str, Array]:
    """An array for each parameter, state and input, as large as where it first appears (so with the whole batch)."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {"step": np.asarray(step), "seed": np.asarray(seed)}
    for graph in graphs:
        for node in graph:
            if node.id not in found and node.op in ("parameter", "state", "input"):
                found[node.id] = _input(node, rng) if node.op == "input" else _kept(node, seed, rng)
    return found


def _kept(node: Node, seed: int, rng: np.random.Generator) -> Array:
    """A parameter near its start; a state that is a tensor too, above it, for it may be a sum of squares."""
    start = initial_value(node, seed)
    if not node.outs[0].dtype.is_float or not node.outs[0].dims:
        return start
    noise = _NOISE * rng.normal(size=start.shape)
    return start + (np.abs(noise) if node.op == "state" else noise)


def _input(node: Node, rng: np.random.Generator) -> Array:
    shape, dtype = [dim.size or 1 for dim in node.outs[0].dims], node.outs[0].dtype
    if node.id in (SEGMENT, POSITION, WEIGHT):
        return _documents(node.id, shape)
    if dtype.is_float:
        return rng.normal(size=shape)
    below = node.attrs.get("below")
    values = rng.integers(0, (below.size or 1) if isinstance(below, Dim) else 2, shape)
    return values.astype(bool) if dtype.value == "bool" else values


def _documents(name: str, shape: Sequence[int]) -> Array:
    """Rows [batch, T] of two documents each, of which the last token of each counts for nothing."""
    rows, length = shape
    cut = np.asarray([1 + (length // 2 + row) % max(1, length - 1) for row in range(rows)])[:, None]
    place = np.arange(length)[None, :]
    if name == SEGMENT:
        return (place >= cut).astype(np.int64)
    if name == POSITION:
        return np.where(place >= cut, place - cut, place)
    counts = (place != cut - 1) & (place != length - 1)
    return counts * (rows * length / max(1, int(counts.sum())))


def one_document(leaves: Leaves) -> dict[str, Array]:
    """Rows that are one document each: those for which keeping documents apart changes nothing."""
    found: dict[str, Array] = {}
    for name in {SEGMENT, POSITION, WEIGHT} & leaves.keys():
        rows = np.asarray(leaves[name])
        place = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
        found[name] = {SEGMENT: np.zeros_like(rows), POSITION: place, WEIGHT: np.ones_like(rows)}[name]
    return found


def microbatches_of(graph: Graph, leaves: Leaves) -> list[dict[str, Array]] | None:
    """The inputs of each microbatch; None where there is one."""
    inputs = graph.nodes("input")
    if graph.microbatches == 1:
        return None
    return [{node.id: _rows(node, leaves[node.id], at) for node in inputs} for at in range(graph.microbatches)]


def _rows(node: Node, value: Array, number: int) -> Array:
    for axis, dim in enumerate(node.outs[0].dims):
        if dim.size is not None and dim.size != value.shape[axis]:
            value = np.take(value, range(number * dim.size, (number + 1) * dim.size), axis)
    return value


def noisy(leaves: Leaves, seed: int) -> dict[str, Array]:
    """The leaves with noise in the last bit of every float: what another order of summation may do."""
    rng = np.random.default_rng(seed)
    return {
        name: value * (1 + rng.uniform(-2e-16, 2e-16, np.shape(value)))
        if np.asarray(value).dtype.kind == "f"
        else value
        for name, value in leaves.items()
    }


# ---- values of forms with other microbatches


def parts_apart(found: Sequence[Array], wanted: Sequence[Array], value: Value) -> Gap | None:
    """The gap between the values that microbatches have; None where they cannot be compared.

    Of one batch that became parts: its rows lie behind each other, or its sum is theirs, or it is in each the same.
    """
    if len(found) == len(wanted):
        if any(a.shape != b.shape for a, b in zip(found, wanted, strict=True)):
            return None
        return worst(
            Gap(value, distance(a, b), b, a, f"microbatch {at}" if len(found) > 1 else "")
            for at, (a, b) in enumerate(zip(found, wanted, strict=True))
        )
    if len(wanted) != 1:
        return None
    (whole,) = wanted
    if found[-1].shape == whole.shape:
        ways = [sum(found[1:], found[0]), found[-1]] if found[-1].dtype.kind == "f" else [found[-1]]
    else:
        axes = [at for at, (a, b) in enumerate(zip(found[-1].shape, whole.shape, strict=False)) if a != b]
        if (
            len(axes) != 1
            or found[-1].ndim != whole.ndim
            or found[-1].shape[axes[0]] * len(found) != whole.shape[axes[0]]
        ):
            return None
        ways = [np.concatenate(found, axes[0])]
    gaps = [Gap(value, distance(way, whole), whole, way) for way in ways]
    return min(gaps, key=lambda gap: gap.error)


def worst(gaps: Iterable[Gap]) -> Gap | None:
    """The largest gap."""
    return max(gaps, key=lambda gap: gap.error, default=None)


def somewhere(gap: Gap, where: str) -> Gap:
    """The gap of a device."""
    return replace(gap, where=", ".join(part for part in (where, gap.where) if part))
