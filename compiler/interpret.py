"""The reference: runs a graph in numpy, float64 for every float, node by node, by the operators' own references.

In: a graph of any level on one device and the values of its leaves. Out: its outputs by name and what it assigned, by
the id of the parameter or state. Phases are honoured (prepare once, forward and backward each microbatch, update once);
nothing is fused, freed or reordered. Every pass and every kernel is held to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .ir.graph import Graph, GraphBuilder
from .ir.types import Dim, Dims, Node, Phase, TensorType, with_dims
from .ops import attributes, hashing, scan
from .ops.definition import Array
from .ops.leaves import numpy_dtype
from .ops.registry import op
from .ops.shapes import elements, product

Values = Mapping[str, object]
_PER_MICROBATCH = (Phase.FORWARD, Phase.BACKWARD)
_OF_A_RUN = ("step", "seed")  # what draws depend on beside their key


def interpret(
    graph: Graph, inputs: Values, *, microbatches: Sequence[Values] | None = None, batch: str = "batch"
) -> dict[str, Array]:
    """Run one step.

    inputs        parameters and states by id (those left out start as declared), inputs by id or name, `step`, `seed`
                  (0 where left out), `start.<dim>` for the global offset of a dim
    microbatches  the inputs that differ between microbatches; without it there is one, and `inputs` holds all
    batch         the name of the dim that microbatches divide: its start advances, its extent is that of all together

    An output that is not accumulated is the last microbatch's. Free dims get their sizes from the arrays.
    """
    parts = [{}] if microbatches is None else list(microbatches)
    return Run(graph, inputs, len(parts), batch).step(parts)


@dataclass(frozen=True)
class Trace:
    """A step with all that was computed on the way.

    results  outputs by name and what was assigned, as `interpret` gives them
    parts    for each microbatch every value as it stood then; the last also has what runs once a step
    """

    results: Mapping[str, Array]
    parts: Sequence[Mapping[tuple[str, int], Array]]


def trace(graph: Graph, inputs: Values, *, microbatches: Sequence[Values] | None = None) -> Trace:
    """Run one step as `interpret` does, and keep every value."""
    parts = [{}] if microbatches is None else list(microbatches)
    run = Run(graph, inputs, len(parts), "batch", kept=[])
    results = run.step(parts)
    assert run.kept is not None, "it was asked to keep them"
    return Trace(results, [*run.kept[:-1], run.values])


@dataclass
class Run:
    """One step under way, on one device. `kept`: a list for the values of each microbatch, where they are wanted."""

    graph: Graph
    given: Values
    count: int
    batch: str
    values: dict[tuple[str, int], Array] = field(default_factory=dict[tuple[str, int], Array])
    assigned: dict[str, Array] = field(default_factory=dict[str, Array])
    sizes: dict[Dim, Dim] = field(default_factory=dict[Dim, Dim])
    part: int = 0
    now: Values = field(default_factory=dict[str, object])
    kept: list[Mapping[tuple[str, int], Array]] | None = None

    def step(self, parts: Sequence[Values]) -> dict[str, Array]:
        self._run(Phase.PREPARE)
        for self.part, self.now in enumerate(parts):
            self._run(*_PER_MICROBATCH)
            if self.kept is not None:
                self.kept.append(dict(self.values))
            self.values.update({(target, 0): value for target, value in self.assigned.items()})
        self._run(Phase.UPDATE)
        found = {name: self.values[use.value] for name, use in self.graph.outputs.items()}
        return {**found, **self.assigned}

    def _run(self, *phases: Phase) -> None:
        for node in self.graph:
            if node.phase in phases or node.op == "start":  # a start may differ in every microbatch
                self.visit(node)

    def visit(self, node: Node) -> None:
        """Computes one node, whose operands are there."""
        arrays = [self.values[use.value] for use in node.uses]
        for array, use in zip(arrays, node.uses, strict=True):
            self._learn(node, use.dims, array.shape)
        if node.op == "assign":
            self.assigned[attributes.text(node.attrs, "target")] = arrays[0]
            return
        self._infer_sizes(node)
        for index, array in enumerate(self._results(node, arrays)):
            self._learn(node, node.outs[index].dims, array.shape)
            self.values[node.id, index] = array

    def _results(self, node: Node, arrays: list[Array]) -> Sequence[Array]:
        match node.op:
            case "parameter" | "state":
                return [self._leaf(node, self.given, node.id)]
            case "input":
                name = attributes.text(node.attrs, "name")
                places = [(self.now, node.id), (self.now, name), (self.given, node.id), (self.given, name)]
                source, key = next(((s, k) for s, k in places if k in s), places[-1])
                return [self._leaf(node, source, key)]
            case "step" | "seed":
                return [np.asarray(self.given.get(node.op, 0), dtype=np.int64)]
            case "start":
                return [np.asarray(self._start(attributes.dim(node.attrs, "dim")), dtype=np.int64)]
            case "extent":
                over = attributes.dims(self._bound(node).attrs, "over")
                times = self.count if any(d.name == self.batch for d in over) else 1
                return [np.asarray(elements(over) * times, dtype=np.int64)]
            case "scan":
                assert node.body is not None, "a scan has a body"
                return _scan(self._bound(node), self.graph.bodies[node.body], arrays)
            case "accumulate":
                before = self.values.get((node.id, 0))
                return [arrays[0] if before is None else before + arrays[0]]
            case _:
                return self._compute(self._bound(node), arrays)

    def _compute(self, node: Node, arrays: list[Array]) -> Sequence[Array]:
        if node.body is not None and node.body in self.graph.bodies and not op(node.op).covers(node):
            own = {name: self.given[name] for name in _OF_A_RUN if name in self.given}
            return _by_body(node, self.graph.bodies[node.body], arrays, own)
        with np.errstate(all="ignore"):
            return op(node.op).reference(node, arrays)

    def _leaf(self, node: Node, source: Values, name: str) -> Array:
        out = self._bound(node).outs[0]
        if name not in source:
            assert node.op != "input", f"input {name} is not given"
            return initial_value(self._bound(node), _integer(self.given.get("seed", 0)))
        array = np.asarray(source[name], dtype=numpy_dtype(out.dtype))
        fits = len(array.shape) == len(out.dims)
        fits = fits and all(d.size in (None, n) for d, n in zip(out.dims, array.shape, strict=True))
        assert fits, f"{name} has shape {array.shape}, but is {[(d.name, d.size) for d in out.dims]}"
        return array

    def _start(self, dim: Dim) -> int:
        name = f"start.{dim.name}"
        base = _integer(self.now.get(name, self.given.get(name, 0)))
        bound = self.sizes.get(dim, dim)
        return base + (self.part * elements((bound,)) if dim.name == self.batch and self.part else 0)

    # ---- free dims

    def _learn(self, node: Node, dims: Dims, shape: Iterable[int]) -> None:
        """An array shows the sizes of its free dims."""
        for dim, size in zip(dims, shape, strict=True):
            if dim.size is None:
                known = self.sizes.setdefault(dim, replace(dim, size=size))
                assert known.size == size, f"{node.id}: {dim.name} is {known.size} and {size}"
            else:
                assert dim.size == size, f"{node.id}: {dim.name} is {dim.size}, its array has {size}"

    def _bound(self, node: Node) -> Node:
        """The node with every size that is known by now."""
        if not self.sizes:
            return node
        outs = tuple(TensorType(self._sized(out.dims), out.dtype) for out in node.outs)
        attrs = {name: with_dims(value, self.sizes) for name, value in node.attrs.items()}
        return replace(node, uses=tuple(use.relabel(self.sizes) for use in node.uses), outs=outs, attrs=attrs)

    def _sized(self, dims: Dims) -> Dims:
        return tuple(self.sizes.get(d, d) for d in dims)

    def _infer_sizes(self, node: Node) -> None:
        """Dims that an operator makes: the one unknown of a product (split, merge) or of a sum (concat, split)."""
        if node.op in ("split_dim", "merge_dims"):
            long, parts = ("dim", "into") if node.op == "split_dim" else ("into", "dims")
            whole, pieces = attributes.dim(node.attrs, long), attributes.dims(node.attrs, parts)
        elif node.op in ("concat", "split"):
            whole, pieces = attributes.dim(node.attrs, "dim"), attributes.dims(node.attrs, "parts")
        else:
            return
        joined = node.op in ("concat", "split")
        (whole,), pieces = self._sized((whole,)), self._sized(pieces)
        unknown = [p for p in pieces if p.size is None]
        known = [p.size for p in pieces if p.size is not None]
        total = sum(known) if joined else math.prod(known)
        if whole.size is None and not unknown:
            self.sizes[whole] = replace(whole, size=total)
        elif whole.size is not None and len(unknown) == 1:
            size = whole.size - total if joined else whole.size // total
            self.sizes[unknown[0]] = replace(unknown[0], size=size)


def _integer(value: object) -> int:
    return int(np.asarray(value))


def _of_caller(node: Node, body: Graph) -> Graph:
    """A body whose draws are its caller's own, by the names that they have where it is inlined."""
    if not any("key" in inner.attrs or inner.body is not None for inner in body):
        return body
    builder = GraphBuilder(body.name)
    for inner in body:
        name = f"{node.id}.{inner.id}"
        attrs = {**inner.attrs, "key": name} if "key" in inner.attrs else inner.attrs
        uses = tuple(replace(use, node=f"{node.id}.{use.node}") for use in inner.uses)
        builder.add(replace(inner, id=name, uses=uses, attrs=attrs))
    for name, use in body.outputs.items():
        builder.output(name, replace(use, node=f"{node.id}.{use.node}"))
    for key, inner in body.bodies.items():
        builder.body(key, inner)
    return builder.finish()


