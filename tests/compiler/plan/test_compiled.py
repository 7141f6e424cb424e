"""What the planner writes compiles as it is written, and takes what it was said to: bytes of the lowered programs,
seconds of the layout that is solved for the whole mesh at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate, pairwise

import pytest
from hypothesis import settings
from oracles.plans import opened, ready
from partita.compiler import pipeline
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.layout import PIPE, Mesh
from partita.compiler.ops.shapes import elements
from partita.compiler.partition.price import Prices
from partita.compiler.passes.localize import localize
from partita.compiler.plan.parts import COMPUTED, seconds_of
from partita.compiler.plan.plan import Planner
from partita.compiler.plan.record import keys
from partita.compiler.schedule.actions import Kind
from partita.compiler.schedule.chunks import chunked, names_of
from partita.compiler.schedule.forms import computing, parse_form
from partita.compiler.schedule.simulate import Price, makespan

LONG = settings().max_examples > 1000  # of `make fuzz`
UNDER, OVER = 0.95, 1.12  # times what the lowered programs hold
NEAR = 0.07  # of the seconds

Pins = Mapping[str, int | str]
CASES: list[tuple[str, int, int, Pins, int | None]] = [  # the last: MiB of a device
    ("mixtral", 2, 2, {"expert": 2, "microbatches": 1, "recompute": "none"}, None),
    ("gpt2", 2, 1, {"pipe": 2, "schedule": "zero_bubble_v", "offload": "optimizer", "recompute": "budget"}, 45),
]
SLICED = ("gpt2", 2, 1, {"pipe": 2, "schedule": "token_slices(2)", "recompute": "none"}, None)
MORE: list[tuple[str, int, int, Pins, int | None]] = [
    ("gpt2", 2, 2, {"pipe": 2, "schedule": "token_slices(192, 160, 160)", "recompute": "full"}, None),
    ("gpt2", 2, 1, {"tensor": 2, "recompute": "budget"}, 45),
    ("gpt2", 2, 4, {"data": 2, "zero": 2, "microbatches": 2, "recompute": "full", "offload": "activations"}, None),
    ("gpt2", 2, 4, {"tensor": 2, "microbatches": 2, "offload": "[optimizer, activations]"}, None),
    ("gpt2", 2, 2, {"pipe": 2, "schedule": "1f1b", "offload": "optimizer", "recompute": "full"}, None),
    ("gpt2", 2, 2, {"tensor": 2}, None),
    ("gpt2", 2, 2, {"tensor": 2, "offload": "optimizer"}, None),
    ("gpt2", 4, 2, {"tensor": 2, "context": 2}, None),
    ("gpt2", 4, 4, {"data": 4, "zero": 2, "offload": "optimizer"}, None),
    ("mixtral", 4, 4, {"data": 2, "expert": 2}, None),
]


@pytest.mark.parametrize(("model", "devices", "batch", "pins", "mib"), [*CASES, SLICED, *(MORE if LONG else [])])
def test_a_plan_is_what_it_was_said_to_be(model: str, devices: int, batch: int, pins: Pins, mib: int | None) -> None:
    found = ready(model, "dgx_a100", devices, batch, mib and mib << 20)
    *_, last = found.search(pins)
    best = last.best[0]
    spec, recipe, _ = opened(model, batch)
    within = [] if mib is None else [f"plan.budget={mib} MiB"]  # what is compiled is held to it
    written = load_recipe(spec, recipe.name, [*(f"plan.{key}={value}" for key, value in keys(best, recipe)), *within])
    build = pipeline.compile_recipe(spec, written, None, device="cuda", cluster=found.cluster)
    assert UNDER <= best.peak_bytes / build.predictions["peak_bytes"] <= OVER
    if best.choice.sliced:
        assert best.seconds == pytest.approx(sliced_s(found, spec, written), rel=NEAR)
    if best.choice.pipe == 1 and not best.choice.offload:
        assert best.seconds == pytest.approx(laid_out_s(found, spec, written), rel=NEAR)


def laid_out_s(found: Planner, spec: Spec, written: Recipe) -> float:
    """Seconds of a step that is laid out on the whole mesh."""
    assert written.plan is not None, "it was written by the planner"
    decision = pipeline.partitioned_step(spec, written, written.plan, cluster=found.cluster, device="cuda")
    local = localize(decision.graph, decision.mesh, (0,) * len(decision.mesh.axes))
    prices = Prices(decision.mesh, found.cluster)
    return sum(seconds_of(node, prices) * (written.microbatches if node.phase in COMPUTED else 1) for node in local)


def sliced_s(found: Planner, spec: Spec, written: Recipe) -> float:
    """Seconds of the schedule, each part's those of its own nodes of the graph with all slices, beside what the price
    adds to them: messages, and what is once a step."""
    assert written.plan is not None, "it was written by the planner"
    plan, form = written.plan, parse_form(written.plan.schedule)
    step = pipeline.partitioned_step(spec, written, plan, cluster=found.cluster, device="cuda").graph
    ends = list(accumulate(plan.balance, initial=0))
    stages = len(plan.balance)
    cut = chunked(step, names_of(step, list(pairwise(ends))), range(stages), form.count)
    prices, link = Prices(Mesh(()), found.cluster), found.cluster.link(Mesh(plan.mesh), PIPE)
    seconds, once = defaultdict[tuple[Kind, int, int], float](float), 0.0
    for node in step:
        if node.id in cut.place:
            seconds[cut.place[node.id]] += seconds_of(node, prices)
        elif node.phase not in COMPUTED:
            once += seconds_of(node, prices)
    sent = sum(elements(step[name].outs[at].dims) * 4 for name, at in cut.activations[0]) / form.count

    def price(chunk: int, microbatch: int, part: int) -> Price:
        forward, input_, weight = (seconds[kind, chunk, part] for kind in (Kind.FORWARD, Kind.INPUT, Kind.WEIGHT))
        transfer = sent / link.bandwidth_bytes_per_s
        return Price(forward, input_, weight, transfer, link.latency_s, reduce=once / stages)

    return float(makespan(computing(form, stages, written.microbatches), price))
