"""A recipe of tiny sizes: what is verified must run many times in numpy, on every device of a mesh.

In: a recipe and the mesh it is to be verified on. Out: the same recipe with smaller dims, as far as the model still
means something: dims are halved together, so that quotients stay, down to sizes that every axis can still cut; an odd
size stays odd. Several ways are tried, and the first whose model can be made is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from ...compiler.base.diagnostic import SpecError
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.loss import elaborate_loss
from ...compiler.elaborate.models import BATCH, Request, make_model
from ...compiler.elaborate.plan import PIPE
from ...compiler.elaborate.recipe import Plan, Recipe, Rows
from ...compiler.ir.graph import Graph
from ...compiler.ops.shapes import elements
from ...compiler.schedule.forms import parse_form

LARGEST = 400_000  # elements of all of a loss's values: a few seconds for every form
_HEADS = 64  # a dim as long as this or shorter counts things: heads, experts
_PARTS, _ROWS, _LAYERS = 2, 2, 2


def elements_of(graph: Graph) -> int:
    """Of all values together."""
    return sum(elements(out.dims) for node in graph for out in node.outs)


def loss_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The loss of the recipe's first turn."""
    return elaborate_loss(spec, recipe.turns[0])[0]


def shrunk(spec: Spec, recipe: Recipe, widest: int) -> tuple[Recipe, str]:
    """The recipe made small and what was changed, where it is not small already; as it is where nothing smaller fits.

    widest: devices along the mesh's longest axis; no dim is made shorter.
    """
    few, layers = replace(_fewer_rows(recipe, widest), plan=_plan(recipe)), max(_LAYERS, _chunks(recipe))
    for dims in ({}, *_ways(_sizes(spec, recipe), widest, layers)):
        tried = recipe if not dims else replace(few, dims={**recipe.dims, **dims}, rows=_rows(few, dims))
        with suppress(SpecError):
            if elements_of(loss_graph(spec, tried)) <= LARGEST:
                changed = {BATCH: tried.batch, **dims} if dims else {}
                return tried, ", ".join(f"{name} = {size}" for name, size in changed.items())
    return recipe, ""


def _sizes(spec: Spec, recipe: Recipe) -> dict[str, tuple[int, bool]]:
    """The dims that a recipe may change, each with its size and whether it only counts (layers)."""
    ref = recipe.model
    facts = make_model(spec, ref.name, Request(ref.size, {**recipe.dims, BATCH: 1}, dict(ref.options))).facts
    counts = {chain.dim for chain in facts.chains}
    found: dict[str, tuple[int, bool]] = {}
    for name, dim in facts.dims.items():
        if dim.size is None or name == BATCH:
            continue
        with suppress(SpecError):  # the model fixes it itself
            make_model(spec, ref.name, Request(ref.size, {**recipe.dims, name: dim.size}, dict(ref.options)))
            found[name] = (dim.size, name in counts)
    return found


def _rows(recipe: Recipe, dims: Mapping[str, int]) -> Rows | None:
    return recipe.rows and replace(recipe.rows, length=dims.get(recipe.rows.dim, recipe.rows.length))


def _fewer_rows(recipe: Recipe, widest: int) -> Recipe:
    parts = min(recipe.microbatches, _PARTS)
    return replace(recipe, microbatches=parts, batch=min(recipe.batch, parts * max(_ROWS, widest)))


def _chunks(recipe: Recipe) -> int:
    """Of a pipeline: layers for each of them."""
    plan = recipe.plan or Plan()
    return len(parse_form(plan.schedule).placement(dict(plan.mesh).get(PIPE, 1)))


def _plan(recipe: Recipe) -> Plan | None:
    """The plan for fewer layers, which are placed anew, and shorter rows, in as many slices."""
    if recipe.plan is None:
        return None
    form = parse_form(recipe.plan.schedule)
    return replace(recipe.plan, balance=(), schedule=str(replace(form, slices=(form.count,) if form.slices else ())))


def _ways(sizes: Mapping[str, tuple[int, bool]], widest: int, layers: int) -> Iterator[dict[str, int]]:
    """Smaller sizes, the more likely to fit the earlier: halved, or powers of two, each with more room."""
    for room in (1, 2, 4):
        least = max(4, widest) * room
        for cut in (_halved, min):
            yield {
                name: min(size, layers) if counts else cut(size, least if size <= _HEADS else 4 * least)
                for name, (size, counts) in sizes.items()
            }


def _halved(size: int, least: int) -> int:
    while size % 2 == 0 and size // 2 >= least:
        size //= 2
    return size if size <= 4 * least else least + 1
