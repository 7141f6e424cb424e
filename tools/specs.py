"""A spec opened for the tools: its model's graph with every size bound, and its recipe's step where it has one.

In: a path, a row of sizes, `--set` pairs. Out: graphs. A spec with one `train` record is taken at that record's word;
else free dims get a default, which is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..compiler import pipeline
from ..compiler.base.diagnostic import SpecError, did_you_mean
from ..compiler.base.span import Source
from ..compiler.elaborate.load import Spec, load
from ..compiler.elaborate.models import BATCH, ModelFacts, elaborate_model
from ..compiler.elaborate.recipe import Recipe
from ..compiler.elaborate.recipes import load_recipe
from ..compiler.ir.graph import Graph
from ..compiler.language.syntax import Derived, Model, Record
from ..compiler.passes import run_passes
from ..compiler.passes.offsets import Offsets
from .arguments import read_text
from .fault import CommandFault
from .probe import probe_step

PLANNED = "plan.for"  # the setting that says whose plan it is
DEFAULT_LENGTH = 1024  # of a free axis, where the model does not say how long it can be
CONTEXT = "N"  # what the models of specs/ call the longest row that their table of positions allows


@dataclass(frozen=True, slots=True)
class Bound:
    """A model's forward graph, all sizes bound. `assumed` says which sizes nobody asked for."""

    spec: Spec
    model: Graph
    facts: ModelFacts
    assumed: tuple[str, ...]
    recipe: Recipe | None


def open_spec(text: str | Source) -> Spec:
    """The spec at a path (`-`: standard input) or in a text. Raises SpecError with everything that cannot be read."""
    spec, diagnostics = load(read_text(text) if isinstance(text, str) else text)
    if spec is None:
        raise SpecError(diagnostics)
    return spec


def bind(
    path: str | Source,
    sets: Iterable[tuple[str, str]],
    size: str | None,
    name: str | None = None,
    recipe_name: str | None = None,
    update: str | None = None,
) -> Bound:
    """The forward graph of a spec's model: as its recipe trains it, where it has one and no other model is named.

    Of several updates the recipe is then the one that is named, or the first, which is told.
    """
    spec = open_spec(path)
    recipe = None if name and recipe_name is None else recipe_of(spec, sets, size, recipe_name)
    if update is not None and (recipe is None or not recipe.updates):
        raise CommandFault(f"there is no update `{update}`", "updates stand in a recipe: update NAME { … }")
    if recipe is not None:
        recipe, told = turn_of(recipe, update)
        if name and name != recipe.model.name:
            raise CommandFault(f"recipe `{recipe.name}` trains {recipe.model.name}, not {name}")
        dims = {**recipe.dims, BATCH: recipe.rows_per_microbatch}
        ref = recipe.model
        graph, facts = elaborate_model(
            spec,
            ref.name,
            size=size or ref.size,
            dims=dims,
            options=ref.options,
            training=True,
            dtype=recipe.precision.params,
        )
        return Bound(spec, graph, facts, told, recipe)
    dims, choices = chosen(sets)
    _, facts = elaborate_model(spec, name, size=size, dims=dims, options=choices)
    defaults = {dim: default_size(dim, facts) for dim, value in facts.dims.items() if value.size is None}
    graph, facts = elaborate_model(spec, name, size=size, dims={**dims, **defaults}, options=choices)
    assumed = (*_first_of_several(spec, name), *(f"{dim} = {value}" for dim, value in defaults.items()))
    return Bound(spec, graph, facts, assumed, None)


def turn_of(recipe: Recipe, update: str | None) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of one of its updates, and what is to be said where nobody named it."""
    turns = {turn.update: turn for turn in recipe.turns if turn.update}
    if not turns:
        return recipe, ()
    if update is not None and update not in turns:
        hint = did_you_mean(update, turns) or f"there are {', '.join(turns)}"
        raise CommandFault(f"the recipe `{recipe.name}` has no update `{update}`", hint)
    first, *others = turns
    told = (f"update = {first} (--update {' or '.join(others)})",) if update is None and others else ()
    return turns[update or first], told


def _first_of_several(spec: Spec, name: str | None) -> tuple[str, ...]:
    """The model that is taken where none was named and the spec has several."""
    own = [d.name.text for d in spec.main.file.declarations if isinstance(d, Model | Derived)]
    return (f"model = {own[0]} (--model {' or '.join(own[1:])})",) if name is None and len(own) > 1 else ()


def step_of(bound: Bound) -> Graph:
    """The step that a recipe asks for, or without a recipe a stand-in for figures and pictures."""
    return pipeline.step_graph(bound.spec, bound.recipe) if bound.recipe is not None else probe_step(bound.model)


def drawn_model(bound: Bound) -> Graph:
    """The model as it is drawn: as the spec says it, with the starts of dims known, because nobody cuts them."""
    return run_passes(bound.model, [Offsets()])


def recipe_of(spec: Spec, sets: Iterable[tuple[str, str]], size: str | None, name: str | None = None) -> Recipe | None:
    """The recipe of that name, or the only one of the spec's own file, for a row of sizes; None if it has none.

    Of several it is the one that a plan is for. Raises CommandFault where that is another, or nobody says which.
    """
    sets = tuple(sets)
    planned = next((value for path, value in sets if path == PLANNED), None)
    own = [d.name.text for d in spec.main.file.declarations if isinstance(d, Record) and d.kind.text == "train"]
    if name is None and not own:
        return None
    name = name or (planned if planned in own else None)
    if name is None and len(own) > 1:
        raise CommandFault(f"{spec.main.source.path} has {len(own)} recipes", f"--recipe {' or --recipe '.join(own)}")
    name = name or own[0]
    if planned not in (None, name):
        raise CommandFault(f"the plan is for the recipe `{planned}`, not for `{name}`", "without `for` it is for any")
    recipe = load_recipe(spec, name, [f"{path}={value}" for path, value in sets if path != PLANNED])
    return pipeline.with_size(recipe, size)


def chosen(sets: Iterable[tuple[str, str]]) -> tuple[dict[str, int], dict[str, object]]:
    """Dims (`--set dims.T=256`) and options (`--set drop=0`) of a model without a recipe."""
    dims: dict[str, int] = {}
    choices: dict[str, object] = {}
    for path, text in sets:
        head, dot, name = path.partition(".")
        if head == "dims" and dot:
            if not text.isdecimal() or not 0 < int(text) < 1 << 40:
                raise CommandFault(f"`--set {path}={text}`: a dim's size is a whole number", f"--set {path}=256")
            dims[name] = int(text)
        elif dot:
            raise CommandFault(f"`--set {path}=…`: the spec has no recipe", "a model has options and dims (dims.T=256)")
        else:
            choices[path] = _literal(text)
    return dims, choices


def _literal(text: str) -> bool | int | float | str | None:
    words: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def default_size(dim: str, facts: ModelFacts) -> int:
    """What a free dim is where nobody says it."""
    if dim == BATCH:
        return 1
    context = facts.dims.get(CONTEXT)
    return context.size if context is not None and context.size is not None else DEFAULT_LENGTH
