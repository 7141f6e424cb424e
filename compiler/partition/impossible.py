"""Wishes that cannot be fulfilled: found before a layout is sought, or when none was found.

In: a graph, a mesh, the wishes; or a choice of strategies. Out: SpecError with the dim, the operator and what would do
instead, in numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ..base.diagnostic import Diagnostic, Severity, SpecError, did_you_mean
from ..ir.graph import Graph
from ..ir.layout import FACTOR, Axes, Mesh
from ..ir.types import Dim, Node, Phase
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from .choices import DATA, Wishes
from .fold import ClassId, Folded
from .solve import Program
from .strategies import Strategy, options

BATCH = "batch"
TOO_LARGE = "E0943"  # the memory does not suffice
_LISTED = 12  # dims that are named in a hint
_KINDS = {"parameter": "parameters", "state": "optimizer states", "accumulate": "gradients"}


def check_wishes(graph: Graph, mesh: Mesh, wishes: Wishes) -> None:
    """Raises SpecError where a pin names what is not there, or a dim that no operator can cut so."""
    dims = graph.dims()
    for name, axes in wishes.pins.items():
        for axis in axes:
            if axis not in mesh.names:
                hint = did_you_mean(axis, mesh.names) or f"the mesh is {mesh}"
                raise _fault("E0941", f"the pin `{name} -> {axis}`: the mesh has no axis {axis}", hint)
        if name not in dims:
            known = [dim for dim in dims if "." not in dim and dim.isidentifier()][:_LISTED]
            hint = did_you_mean(name, dims) or f"there are {', '.join(known)}"
            raise _fault("E0941", f"a pin of `{name}`: the graph has no dim {name}", hint)
        if axes:
            _check_pin(graph, mesh, dims[name], axes)


def _check_pin(graph: Graph, mesh: Mesh, dim: Dim, axes: Axes) -> None:
    size = math.prod(map(mesh.size, axes))
    have = dim.size or 0
    having = [n for n in graph if n.phase in (Phase.FORWARD, Phase.BACKWARD) and n.uses and dim in _dims(n)]
    if have < size:
        where = f"`{having[0].id}` ({having[0].op}) has {have}; " if having else ""
        hint = f"{where}an axis of {math.gcd(have, size)} would do, or pin another dim"
        raise _fault("E0942", f"`{dim} -> {_text(axes)}`: {dim} = {have} cannot be cut over {size} devices", hint)
    if having and not any(dim in option.cut for node in having for option in options(node)):
        node = having[0]
        others = sorted({d.name for d, role in REGISTRY[node.op].roles(node).items() if role is not Role.WHOLE})
        hint = f"{node.op} can be cut along {', '.join(others)}" if others else f"leave {dim} out of the pins"
        raise _fault("E0942", f"`{dim} -> {_text(axes)}`: `{node.id}` ({node.op}) needs {dim} whole", hint)


def check_held(folded: Folded, chosen: Mapping[ClassId, Strategy], mesh: Mesh, wishes: Wishes) -> None:
    """Raises SpecError where a pin holds nowhere, because an axis cuts one dim and others are pinned to it too."""
    for name, axes in wishes.pins.items():
        having = [(id_, node) for id_, node in folded.nodes.items() if _has(node, name)]
        for axis in axes:
            at = mesh.order(axis)
            if any(_cuts(chosen[id_][at].cut, name) for id_, _ in having):
                continue
            could = [node for _, node in having if any(_cuts(option.cut, name) for option in options(node))]
            others = [dim for dim, of in wishes.pins.items() if axis in of and dim != name]
            both = ((node, dim) for node in could if node.uses for dim in others if _has(node, dim))
            node, rival = next(both, (None, ""))
            if node is not None:
                title = f"the pins `{name} -> {_text([axis])}` and `{rival} -> {_text([axis])}` exclude each other"
                hint = f"`{node.id}` ({node.op}) has both dims, and an axis cuts one: leave one of the pins out"
                raise _fault("E0947", title, hint)


def _cuts(cut: Iterable[Dim], name: str) -> bool:
    return any(dim.name == name for dim in cut)


def too_large(folded: Folded, program: Program, left: int, memory: int | None = None) -> SpecError:
    """What is the least that a device must hold, of what the most of it is, and how many devices would do. left: bytes
    of its memory for what lasts; the rest is held for a moment."""
    limit = left if memory is None else memory
    least: dict[str, int] = {}
    for name, bytes_ in program.resident.least().items():
        kind = _KINDS.get(folded.nodes[name].op, "activations")
        least[kind] = least.get(kind, 0) + bytes_
    if limit > left:
        least["values of a moment"] = limit - left
    total, devices = sum(least.values()), program.mesh.devices
    parts = ", ".join(f"{kind} {_size(size)}" for kind, size in sorted(least.items(), key=lambda one: -one[1]))
    title = f"{program.mesh} with {_size(limit)} a device cannot hold the step"
    if total <= limit:
        more = "that fits, but not all of it can be cut so at once: take more devices, or fewer pins"
    else:
        more = f"take {-(-total * devices // limit)} devices or more, or {_size(total)} a device at the least"
    return _fault(TOO_LARGE, title, f"cut as far as it goes, a device still holds {parts}: {more}")


def idle_axes(laid: Graph, mesh: Mesh) -> list[Diagnostic]:
    """A warning for each axis along which all devices do the same, with what they could do."""
    used = {axis for node in laid for layout in node.layouts for axis in layout.axes}
    named = [axis for axis, members in mesh.whole_axes if not used & set(members)]
    return [_idle(laid, mesh, axis) for axis in named if mesh.size(axis) > 1]


def _idle(laid: Graph, mesh: Mesh, axis: str) -> Diagnostic:
    size, dims = mesh.size(axis), [d for d in laid.dims().values() if d.size is not None]
    batch = next((d.size or 0 for d in dims if d.name == BATCH), 0)
    longest = max(dims, key=lambda dim: dim.size or 0, default=None)
    if axis == DATA and batch < size:
        hint = f"{BATCH} = {batch}: an axis of {math.gcd(batch, size)} would do, or a larger batch"
    elif longest is not None and (longest.size or 0) < size:
        hint = f"no dim is that long; {longest} = {longest.size} is the longest"
    else:
        hint = f"to cut a dim takes longer than it saves: pin one to {axis}, or leave {axis} out"
    title = f"the axis `{axis}` cuts nothing: its {size} devices all do the same"
    return Diagnostic("E0948", title, hint=hint, severity=Severity.WARNING)


def _size(bytes_: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= size:
            return f"{bytes_ / size:.3g} {unit}"
    return f"{bytes_:.0f} B"


def _text(axes: Sequence[str]) -> str:
    """The axes as they were named."""
    return ", ".join(dict.fromkeys(axis.partition(FACTOR)[0] for axis in axes))


def _dims(node: Node) -> list[Dim]:
    return [d for use in node.uses for d in use.dims] + [d for out in node.outs for d in out.dims]


def _has(node: Node, name: str) -> bool:
    return any(dim.name == name for dim in _dims(node))


def _fault(code: str, title: str, hint: str | None) -> SpecError:
    return SpecError(Diagnostic(code, title, hint=hint))
