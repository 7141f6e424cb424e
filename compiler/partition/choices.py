"""Which strategies the solver may choose from: those worth considering, and none that a wish rules out.

In: the classes of a graph, a mesh, and what is asked for: pins (a dim is cut by an axis wherever an operator can) and a
ZeRO stage. Out: for each class its strategies. A dim shorter than an axis is not cut by it; terms are let through only
where terms can come in.

ZeRO (Rajbhandari et al. 2020) is a layout over the axis `data`: 1 cuts optimizer states, 2 the summed gradients, 3 the
parameters as they are computed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from ..ir.layout import Axes, Layout, Mesh, Reduction, cut_size, largest_part
from ..ir.types import Node, Phase
from ..ops.definition import Role
from ..ops.registry import REGISTRY
from .fold import ClassId, Folded
from .strategies import Option, Strategy, cut_axes, is_legal, options

DATA = "data"
SEVERAL = 2  # microbatches that stand for any number of them


@dataclass(frozen=True)
class Wishes:
    """pins: dim name -> the axes that cut it. zero: the stage, or None where the solver may choose. leaves: parameters
    and states, by id, that lie already as another graph of the build has laid them. sparing: what is gathered once for
    all microbatches, and lasts, is to pay within `SEVERAL` of them."""

    pins: Mapping[str, Axes] = field(default_factory=dict[str, Axes])
    zero: int | None = None
    leaves: Mapping[str, Layout] = field(default_factory=dict[str, Layout])
    sparing: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """strategies: of every class. same: classes that choose alike (the k-th strategy of each), by their first."""

    strategies: Mapping[ClassId, tuple[Strategy, ...]]
    same: Mapping[ClassId, ClassId]


def choices(folded: Folded, mesh: Mesh, wishes: Wishes) -> Choices:
    """The strategies of every class."""
    found: dict[ClassId, tuple[Strategy, ...]] = {}
    every = {name: _worth(node, options(node), mesh) for name, node in folded.nodes.items()}
    owed = _may_owe(folded, every)
    copies = compute_copies(folded)
    for name, node in folded.nodes.items():
        of = tuple(one for one in every[name] if not one.passes or owed & _passing(name, one))
        strategies = _legal(node, mesh, _pinned(node, of, mesh, wishes)) or _legal(node, mesh, [of] * len(mesh.axes))
        if node.op == "assign":  # it takes what it writes to as that lies
            strategies = [(every[name][0],) * len(mesh.axes)]
        strategies = _stage(node, name in copies, strategies, mesh, wishes)
        if node.id in wishes.leaves:
            lies = tuple(map(wishes.leaves[node.id].on, mesh.names))
            every_way = product(options(node), repeat=len(mesh.axes))
            strategies = [one for one in every_way if tuple(option.results[0] for option in one) == lies]
        found[name] = tuple(strategies)
    return _together(folded, found)


# ---- what chooses alike


def _together(folded: Folded, found: dict[ClassId, tuple[Strategy, ...]]) -> Choices:
    """An update is elementwise, so all of a parameter's is done in one layout, with its states where it is done."""
    group: dict[ClassId, ClassId] = {}

    def first(name: ClassId) -> ClassId:
        while name in group:
            name = group[name]
        return name

    for read in folded.reads:
        source = folded.nodes[read.source]
        for name, place in read.readers:
            reader = folded.nodes.get(name)
            if reader is None or not (_updates(source) and _updates(reader)):
                continue
            if reader.uses[place].dims == reader.outs[0].dims and first(name) != first(read.source):
                group[first(name)] = first(read.source)
    members: dict[ClassId, list[ClassId]] = {}
    for name in folded.nodes:
        members.setdefault(first(name), []).append(name)
    for names in members.values():
        if len(names) > 1:
            found.update(_aligned({name: found[name] for name in names}))
    return Choices(found, {name: first(name) for name in folded.nodes})


def _updates(node: Node) -> bool:
    """Whether it is a state, or a step of an update that works element by element on tensors of one shape."""
    if node.op == "state":
        return bool(node.outs[0].dims)
    if node.phase is not Phase.UPDATE or not node.outs or not node.outs[0].dims:
        return False
    dims = node.outs[0].dims
    elementwise = set(REGISTRY[node.op].roles(node).values()) == {Role.MAP}
    return elementwise and all(out.dims == dims for out in node.outs) and all(u.dims in ((), dims) for u in node.uses)


def _aligned(found: Mapping[ClassId, tuple[Strategy, ...]]) -> dict[ClassId, tuple[Strategy, ...]]:
    """The strategies that all members have, in one order."""
    by_cut = {
        name: {tuple(o.results[0] for o in one): one for one in strategies if not any(o.passes for o in one)}
        for name, strategies in found.items()
    }
    shared = [cut for cut in next(iter(by_cut.values())) if all(cut in table for table in by_cut.values())]
    return {name: tuple(table[cut] for cut in shared) for name, table in by_cut.items()}


