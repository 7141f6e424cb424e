"""A model with few layers that stands for one with many: what a plan is priced on.

In: a recipe. Out: the same recipe with as few layers of each chain as have every kind of layer, and for each layer of
the whole model the one that stands for it. Layers are of one kind where their nodes are alike but for the layer's
number. A chain whose length is no dim of its own, or whose layers depend on it otherwise, keeps all of its layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.diagnostic import SpecError
from ..elaborate.load import Spec
from ..elaborate.loss import elaborate_loss
from ..elaborate.recipe import Recipe
from ..ir.graph import Graph
from ..ir.types import Dim, Node

LEAST = 2  # layers of a chain: one that begins it and one that does not
Kind = frozenset[tuple[tuple[object, ...], int]]


@dataclass(frozen=True, slots=True)
class Thin:
    """recipe: with few layers. stands: for each chain, for each of its layers the thin one's number."""

    recipe: Recipe
    stands: Mapping[str, tuple[int, ...]]

    def whole(self, names: Sequence[str]) -> list[str]:
        """The whole model's blocks in order, each by the name of the thin one that stands for it."""
        found: list[str] = []
        done: set[str] = set()
        for name in names:
            chain, dot, number = name.rpartition(".")
            if not dot or not number.isdecimal() or chain not in self.stands:
                found.append(name)
            elif chain not in done:
                done.add(chain)
                found += [f"{chain}.{layer}" for layer in self.stands[chain]]
        return found


def thin(spec: Spec, recipe: Recipe) -> Thin:
    """The recipe with few layers. Raises SpecError."""
    rows = replace(recipe, batch=recipe.rows_per_microbatch, microbatches=1)
    loss, facts = elaborate_loss(spec, rows)
    kinds = layer_kinds(loss)
    lengths = {chain.path: (chain.dim, chain.count) for chain in facts.chains if chain.path in kinds}
    count = max((_prefix(kinds[path]) for path in lengths), default=LEAST)
    while lengths and count < max(length for _, length in lengths.values()):
        dims = {dim: min(count, length) for dim, length in lengths.values()}
        found = _thinned(spec, rows, dims, kinds)
        if found is not None:
            return Thin(replace(recipe, dims={**recipe.dims, **dims}), found)
        count *= 2
    return Thin(recipe, {path: tuple(range(len(layers))) for path, layers in kinds.items()})


def _thinned(
    spec: Spec, recipe: Recipe, dims: Mapping[str, int], whole: Mapping[str, Sequence[Kind]]
) -> dict[str, tuple[int, ...]] | None:
    """For each chain the thin layers that stand for its own; None where these dims do not give the same kinds."""
    try:
        loss, _ = elaborate_loss(spec, replace(recipe, dims={**recipe.dims, **dims}))
    except SpecError:
        return None
    few = layer_kinds(loss)
    if few.keys() != whole.keys():
        return None
    found = {path: _standing(layers, few[path]) for path, layers in whole.items()}
    return {path: one for path, one in found.items() if one is not None} if None not in found.values() else None


def _standing(whole: Sequence[Kind], few: Sequence[Kind]) -> tuple[int, ...] | None:
    """For each layer one of its kind: the first for the first, the last for the last, else what lies between."""
    found: list[int] = []
    for at, kind in enumerate(whole):
        same = [number for number, other in enumerate(few) if other == kind]
        if not same:
            return None
        inner = [number for number in same if 0 < number < len(few) - 1] or same
        edge = 0 if at == 0 else len(few) - 1 if at == len(whole) - 1 else -1
        found.append(edge if edge in same else inner[at % len(inner)])
    return tuple(found)


def _prefix(kinds: Sequence[Kind]) -> int:
    """How many layers from the first on have every kind."""
    seen = set(kinds)
    return max(LEAST, next(n for n in range(1, len(kinds) + 1) if set(kinds[:n]) == seen))


def layer_kinds(loss: Graph) -> dict[str, list[Kind]]:
    """For each chain, the kind of each of its layers."""
    found: dict[str, dict[int, Counter[tuple[object, ...]]]] = {}
    for node in loss:
        if node.layer is not None:
            chain = found.setdefault(node.layer.chain, {})
            chain.setdefault(node.layer.index, Counter())[tuple(_facts(node))] += 1
    return {path: [frozenset(layers[at].items()) for at in sorted(layers)] for path, layers in found.items()}


def _facts(node: Node) -> Iterator[object]:
    """What a node is, but for names. Sizes of the chain itself differ between the thin and the whole model, so how a
    parameter begins is left out: it costs nothing."""
    yield node.op
    for out in node.outs:
        yield out.dtype, tuple(_size(dim) for dim in out.dims)
    for use in node.uses:
        yield tuple(_size(dim) for dim in use.dims)
    for name, value in node.attrs.items():
        if name not in ("init", "dims") and isinstance(value, bool | int | float):
            yield name, value


def _size(dim: Dim) -> int:
    return dim.size or 0
