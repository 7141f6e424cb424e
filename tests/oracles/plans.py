"""Small models on small clusters, and every plan of a space with its price: what the planner is held to.

In: names of a model and of a machine, devices. Out: a `Planner`; its choices, each priced by the planner's own prices,
with no bound, no order and nothing left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from partita.compiler.clusters import cluster_named
from partita.compiler.cost.cluster import Cluster, Level
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.plan.plan import Planner, planner
from partita.compiler.plan.priced import Priced
from partita.compiler.plan.search import Family, Progress, Search
from partita.compiler.plan.space import Choice, Group
from partita.compiler.steps import Steps
from samples.spec_texts import text_spec

SPEC = """use models.{file}

train r {{
  model = {model}
  dims  = [{dims}]
  data {{ {data} }}
  loss  = mean(cross_entropy[{classes}](logits, target))
  batch = {batch}
  steps = 1
  optimizer = adamw()
  lr = 0.1
}}
"""
Step = Callable[[Recipe], Graph]
_TEXT = 'read = corpus("python-docs"), rows = chunk(T), target = next(tokens)'


@dataclass(frozen=True)
class Small:
    """A model of specs/models in sizes of its own."""

    file: str
    model: str
    dims: str
    data: str = _TEXT
    classes: str = "V"

    def text(self, batch: int) -> str:
        """A spec with a recipe for it."""
        facts = {"file": self.file, "model": self.model, "dims": self.dims, "data": self.data, "classes": self.classes}
        return SPEC.format(batch=batch, **facts)


MODELS: Mapping[str, Small] = {
    "gpt2": Small("gpt2", "GPT2(drop = 0).small", "L = 4, D = 256, H = 8, F = 1024, V = 4096, N = 512, T = 512"),
    "llama": Small("llama", "Llama.7B", "L = 6, D = 512, H = 8, G = 4, F = 1408, V = 8192, T = 1024"),
    "palm": Small("palm", "PaLM.8B", "L = 4, D = 512, H = 8, K = 64, F = 2048, V = 4096, T = 256"),
    "mixtral": Small("mixtral", "Mixtral.8x7B", "L = 2, D = 256, H = 8, G = 2, F = 512, E = 4, V = 2048, T = 256"),
    "vit": Small(
        "vit", "ViT.base", "L = 2, D = 128, H = 4, F = 512, N = 16, C = 3, Y = 32, X = 32, P = 8, Q = 8",
        'image = tensors("a.safetensors"), target = tensors("a.safetensors", below = N)', "N",
    ),
    "mamba": Small("mamba", "Mamba.130m", "L = 3, D = 128, I = 256, N = 8, R = 8, V = 2048, T = 64"),
}  # fmt: skip
MACHINES = ("laptop2", "p3_16xlarge", "dgx_a100")
DEVICES = (2, 4, 8)


def cluster(machine: str, devices: int) -> Cluster:
    """So many devices of a record: of two levels, half of them on each of two nodes, where there are four or more."""
    known = cluster_named(machine)
    inner, *outer = known.levels
    if outer and machine == "p3_16xlarge" and devices >= 4:
        return replace(known, levels=(Level(devices // 2, inner.link), Level(2, outer[0].link)))
    return replace(known, levels=(Level(devices, inner.link),))


@cache
def opened(model: str, batch: int) -> tuple[Spec, Recipe, Sequence[Step]]:
    """A small model's recipe, and its steps, which are made once for all machines."""
    spec = text_spec(MODELS[model].text(batch))
    steps = Steps(spec, "cuda")
    return spec, load_recipe(spec, "r", []), (_once(steps.fused), _once(steps.unfused))


def ready(model: str, machine: str, devices: int, batch: int = 4, limit: int | None = None) -> Planner:
    """The planner of a small model. limit: bytes of a device, where it is not the machine's own."""
    spec, recipe, steps = opened(model, batch)
    found = planner(spec, recipe, steps, cluster(machine, devices))
    return found if limit is None else replace(found, limit=limit)


def _once(made: Step) -> Step:
    known: dict[object, Graph] = {}

    def step(recipe: Recipe) -> Graph:
        assert recipe.plan is not None, "the planner says what is computed again"
        key = (recipe.batch, recipe.microbatches, recipe.plan.recompute, recipe.plan.schedule)
        if key not in known:
            known[key] = made(recipe)
        return known[key]

    return step


def every(found: Planner) -> Iterator[tuple[Choice, Priced | None]]:
    """Every plan of the space with its price."""
    search = Search(found.space, found.layouts, found.limit, 0.0)
    for inner in found.space.inners():
        for policy in found.space.policies():
            for group in found.space.groups(inner, policy):
                for choice in found.space.choices(group):
                    yield choice, search.pricing(group.unit).price(choice)


def assert_none_is_faster(found: Planner) -> Progress:
    """The search finds the fastest of all plans, what it tells of fits, and no bound is above a price."""
    *_, last = found.search()
    search = Search(found.space, found.layouts, found.limit, 0.0)
    prices: list[float] = []
    for choice, priced in every(found):
        if priced is not None:
            prices.append(priced.seconds)
            over = {
                name: bound for name, bound in bounds(search, choice).items() if bound > priced.seconds * (1 + 1e-9)
            }
            assert not over, (choice, priced.seconds, over)
    assert last.over
    assert abs(last.best[0].seconds / min(prices) - 1) < 1e-9, (last.best[0], min(prices))
    assert [one.seconds for one in last.best] == sorted(one.seconds for one in last.best)
    assert all(one.peak_bytes <= found.limit for one in last.best)
    return last


def bounds(search: Search, choice: Choice) -> Mapping[str, float]:
    """All that the search says of a plan before it is priced."""
    pricing = search.pricing(choice.unit)
    assert pricing.may_fit(choice), choice
    group = Group(choice.unit, choice.data, choice.pipe, choice.microbatches, choice.sliced)
    found = {
        "plan": pricing.bound_s(choice),
        "placed": pricing.placed_bound_s(choice) or 0.0,
        "group": search.group_bound_s(group, pricing.microbatch_s),
        "unsolved": search.unsolved_bound_s(group),
    }
    if not search.layouts.each:
        found["family"] = search.family_bound_s(Family(choice.unit.inner, choice.unit.recompute))
    return found