def compute_copies(folded: Folded) -> frozenset[ClassId]:
    """The classes of what forward and backward read of a parameter: itself, or its cast."""
    found: set[ClassId] = set()
    for read in folded.reads:
        node = folded.nodes[read.source]
        readers = [folded.nodes[one] for one, _ in read.readers if one in folded.nodes]
        used = any(reader.phase in (Phase.FORWARD, Phase.BACKWARD) for reader in readers)
        if used and node.phase is Phase.PREPARE and node.op in ("parameter", "cast"):
            found.add(read.source)
    return frozenset(found)


def _worth(node: Node, every: tuple[Option, ...], mesh: Mesh) -> tuple[Option, ...]:
    shortest = min((size for _, size in mesh.axes), default=1)
    return tuple(one for one in every if all((dim.size or 0) >= shortest for dim in one.cut))


def _may_owe(folded: Folded, every: Mapping[ClassId, tuple[Option, ...]]) -> set[tuple[ClassId, int]]:
    """The operands that terms can come in by: of what owes by itself, or lets terms through."""
    owes = {name for name, of in every.items() if any(_owes(one) and not one.passes for one in of)}
    found: set[tuple[ClassId, int]] = set()
    grew = True
    while grew:
        grew = False
        for read in folded.reads:
            if read.source in owes:
                for reader in read.readers:
                    if reader not in found and reader[0] in every:
                        found.add(reader)
                        grew = True
        for name, of in every.items():
            if name not in owes and any(one.passes and found & _passing(name, one) for one in of):
                owes.add(name)
                grew = True
    return found


def _owes(option: Option) -> bool:
    return any(isinstance(on, Reduction) for on in option.results)


def _passing(name: ClassId, option: Option) -> set[tuple[ClassId, int]]:
    """The operands by which terms come in."""
    return {(name, at) for at, on in enumerate(option.operands) if isinstance(on, Reduction)}


def _pinned(node: Node, of: tuple[Option, ...], mesh: Mesh, wishes: Wishes) -> list[tuple[Option, ...]]:
    """The options of each axis. A pinned dim is cut by its axes alone; an axis that has pins here cuts one of those,
    unless the node lets terms through."""
    found: list[tuple[Option, ...]] = []
    for axis in mesh.names:
        stored = node.phase in (Phase.PREPARE, Phase.UPDATE) or node.op == "accumulate"  # where ZeRO may cut more
        free = of if stored else tuple(o for o in of if all(axis in wishes.pins.get(d.name, (axis,)) for d in o.cut))
        mine = tuple(o for o in free if any(axis in wishes.pins.get(d.name, ()) for d in o.cut))
        found.append((*mine, *(o for o in free if o.passes)) if mine else free)
    return found


def _legal(node: Node, mesh: Mesh, of: Sequence[tuple[Option, ...]]) -> list[Strategy]:
    """The strategies of which every device can do its part; a pin that leaves none asks too much of this node."""
    return [one for one in product(*of) if _as_one(one, mesh) and _keeps(node, one, mesh)]


def _as_one(strategy: Strategy, mesh: Mesh) -> bool:
    """Whether factors of an axis do the same, as the axis would; they may differ after one that cuts a dim which the
    axis is too long for."""
    return all(
        option == strategy[mesh.order(axis)]
        or any((dim.size or 0) < mesh.size(axis) for dim in strategy[mesh.order(axis)].cut)
        for axis, factors in mesh.whole_axes
        if len(factors) > 1
        for option in (strategy[mesh.order(one)] for one in factors[1:])
    )


def _keeps(node: Node, strategy: Strategy, mesh: Mesh) -> bool:
    """Whether no device is left without work that another has, and the cuts are legal."""
    for dim, axes in cut_axes(strategy, mesh).items():
        size = cut_size(dim)
        for axis in axes:
            if size < mesh.size(axis):
                return False
            size = largest_part(size, (axis,), mesh)
    return is_legal(node, strategy, mesh)


def _stage(node: Node, is_copy: bool, strategies: list[Strategy], mesh: Mesh, wishes: Wishes) -> list[Strategy]:
    """The strategies that a ZeRO stage leaves to states, summed gradients and parameters."""
    if wishes.zero is None or DATA not in mesh.names:
        return strategies
    at = mesh.order(DATA)
    cut: bool | None = None
    if node.op == "state":
        cut = wishes.zero >= 1
    elif node.op == "accumulate" and node.outs[0].dims:
        cut = wishes.zero >= 2
    elif node.op == "parameter":
        cut = wishes.zero >= (3 if is_copy else 1)
    elif is_copy and wishes.zero >= 3:
        cut = True
    if cut is None:
        return strategies
    return [one for one in strategies if bool(one[at].cut) == cut] or strategies
