"""The planner against brute force: no plan of the space is faster than the one that it finds, and no bound is above a
price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.plans import DEVICES, MACHINES, MODELS, assert_none_is_faster
from oracles.plans import ready as small
from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.cost.cluster import Cluster, Level, Link
from partita.compiler.cost.roofline import Machine
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import DType
from partita.compiler.plan.crowd import Sort, crowded
from partita.compiler.plan.flights import Flight, Moment
from partita.compiler.plan.plan import Planner, planner
from partita.compiler.plan.stages import Load, cut, peak, stage_of

LONG = settings().max_examples > 1000  # of `make fuzz`
RATES = {DType.F32: 2e13, DType.BF16: 3e14}
FAST, SLOW = Link(3e11, 3e-6), Link(2.5e10, 8e-6)
# A node with room, devices that hold little, and two slow links between devices of little bandwidth.
CHIPS = {
    "node": (Machine(RATES, 2e13, 1.5e12, 4e-6), 1 << 30, FAST),
    "tight": (Machine(RATES, 2e13, 1.5e12, 1e-6), 150_000, FAST),
    "slow": (Machine(RATES, 2e12, 2e11, 1e-6), 1 << 28, SLOW),
}
BLOCKS = {
    "mlp": "block B[D] : x[D] -> [D] { up : Linear[D, D]\n return x + gelu(up(x)) }",
    "gated": "block B[D] : x[D] -> [D] { a : Linear[D, D]\n b : Linear[D, D]\n return x + silu(a(x)) * b(x) }",
    "norm": "block B[D] : x[D] -> [D] { n : LayerNorm[D]\n up : Linear[D, D]\n return x + gelu(up(n(x))) }",
    "attention": "block B[D] : x[T, D] -> [T, D] { a : Attention[D, 2](mask = causal)\n return x + a(x) }",
}
SPEC = """
use std
{block}
model M : tokens[T] in V -> logits[T, V] {{
  sizes {{
        D  V  L
    s  {D}  64  {L}
  }}
  embed : Embedding[V, D]
  layers : chain L of B[D]
  head : Linear[D, V]
  return head(layers(embed(tokens)))
}}
train r {{
  model = M.s
  dims  = [T = 16]
  data {{ read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }}
  loss = mean(cross_entropy[V](logits, target))
  batch = {batch}
  steps = 1
  optimizer = adamw()
  lr = 0.1
}}
"""


def cluster(machine: str, devices: int) -> Cluster:
    figures, memory, link = CHIPS[machine]
    inner = min(devices, 4)
    levels = (Level(inner, link),) + ((Level(devices // inner, SLOW),) if devices > inner else ())
    return Cluster(figures, memory, levels)


@cache
def ready(model: str, layers: int, batch: int, machine: str, devices: int) -> Planner:
    dims = "T, D" if model == "attention" else "D"
    text = SPEC.format(block=BLOCKS[model], D=16, L=layers, dims=dims.rsplit(", ", maxsplit=1)[-1], batch=batch)
    spec, found = load(Source("<test>", text))
    assert spec is not None, found
    recipe = load_recipe(spec, "r", [])

    def step(one: Recipe) -> Graph:
        return pipeline.step_graph(spec, one)

    return planner(spec, recipe, (step,), cluster(machine, devices))


CASES = [("mlp", 3, 4, "tight", 4), ("gated", 2, 4, "slow", 2)]
MORE = [("attention", 2, 2, "node", 4), ("norm", 3, 2, "slow", 8)]


@pytest.mark.parametrize("case", [*CASES, *(MORE if LONG else [])], ids=lambda case: "-".join(map(str, case)))
def test_no_plan_is_faster_than_the_one_that_is_found(case: tuple[str, int, int, str, int]) -> None:
    assert_none_is_faster(ready(*case))


GRID = [(*case, 4, None) for case in product(MODELS, MACHINES, DEVICES)]
DIAGONAL = [
    ("vit", "laptop2", 2, 1, None),
    ("mixtral", "dgx_a100", 2, 2, None),
    ("gpt2", "p3_16xlarge", 2, 1, 45 << 20),
]


@pytest.mark.parametrize("case", GRID if LONG else DIAGONAL, ids=lambda case: "-".join(map(str, case)))
def test_nor_for_small_models_on_real_machines(case: tuple[str, str, int, int, int | None]) -> None:
    assert_none_is_faster(small(*case))


LOADS = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 20).map(float), min_size=n, max_size=n),
        *(st.lists(st.integers(0, 9), min_size=n, max_size=n) for _ in range(6)),
    )
)
COUNTS = st.tuples(st.integers(0, 2))
MOMENTS = st.lists(st.builds(Moment, st.just(0), COUNTS, COUNTS, st.booleans()), min_size=1, max_size=3)
FLIGHTS = st.builds(Flight, MOMENTS, COUNTS, COUNTS)


@given(LOADS, st.integers(1, 4), st.lists(FLIGHTS, min_size=4, max_size=4), st.integers(5, 60), st.integers(0, 4))
def test_stages_are_cut_as_well_as_they_can_be(
    columns: tuple[list[float], list[int], list[int], list[int], list[int], list[int], list[int]],
    stages: int,
    flights: list[Flight],
    limit: int,
    crossing: int,
) -> None:
    load, count = Load(*columns, crossing=[crossing] * len(columns[0])), len(columns[0])
    flights[0] = flights[0]._replace(before=(0,))  # nothing is sent to the first

    def ways(begin: int, stage: int) -> Iterator[float]:
        last = stage == stages - 1
        for end in range(count if last else begin + 1, count + 1):
            if begin < end and peak([stage_of(load, begin, end)], flights[stage], 0) <= limit:
                here = sum(load.seconds[begin:end])
                yield from ([here] if last else (max(here, rest) for rest in ways(end, stage + 1)))

    found, best = cut(load, stages, flights.__getitem__, limit), min(ways(0, 0), default=None)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        cuts = list(zip((0, *found[:-1]), found, strict=True))
        assert max(sum(load.seconds[a:b]) for a, b in cuts) == pytest.approx(best, rel=1e-6)
        assert all(peak([stage_of(load, a, b)], f, 0) <= limit for (a, b), f in zip(cuts, flights, strict=False))


SORTS = st.tuples(st.integers(1, 5), *(st.integers(0, 6) for _ in range(5))).map(lambda one: Sort(*one))


@given(
    st.lists(SORTS, min_size=1, max_size=2), st.lists(FLIGHTS, min_size=4, max_size=4), st.integers(5, 60), st.data()
)
def test_what_is_too_crowded_has_no_cut(
    sorts: list[Sort], flights: list[Flight], limit: int, data: st.DataObject
) -> None:
    chain = data.draw(st.permutations([one for one in sorts for _ in range(one.often)]))
    stages = data.draw(st.integers(1, min(4, len(chain))))
    columns = [[getattr(one, name) for one in chain] for name in ("static", "kept", "momentary", "held", "late")]
    static, kept, momentary, held, late = columns
    load = Load([1.0] * len(chain), static, kept, momentary, [0] * len(chain), held, late)
    if crowded(sorts, flights.__getitem__, stages, limit):
        assert cut(load, stages, flights.__getitem__, limit) is None


def test_what_is_pinned_is_kept() -> None:
    found = ready("mlp", 3, 4, "tight", 4)
    *_, free = found.search()
    for pins in ({"tensor": 2}, {"pipe": 2}, {"microbatches": 2}, {"zero": 3, "data": 2}, {"recompute": "full"}):
        *_, held = found.search(pins)
        one = held.best[0]
        said = {**dict(one.choice.mesh.axes), "microbatches": one.choice.microbatches, "zero": one.choice.zero}
        assert {**said, "recompute": one.choice.unit.recompute}.items() >= pins.items()
        assert one.seconds >= free.best[0].seconds * (1 - 1e-9)


def test_a_spec_s_own_plan_is_kept() -> None:
    found = ready("gated", 2, 4, "slow", 2)
    pins = replace(found.space.pins, axes={"pipe": 2}, closed=True)
    *_, last = replace(found, space=replace(found.space, pins=pins)).search()
    assert {str(one.choice.mesh) for one in last.best} == {"pipe 2"}


def test_there_is_an_answer_at_once_and_it_only_gets_better() -> None:
    """Somebody who waits no longer has a plan that fits: found at the first mesh, long before the best is proven."""
    found = ready("mlp", 3, 4, "tight", 4)
    told = list(found.search())
    best = [one.best[0].seconds for one in told if one.best]
    assert told[0].best
    assert told[0].priced < told[-1].priced
    assert best == sorted(best, reverse=True)
    assert all(one.peak_bytes <= found.limit for progress in told for one in progress.best)
    assert len({one.choice for one in told[-1].best}) == len(told[-1].best)
