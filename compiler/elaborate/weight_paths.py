"""Paths of weight maps: `layers[l].moe.experts[e].up.w` to the parameters that it names, and how their dims are called.

A state of the model's own is named like a parameter, and is one to all that follows. An index picks a layer of a chain
or a member of a bank. A chain without one stands for all its layers, a bank without one keeps its dim. Names of dims
are looked up from the block that owns the parameter outwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ..base.diagnostic import did_you_mean
from ..ir.types import Dim, Dims, Use
from ..language import syntax as s
from . import dims as d
from .frame import Frame
from .values import Absent, Chain, Instance, Value


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter, or a state of the model's own, that a path names.

    name     its id; dims: its axes
    scopes   what dims' names stand for, in the owner first
    outer    dim -> what the block around calls it
    members  bank's dim -> the member that is meant, None: every one
    layers   chain's dim -> the layer, where the path gives no index
    kind     equal for the layers of a chain that are made alike
    """

    name: str
    dims: Dims
    scopes: tuple[Mapping[str, Dims], ...]
    outer: Mapping[Dim, Dim]
    members: Mapping[Dim, int | None]
    layers: Mapping[Dim, int]
    kind: tuple[int, ...]

    def called(self, dim: Dim) -> tuple[Dim, ...]:
        """The axes that a dim of some scope is."""
        return tuple(axis for axis in (*self.dims, *self.layers) if dim in self._names(axis))

    def extent(self, dim: Dim) -> tuple[int, int]:
        """Where on an axis and how much of it the path means: (start, length)."""
        member = self.members.get(dim)
        assert dim.size is not None, "a parameter's sizes are known"
        return (0, dim.size) if member is None else (member, 1)

    def _names(self, axis: Dim) -> Iterator[Dim]:
        yield axis
        while axis in self.outer:
            axis = self.outer[axis]
            yield axis


class _Place(NamedTuple):
    """Somewhere on the way: `template` is how the path up to here stands in the elaboration, `real` how it is meant.

    A tuple, because a map of many layers makes a place for each step of each path.
    """

    value: Value
    scopes: tuple[Mapping[str, Dims], ...]
    template: str = ""
    real: str = ""
    bank: Dims = ()
    outer: Mapping[Dim, Dim] = MappingProxyType({})
    members: Mapping[Dim, int | None] = MappingProxyType({})
    layers: Mapping[Dim, int] = MappingProxyType({})
    kind: tuple[int, ...] = ()

    def moved(self, path: str) -> str:
        """A path of the elaboration as it is meant."""
        return self.real + path[len(self.template) :]


class Irregular(Exception):
    """A loop's index is more than the index of a bank, whose members are alike."""


def parameters(frame: Frame, root: Instance, path: s.WeightPath, every: Mapping[str, int]) -> list[Parameter] | None:
    """The parameters that a path names, one for each layer of a chain without index; None where `when` left it out.

    `every`: indexes that stand for all members of a bank, which are so many. Raises Irregular where one does not.
    """
    places = [_named(frame, _Place(root, (root.dims,)), path.root)]
    for step in path.steps:
        if any(isinstance(place.value, Absent) for place in places):
            return None
        if isinstance(step, s.WeightIndex):
            places = [_indexed(frame, place, step, every) for place in places]
        else:
            places = [_named(frame, layer, step) for place in places for layer in _layers(frame, place, step)]
    if any(isinstance(place.value, Absent) for place in places):
        return None
    return [_parameter(frame, place, path) for place in places]


def _parameter(frame: Frame, place: _Place, path: s.WeightPath) -> Parameter:
    use = place.value
    if not isinstance(use, Use):
        inside = ", ".join(_owned(use)) or None
        raise frame.fault("E0801", f"`{path.span.text}` is no parameter or state", path.span, expected=inside)
    name = place.moved(use.node)
    return Parameter(name, use.dims, place.scopes, place.outer, place.members, place.layers, place.kind)


def _named(frame: Frame, place: _Place, step: s.Name) -> _Place:
    owner = place.value
    value = owner.names.get(step.text) if isinstance(owner, Instance) else None
    if isinstance(owner, Instance) and isinstance(value, Use) and not _owns(owner, value):
        value = None
    if not isinstance(value, Use | Instance | Chain | Absent):
        names = _owned(owner)
        title = f"there is no parameter or state `{step.text}` here"
        hint = did_you_mean(step.text, names)
        raise frame.fault("E0801", title, step.span, hint=hint, expected=", ".join(names) or None)
    if isinstance(value, Instance):
        outer = {**place.outer, **value.boundary}
        return place._replace(value=value, scopes=(value.dims, *place.scopes), outer=outer)
    return place._replace(value=value)


def _owns(owner: Instance, value: Use) -> bool:
    return any(one.path == value.node for one in (*owner.parameters, *owner.states))


def _owned(value: Value) -> list[str]:
    if isinstance(value, Chain):
        return _owned(value.templates[0])
    if not isinstance(value, Instance):
        return []
    return [
        name
        for name, part in value.names.items()
        if isinstance(part, Instance | Chain) or (isinstance(part, Use) and _owns(value, part))
    ]


def _layers(frame: Frame, place: _Place, step: s.Name) -> Iterator[_Place]:
    """Every layer of a chain that was given no index; anything else as it is."""
    chain = place.value
    if not isinstance(chain, Chain):
        yield place._replace(bank=chain.bank) if isinstance(chain, Instance) and chain.bank != place.bank else place
        return
    for index in range(len(chain.kinds)):
        frame.context.spend(frame, step.span)
        layer = _layer(place, chain, index)
        yield layer._replace(layers={**layer.layers, chain.dim: index})


def _layer(place: _Place, chain: Chain, index: int) -> _Place:
    made = chain.templates[chain.kinds[index]]
    return place._replace(
        value=made, scopes=(made.dims, *place.scopes), template=made.path,
        real=f"{place.moved(chain.path)}.{index}", bank=made.bank, outer={**place.outer, **made.boundary},
        kind=(*place.kind, id(made)),
    )  # fmt: skip


def _indexed(frame: Frame, place: _Place, step: s.WeightIndex, every: Mapping[str, int]) -> _Place:
    index, value = d.size(frame, step.dim), place.value
    if index is None:  # made of a dim that only data gives a size
        raise frame.fault(
            "E0801", f"`{step.span.text}` is no number here", step.span, "an index is a number or a loop's"
        )
    if isinstance(value, Chain):
        if every and d.names_in(step.dim) & every.keys():
            raise Irregular
        _within(frame, step, index, len(value.kinds), value.dim)
        return _layer(place, value, index)
    own = value.bank[len(place.bank) :] if isinstance(value, Instance) else ()
    if not isinstance(value, Instance) or len(own) != 1:
        raise frame.fault("E0801", "only a chain or a bank has an index", step.span)
    assert own[0].size is not None, "a bank's size is known"
    _within(frame, step, index, own[0].size, own[0])
    if every and d.names_in(step.dim) & every.keys():
        whole = isinstance(step.dim, s.DimRef) and every[step.dim.name] == own[0].size
        if not whole or own[0] in place.members:
            raise Irregular
        return place._replace(bank=value.bank, members={**place.members, own[0]: None})
    return place._replace(bank=value.bank, members={**place.members, own[0]: index})


def _within(frame: Frame, step: s.WeightIndex, index: int, count: int, dim: Dim) -> None:
    if not 0 <= index < count:
        raise frame.fault("E0801", f"there is no {index} of {dim} = {count}", step.span, "counted from 0")