def _scan(node: Node, body: Graph, arrays: list[Array]) -> list[Array]:
    """Step by step: the last carries, what was emitted, and the carries before each step."""
    names = [attributes.text(inner.attrs, "name") for inner in body.nodes("input")]
    dim, count = attributes.dim(node.attrs, "dim"), len(scan.operands(node)[0])
    sliced = range(count, count + len(scan.operands(node)[1]))
    emits = len(scan.emitted(node.attrs))
    steps = range(elements((dim,)))
    carries, rows = arrays[:count], list[list[Array]]()
    for t in reversed(steps) if node.attrs["reverse"] else steps:
        given = [a.take(t, node.uses[i].dims.index(dim)) if i in sliced else a for i, a in enumerate(arrays)]
        given[:count] = carries
        found = interpret(body, dict(zip(names, given, strict=True)))
        rows.append([*(found[str(i)] for i in range(count, count + emits)), *carries])
        carries = [found[str(i)] for i in range(count)]
    rows = rows[::-1] if node.attrs["reverse"] else rows
    return [*carries, *(np.stack(column) for column in list(zip(*rows, strict=True))[: len(node.outs) - count])]


def _by_body(node: Node, body: Graph, arrays: list[Array], own: Values) -> list[Array]:
    """A kernel function by its meaning; saved results are not in the body, and nothing may read them (NaN)."""
    names = [attributes.text(inner.attrs, "name") for inner in body.nodes("input")]
    found = interpret(_of_caller(node, body), {**own, **dict(zip(names, arrays, strict=True))})
    shapes = [tuple(elements((d,)) for d in out.dims) for out in node.outs]
    return [found[str(i)] if str(i) in found else np.full(shape, np.nan) for i, shape in enumerate(shapes)]


