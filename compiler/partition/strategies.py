"""In which ways one axis of a mesh may take part in an operator: derived from roles and linearity, for every operator.

In: a node. Out: its options for one axis, each saying what the axis does to every operand and result: cuts a dim (its
position), owes a reduction, or nothing (None). A strategy is an option for each axis.

    MAP             cut in every operand and result that has the dim; a result that lacks it owes a sum
    SUM, MAX, LSE   cut in the operands; the result owes the reduction
    GATHER          cut in the table (and in a result that has the dim); a result that lacks it owes a sum
    linear          terms in, terms out: an operand set in which the operator is jointly linear may be owed
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..ir.layout import Axes, Layout, Mesh, Reduction, cut_size, has_empty_part
from ..ir.types import Dim, Dims, Node, Runs
from ..ops import attributes
from ..ops.definition import Role
from ..ops.offsets import start_operands
from ..ops.registry import REGISTRY
from ..ops.structure import axis_pair

On = int | Reduction | None  # what an axis does to a value: cut a dim, owe a reduction, nothing

OWED: Mapping[Role, Reduction] = MappingProxyType(
    {
        Role.MAP: Reduction.SUM,
        Role.SUM: Reduction.SUM,
        Role.GATHER: Reduction.SUM,
        Role.MAX: Reduction.MAX,
        Role.LSE: Reduction.LSE,
    }
)
_NEVER_EMPTY = frozenset({Role.GATHER, Role.MAX, Role.LSE})  # nothing to look up in, no largest of nothing

# Kernel functions that are cut along a dim by being taken apart (`apart.py`): the formal that names the dim.
APART: Mapping[str, str] = MappingProxyType({"cross_entropy": "V"})


@dataclass(frozen=True, slots=True)
class Option:
    """What one axis does in a node: to each operand, to each result, and which dims it cuts there.

    apart   whether the node must be taken apart into operators that can be cut so
    passes  whether it lets terms through
    """

    operands: tuple[On, ...]
    results: tuple[On, ...]
    cut: Dims = ()
    apart: bool = False
    passes: bool = False


Strategy = tuple[Option, ...]  # an option for each axis of the mesh


def options(node: Node) -> tuple[Option, ...]:
    """Every option of a node for one axis, the replicated one first."""
    definition = REGISTRY[node.op]
    whole = Option((None,) * len(node.uses), (None,) * len(node.outs))
    found = [whole]
    roles = definition.roles(node)
    for cut, role in _cuttable(node, roles):
        found.append(_cut(node, cut, role))
    for operands in definition.linear(node):
        if all(out.dtype.is_float for out in node.outs):
            owed = tuple(Reduction.SUM if place in operands else None for place in range(len(node.uses)))
            found.append(Option(owed, (Reduction.SUM,) * len(node.outs), passes=True))
    if node.op in APART:
        found.append(_taken_apart(node, attributes.dims(node.attrs, APART[node.op])))
    return tuple(dict.fromkeys(found))


def _cuttable(node: Node, roles: Mapping[Dim, Role]) -> Iterable[tuple[Dims, Role]]:
    """The dims that are cut together, and their role."""
    pair = axis_pair(node)
    if pair is not None:
        yield pair, Role.MAP
        yield from (((pair[0], inner), Role.MAP) for inner in parts_of(node)[1:])
    together = {d for d, role in roles.items() if role is Role.WHOLE} | set(pair or ())
    for dim, role in roles.items():
        joined = role is Role.LSE and len(node.outs) > 1  # its results are joined together, not each by itself
        if dim not in together and not joined:
            yield from ([((dim,), role)] if dim.runs is None else _rows(node, dim, dim.runs, roles))


def _rows(node: Node, dim: Dim, runs: Runs, roles: Mapping[Dim, Role]) -> Iterable[tuple[Dims, Role]]:
    """Sorted rows: with what they look up by what they are sorted by, which then lies where they do; else alone."""
    if roles.get(runs.by) is Role.GATHER:
        yield (dim, runs.by), Role.MAP
    elif roles[dim] in (Role.MAP, Role.SUM) and dim not in start_operands(node):
        yield (dim,), roles[dim]


def summed_rows(node: Node, strategy: Strategy) -> Dim | None:
    """The sorted rows that a strategy cuts and some result lacks: what a device holds beside its own must be 0."""
    for dim in (d for option in strategy for d in option.cut if d.runs is not None):
        if any(dim not in out.dims and dim.runs and dim.runs.by not in out.dims for out in node.outs):
            return dim
    return None


def parts_of(node: Node) -> Dims:
    """The short dims of a split or a merge, the slowest first."""
    return attributes.dims(node.attrs, "into" if node.op == "split_dim" else "dims")


def _cut(node: Node, cut: Dims, role: Role) -> Option:
    operands = tuple(_position(use.dims, cut) for use in node.uses)
    found: list[On] = []
    for out in node.outs:
        at = _position(out.dims, cut)
        found.append(OWED[role] if at is None else at)
    return Option(operands, tuple(found), cut)


def _position(dims: Dims, cut: Dims) -> int | None:
    return next((at for at, dim in enumerate(dims) if dim in cut), None)


def _taken_apart(node: Node, cut: Dims) -> Option:
    """The parts of its results are joined inside: what comes out is whole."""
    operands = tuple(_position(use.dims, cut) for use in node.uses)
    return Option(operands, (None,) * len(node.outs), cut, apart=True)


# ---- strategies


def cut_axes(strategy: Strategy, mesh: Mesh) -> dict[Dim, Axes]:
    """Which axes cut which dim of the node, in the order of the mesh."""
    found: dict[Dim, Axes] = {}
    for axis, option in zip(mesh.names, strategy, strict=True):
        for dim in option.cut:
            found[dim] = (*found.get(dim, ()), axis)
    return found


def is_legal(node: Node, strategy: Strategy, mesh: Mesh) -> bool:
    """Whether every device can compute its part: nothing is looked up in nothing, split dims are cut at their seams."""
    cut = cut_axes(strategy, mesh)
    roles = REGISTRY[node.op].roles(node)
    for dim, axes in cut.items():
        if dim.runs is not None and (
            len(axes) > 1 or has_empty_part(cut_size(dim), axes, mesh) or cut.get(dim.runs.by, axes) != axes
        ):
            return False
        needed = roles.get(dim) in _NEVER_EMPTY or dim.name in _apart_dims(strategy)
        if needed and has_empty_part(_size(dim), axes, mesh):
            return False
    pair = axis_pair(node)
    return pair is None or _at_seams(pair[0], parts_of(node), strategy, mesh)


def _apart_dims(strategy: Strategy) -> frozenset[str]:
    return frozenset(dim.name for option in strategy if option.apart for dim in option.cut)


def _at_seams(long: Dim, parts: Dims, strategy: Strategy, mesh: Mesh) -> bool:
    """A part may be cut where every slower part is cut to one already, and evenly, so that the long dim's parts agree.

    Key-value heads in G groups of R: G over one axis, and where that leaves one group, R over the next.
    """
    left = [_size(part) for part in parts]
    for axis, option in zip(mesh.names, strategy, strict=True):
        at = next((i for i, part in enumerate(parts) if part in option.cut), None)
        if at is None:
            continue
        slower, faster = math.prod(left[:at]), math.prod(left[at + 1 :])
        if slower != 1 or (left[at] % mesh.size(axis) and faster != 1):
            return False
        left[at] = -(-left[at] // mesh.size(axis))
    return True


def _size(dim: Dim) -> int:
    assert dim.size is not None, f"{dim} has a size before it is cut"
    return dim.size


def operand_layouts(node: Node, strategy: Strategy, mesh: Mesh) -> tuple[Layout, ...]:
    """How the node wants each operand."""
    return tuple(operand_layout(node, strategy, mesh, place) for place in range(len(node.uses)))


def operand_layout(node: Node, strategy: Strategy, mesh: Mesh, place: int) -> Layout:
    """How the node wants one operand."""
    return _layout(len(node.uses[place].dims), [option.operands[place] for option in strategy], mesh)


def result_layouts(node: Node, strategy: Strategy, mesh: Mesh) -> tuple[Layout, ...]:
    """How each result lies."""
    return tuple(
        _layout(len(out.dims), [option.results[index] for option in strategy], mesh)
        for index, out in enumerate(node.outs)
    )


def _layout(rank: int, on: Sequence[On], mesh: Mesh) -> Layout:
    shards: list[Axes] = [()] * rank
    partial: list[tuple[str, Reduction]] = []
    for axis, does in zip(mesh.names, on, strict=True):
        if isinstance(does, Reduction):
            partial.append((axis, does))
        elif does is not None:
            shards[does] = (*shards[does], axis)
    return Layout(tuple(shards), tuple(partial))
