"""Adapters folded into the weights that they adapt, for `partita export --merged`.

In: a model's forward graph and the ids of its adapters' parameters. Out: for each adapted weight what is to be added to
it. Nothing here knows a kind of adapter: where an instance gives y = x W and its adapter makes f(x, y) of that, one
that is linear in x and adds to y has

    f(x, y) = y + x L,   L = f(1, 0),   so   f(x, x W) = x (W + L)

and L is found by giving f the unit rows. That it is so is tried on random rows; where it is not, nothing is merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..compiler.elaborate.adapt import NAME
from ..compiler.interpret import interpret
from ..compiler.ir.graph import Graph, GraphBuilder
from ..compiler.ir.types import Attr, Dim, Dims, DType, Node, TensorType, Use, dims_in, with_dims
from .fault import CommandFault

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Read: TypeAlias = Callable[[str], Array]
MOST_ELEMENTS = 1 << 24  # of an operand that is given to an adapter at once
TOLERANCE = 1e-9  # relative, of float64
_LEAVES = frozenset({"parameter", "constant"})


@dataclass(frozen=True)
class Merge:
    """An adapter, and the weight that it changes.

    weight   the parameter's id; adapter: those of the adapter's own
    graph    f: inputs `x` and `y`, output `made`
    carried  the axes that x and y both begin with, the batch first: rows
    taken    those of x behind them, which the weight contracts; made: those of y
    order    the weight's axes, of (*taken, *made)
    """

    weight: str
    adapter: tuple[str, ...]
    graph: Graph
    carried: Dims
    taken: Dims
    made: Dims
    order: tuple[int, ...]

    def added(self, read: Read) -> Array:
        """L in the weight's axes, float64. Raises CommandFault where the adapter is not y + x L."""
        values = {name: read(name) for name in self.adapter}
        rows = np.eye(_volume(self.taken))
        most = max(1, MOST_ELEMENTS // (_volume(self.carried[1:]) * max(len(rows), _volume(self.made))))
        nothing = np.zeros(_sizes(self.made))
        found = np.concatenate([self._of(rows[at : at + most], nothing, values) for at in range(0, len(rows), most)])
        self._check(found, values)
        return found.reshape(*_sizes(self.taken), *_sizes(self.made)).transpose(self.order)

    def _of(self, rows: Array, y: Array, values: Mapping[str, Array]) -> Array:
        """f of rows of x, all with the same y. Whatever else is carried is the same in all places, so one counts."""
        lead = len(rows), *_sizes(self.carried[1:])
        places = len(rows), *(1 for _ in self.carried[1:])
        x = np.broadcast_to(rows.reshape(*places, *_sizes(self.taken)), (*lead, *_sizes(self.taken)))
        given = {**values, "x": x, "y": np.broadcast_to(y, (*lead, *y.shape))}
        return interpret(self.graph, given)["made"][(slice(None), *(0 for _ in self.carried[1:]))]

    def _check(self, found: Array, values: Mapping[str, Array]) -> None:
        random = np.random.default_rng(0)
        rows, y = random.normal(size=(3, len(found))), random.normal(size=_sizes(self.made))
        wanted = y + np.tensordot(rows, found, 1)
        if not np.allclose(self._of(rows, y, values), wanted, rtol=TOLERANCE, atol=TOLERANCE * abs(wanted).max()):
            raise _refused(self.weight, "it is not what the instance gives plus a product with what it takes")


def merges(graph: Graph, adapters: Iterable[str]) -> list[Merge]:
    """How each adapter that these parameters belong to changes a weight. Raises CommandFault for one that does not."""
    owners = dict.fromkeys(name.rpartition(f".{NAME}.")[0] for name in adapters)
    return [_merge(graph, owner) for owner in owners]


def _merge(graph: Graph, owner: str) -> Merge:
    inner = [node for node in graph if _within(node, f"{owner}.{NAME}") and node.op not in _LEAVES]
    names = {node.id for node in inner}
    read = [use for node in inner for use in node.uses if use.node not in names and graph[use.node].op not in _LEAVES]
    product, weight = _product(graph, owner)
    (x,) = [use for use in product.uses if use.node != weight.node]
    results = {use.value for use in read} - {x.value}
    asked = {use.node for use in graph.outputs.values()}
    asked |= {use.node for node in graph if node.id not in names for use in node.uses}
    ends = [node for node in inner if node.id in asked]
    if len(results) != 1 or len(ends) != 1:
        raise _refused(owner, "it reads something else than what the instance takes and gives")
    (y,) = results
    over = tuple(dims_in(product.attrs["over"]))
    carried, taken = (tuple(dim for dim in x.dims if (dim in over) == inside) for inside in (False, True))
    made = tuple(dim for dim in weight.dims if dim not in over)
    ours, theirs = graph[x.node].outs[x.output].dims, graph[y[0]].outs[y[1]].dims
    tidy = x.dims == (*carried, *taken) and theirs == ends[0].outs[0].dims == (*carried, *made)
    if not tidy or any(dim.size is None for dim in (*taken, *made)):
        raise _refused(owner, "the weight does not stand for all rows alike")
    free = {dim: Dim(dim.name, None) for dim in carried}  # a row tells all about a product
    adapter = _cut(graph, inner, {x.value: _input("x", ours), y: _input("y", theirs)}, ends[0], free)
    carried = tuple(free.values())
    order = tuple((*taken, *made).index(dim) for dim in weight.dims)
    return Merge(weight.node, tuple(one.id for one in adapter.nodes("parameter")), adapter, carried, taken, made, order)


def _product(graph: Graph, owner: str) -> tuple[Node, Use]:
    """The one product of an instance with the one weight that nobody else reads."""
    found = [
        (node, use)
        for node in graph.nodes("dot")
        if _within(node, owner) and not _within(node, f"{owner}.{NAME}")
        for use in node.uses
        if graph[use.node].op == "parameter"
    ]
    if len(found) != 1 or len(graph.users(found[0][1].node)) != 1:
        raise _refused(owner, "there is no single product with a weight of its own to take it up")
    return found[0]


def _cut(
    graph: Graph, inner: Sequence[Node], given: Mapping[tuple[str, int], Node], made: Node, free: Mapping[Dim, Dim]
) -> Graph:
    """The adapter alone: what it reads of the model are inputs, some of its axes of any size."""
    builder = GraphBuilder(NAME)
    for node in given.values():
        builder.add(_with_dims(node, free))
    leaves = dict.fromkeys(use.node for node in inner for use in node.uses if graph[use.node].op in _LEAVES)
    for name in leaves:
        builder.add(graph[name])
    for node in inner:
        uses = tuple(
            Use(given[use.value].id, 0, use.dims, use.dtype) if use.value in given else use for use in node.uses
        )
        builder.add(_with_dims(replace(node, uses=uses), free))
    for key in {node.body for node in inner if node.body is not None}:
        builder.body(key, graph.bodies[key])
    builder.output("made", _with_dims(made, free).out())
    return builder.finish()


def _with_dims(node: Node, names: Mapping[Dim, Dim]) -> Node:
    outs = tuple(TensorType(tuple(names.get(dim, dim) for dim in out.dims), out.dtype) for out in node.outs)
    attrs = {name: with_dims(value, names) for name, value in node.attrs.items()}
    return replace(node, uses=tuple(use.relabel(names) for use in node.uses), outs=outs, attrs=attrs)


def _input(name: str, dims: Dims) -> Node:
    attrs: dict[str, Attr] = {"name": name, "below": None, "dims": dims, "dtype": DType.F64}
    return Node(name, "input", (), (TensorType(dims, DType.F64),), attrs)


def _within(node: Node, path: str) -> bool:
    return node.id.startswith(f"{path}.")


def _sizes(dims: Dims) -> tuple[int, ...]:
    """One for what data gives its size."""
    return tuple(dim.size or 1 for dim in dims)


def _volume(dims: Dims) -> int:
    return math.prod(_sizes(dims))


def _refused(owner: str, why: str) -> CommandFault:
    return CommandFault(f"the adapter of {owner} cannot be merged: {why}", "export without --merged keeps it apart")