def initial_value(node: Node, seed: int) -> Array:
    """How a parameter or a state starts: the draws of `ops.hashing`, keyed by its id, at step 0; the runtime's too."""
    out, init = node.outs[0], node.attrs["init"]
    assert product(out.dims) is not None, f"{node.id} has a free dim"
    assert isinstance(init, tuple) and isinstance(init[0], str), f"{node.id}: no initialiser {init!r}"
    kind, arguments = init[0], [float(a) for a in init[1:] if isinstance(a, int | float)]
    shape = [elements((d,)) for d in out.dims]
    if kind in ("zeros", "ones", "constant"):
        value = arguments[0] if kind == "constant" else float(kind == "ones")
        return np.full(shape, value, dtype=numpy_dtype(out.dtype))
    coordinates = [np.arange(n, dtype=np.int64) for n in shape]
    words, scale = hashing.key_words(node.id), _scale(kind, arguments, shape)
    if kind in ("normal", "kaiming"):
        return scale * hashing.gaussian(words, seed, 0, coordinates)
    return scale * (2 * hashing.uniform(words, seed, 0, coordinates) - 1)


# normal: the deviation. uniform: the bound. kaiming (He et al. 2015): the deviation sqrt(2 / fan_in). xavier (Glorot,
# Bengio 2010): the bound sqrt(6 / (fan_in + fan_out)). fan_in is all dims but the last, fan_out the last.
def _scale(kind: str, arguments: Sequence[float], shape: Sequence[int]) -> float:
    fan_in, fan_out = max(1, math.prod(shape[:-1])), shape[-1] if shape else 1
    match kind:
        case "normal" | "uniform":
            return arguments[0]
        case "kaiming":
            return math.sqrt(2 / (arguments[0] if arguments else fan_in))
        case _:
            assert kind == "xavier", f"no initialiser {kind}"
            return math.sqrt(6 / (fan_in + fan_out))
