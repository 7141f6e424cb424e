"""From partitioned graphs to what each device of the mesh is compiled for.

In: graphs by program, those that are partitioned and those that one device runs alone, and the mesh. Out: the graphs of
rank 0, and a `Spread`: the graphs of the devices that differ from it, and of what each leaf is a part. Devices whose
parts have the same sizes have the same graphs; only one of each kind is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...runtime import layout as runtime
from ..ir.graph import Graph
from ..ir.layout import Coordinate, Layout, Mesh, part
from ..ir.types import Dim
from ..passes.localize import DEVICE, cut_name, localize, sizes_of
from .outside import Spread, Whole

LEAVES = frozenset({"parameter", "state", "input"})


def spread(graphs: Mapping[str, Graph], mesh: Mesh) -> tuple[dict[str, Graph], Spread]:
    """The graphs of rank 0 and how all lie on the mesh."""
    laid = {name: graph for name, graph in graphs.items() if any(node.layouts for node in graph)}
    kinds: dict[tuple[int, ...], int] = {}
    local: list[dict[str, Graph]] = []
    classes: list[int] = []
    cuts = _cuts(laid.values())
    for coordinate in mesh.coordinates():
        key = tuple(high - low for low, high in (part(size, axes, mesh, coordinate) for size, axes in cuts))
        if key not in kinds:
            kinds[key] = len(local)
            local.append(_local(laid, mesh, coordinate))
        classes.append(kinds[key])
    wholes = {name: _wholes(graph, mesh) for name, graph in laid.items()}
    for some in local:
        for name, graph in some.items():
            wholes[name] |= _starts(graph, laid[name], mesh)
    variants = tuple(local[1:])
    lying = Spread(runtime.Mesh(mesh.axes), wholes, variants, tuple(classes) if variants else ())
    return {**graphs, **local[0]}, lying


def _local(laid: Mapping[str, Graph], mesh: Mesh, coordinate: Coordinate) -> dict[str, Graph]:
    return {name: localize(graph, mesh, coordinate) for name, graph in laid.items()}


def _cuts(graphs: Iterable[Graph]) -> list[tuple[int, tuple[str, ...]]]:
    """Every size that some axes cut, and those axes, once."""
    found: dict[tuple[int, tuple[str, ...]], None] = {}
    for graph in graphs:
        for node in graph:
            for out, layout in zip(node.outs, node.layouts, strict=True):
                for dim, axes in zip(out.dims, layout.shards, strict=True):
                    if axes:
                        found[_size(dim), axes] = None
    return list(found)


def _wholes(graph: Graph, mesh: Mesh) -> dict[str, Whole]:
    """Parameters, states and data."""
    leaves = [node for node in graph if node.op in LEAVES]
    return {n.id: Whole(tuple(map(_size, n.outs[0].dims)), layout_words(n.layouts[0], mesh)) for n in leaves}


def _starts(local: Graph, graph: Graph, mesh: Mesh) -> dict[str, Whole]:
    """The dims whose parts the starts of a device's graph are of."""
    sizes: dict[str, int] = sizes_of(graph)
    found: dict[str, Whole] = {}
    for node in local.nodes("start"):
        dim = node.attrs["dim"]
        assert isinstance(dim, Dim), f"{node.id} starts a dim"
        base, axes = cut_name(dim.name, mesh)
        words = tuple("shard:0" if name in axes else "replicate" for name in mesh.names)
        whole = mesh.size(axes[0]) if base == DEVICE else sizes.get(base, 0)
        found[node.id] = Whole((whole,), words)
    return found


def layout_words(layout: Layout, mesh: Mesh) -> tuple[str, ...]:
    """A layout as the runtime says it: per mesh axis `replicate` or `shard:<position>`."""
    assert not layout.partial, "a leaf owes nothing"
    places = [layout.position(axis) for axis in mesh.names]
    return tuple("replicate" if at is None else f"shard:{at}" for at in places)


def _size(dim: Dim) -> int:
    assert dim.size is not None, f"dim {dim.name} has no size; bind it before lowering"
    return dim.size
