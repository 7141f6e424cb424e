"""`partita schedule`: a model on a pipeline: its step's timeline, bubble and memory, before anything runs.

In: a spec, a number of stages and microbatches, a schedule's name, a cluster. Out: which blocks stand where, a row per
device, and as files an SVG, a page or a Chrome trace. Token slices are priced by what they attend to, and the best ones
are told. What is printed is priced, not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..compiler.cost.cluster import H100_NODES, Cluster, Link
from ..compiler.cost.roofline import node_time
from ..compiler.devices import recipe_cluster
from ..compiler.elaborate.plan import PIPE
from ..compiler.elaborate.recipe import Plan, Recipe
from ..compiler.ir.graph import Graph
from ..compiler.ir.layout import Mesh
from ..compiler.passes.inline import Inline
from ..compiler.passes.token_slices import TokenSlices
from ..compiler.pipeline import step_graph
from ..compiler.schedule.actions import Kind, Schedule
from ..compiler.schedule.advice import Pipe, best_slices
from ..compiler.schedule.blocks import blocks_of, chunk_prices, device_bytes
from ..compiler.schedule.forms import TOKEN_SLICES, Form, FormFault, build, parse_form
from ..compiler.schedule.place import Block, Placed, PlaceFault, by_hand, in_flight, place
from ..compiler.schedule.simulate import Price, Prices, Timeline, by_chunk, simulate
from ..compiler.schedule.sliced import SlicedBlocks
from ..compiler.schedule.verify import most_in_flight, verify
from .arguments import add_spec, add_which, sets_of, write_text
from .fault import CommandFault
from .gantt import chrome_trace, html, svg, text
from .machines import add_cluster, cluster_from
from .mesh import MICROBATCHES, add_pipeline, pipeline_of
from .numbers import bytes_text, seconds_text
from .probe import probe_step
from .specs import Bound, bind, step_of

EXAMPLE = "partita schedule specs/models/gpt2.partita --size small --stages 4 --microbatches 8 --schedule zero_bubble"
STAGES = 4  # where neither the command line nor the plan says it
COLUMNS = 96
MOST_BARS = 20_000  # in a picture; a trace holds any number
GIB = 1 << 30
TOKENS = "T"  # the dim that token slices cut, where no recipe says it


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    parser.add_argument("--stages", type=int, metavar="P", help="devices in the pipeline (default: the plan's, else 4)")
    add_pipeline(parser)
    add_cluster(parser)
    parser.add_argument("--memory", type=float, metavar="GIB", help="of each device (default: the cluster's)")
    parser.add_argument("-o", "--out", metavar="FILE", help="also draw the timeline to this .svg or .html")
    parser.add_argument("--trace", metavar="FILE", help="also write a Chrome trace, which Perfetto opens")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that is printed."""

    blocks: Sequence[Block]
    placed: Placed
    timeline: Timeline
    memory_bytes: int
    advice: str = ""

    @property
    def schedule(self) -> Schedule:
        return self.timeline.schedule


def run(options: argparse.Namespace) -> int:
    """Places, schedules, verifies, prices and prints."""
    try:
        plan = _plan(options)
    except (FormFault, PlaceFault) as fault:
        raise CommandFault(str(fault), fault.hint) from None
    bars = sum(len(spans) for spans in plan.timeline.spans)
    if options.out and not options.out.endswith((".svg", ".html")):
        raise CommandFault(f"cannot draw to `{options.out}`", "end the name in .svg or .html")
    if options.out and bars > MOST_BARS:
        raise CommandFault(
            f"{bars:,} bars are too many for a picture (most: {MOST_BARS:,})", "--trace holds any number"
        )
    said, timelines = _figures(plan), {_title(plan): plan.timeline}
    print("\n".join([_title(plan), text(plan.timeline, COLUMNS), _letters(plan), *said]))
    if options.out:
        page = options.out.endswith(".html")
        drawn = html(timelines, _title(plan), said) if page else svg(timelines)
        write_text(Path(options.out), drawn)
        print(options.out)
    if options.trace:
        write_text(Path(options.trace), chrome_trace(timelines))
        print(options.trace)
    return 0


def _plan(options: argparse.Namespace) -> _Plan:
    bound, wanted = _bound(options)
    wish = _wish(options, bound.recipe)
    stages = dict(wish.mesh)[PIPE]
    microbatches = wanted or (2 * stages if bound.recipe is None else bound.recipe.microbatches)
    form = parse_form(wish.schedule)
    cluster = _cluster(options, bound)
    link = cluster.link(Mesh(wish.mesh), PIPE)
    blocks = blocks_of(step_of(bound), cluster.machine, link)
    memory = int((options.memory or cluster.memory_bytes / GIB) * GIB)
    schedule = build(form, stages, microbatches)
    placement = schedule.shape.placement
    if wish.balance:
        placed = by_hand(blocks, placement, wish.balance)
    else:
        flights = [[[-(-n // form.count) for n in one] for one in device] for device in in_flight(schedule)]
        fill = (stages - 1) / (microbatches * form.count)
        placed = place(blocks, placement, [memory] * stages, flights, fill)
    advice, prices = "", by_chunk(chunk_prices(blocks, placed.cuts))
    if form.name == TOKEN_SLICES:
        advice, prices = _sliced(bound, form, placed, cluster, link, stages, microbatches)
    schedule = build(form, stages, microbatches, prices)
    faults = verify(schedule, max(len(actions) for actions in schedule.actions))
    assert not faults, f"our own schedule: {faults[0]}"
    static = device_bytes(blocks, placed.cuts, placement)
    return _Plan(blocks, placed, simulate(schedule, prices, static), memory, advice)


def _cluster(options: argparse.Namespace, bound: Bound) -> Cluster:
    """The one that is named, else the recipe's, else H100s in nodes of eight."""
    if options.cluster is not None:
        return cluster_from(options.cluster, bound.spec)
    own = None if bound.recipe is None else recipe_cluster(bound.spec, bound.recipe)
    return own or H100_NODES


def _bound(options: argparse.Namespace) -> tuple[Bound, int | None]:
    """The spec with its microbatch's rows, and `--microbatches`, which a model without a recipe has too."""
    sets = sets_of(options)
    others = tuple(pair for pair in sets if pair[0] != MICROBATCHES)
    bound = bind(options.spec, others, options.size, options.model, options.recipe)
    if others == sets:
        return bound, None
    if bound.recipe is not None:
        bound = bind(options.spec, sets, options.size, options.model, options.recipe)
    return bound, int(dict(sets)[MICROBATCHES])


def _wish(options: argparse.Namespace, recipe: Recipe | None) -> Plan:
    """The recipe's plan with the command line's words, and a pipeline in any case."""
    own = recipe.plan if recipe is not None and recipe.plan is not None else Plan()
    stages = dict(own.mesh).get(PIPE, STAGES) if options.stages is None else options.stages
    if not 1 <= stages <= 4096:
        raise CommandFault(f"--stages {stages}: a pipeline has 1 to 4096 devices")
    plan = replace(own, mesh=((PIPE, stages),))
    return pipeline_of(options, plan, None if recipe is None else recipe.rows)


def _sliced(
    bound: Bound, form: Form, placed: Placed, cluster: Cluster, link: Link, stages: int, microbatches: int
) -> tuple[str, Prices]:  # fmt: skip
    """What is said of the slices, and what each takes. Raises SpecError for a model that looks ahead."""
    name = TOKENS if bound.recipe is None or bound.recipe.rows is None else bound.recipe.rows.dim
    size = bound.model.dims()[name].size if name in bound.model.dims() else None
    if size is None or size < max(2, form.count):
        raise CommandFault(f"there are no {form.count} slices of `{name}` to cut", "its sequences are too short")
    if len(form.slices) > 1 and sum(form.slices) != size:
        raise CommandFault(f"slices of {sum(form.slices)} tokens do not make up {name} = {size}")
    step = _halved(bound, name, size)
    blocks = SlicedBlocks(step, lambda node: node_time(node, cluster.machine).seconds, link)
    rows = step.dims()[blocks.batch].size if blocks.batch in step.dims() else None
    lengths = form.lengths(size)
    begins = [sum(lengths[:at]) for at in range(len(lengths))]

    def price(chunk: int, length: int, context: int) -> Price:
        return blocks.chunk(*placed.cuts[chunk], rows or 1, length, context)

    best = best_slices(Pipe(stages, microbatches, size, price))
    advice = (
        f"the best slices: token_slices({', '.join(map(str, best))})" if best[1:] else "the best: rows that are not cut"
    )
    known = [[price(chunk, *one) for one in zip(lengths, begins, strict=True)] for chunk in range(len(placed.cuts))]
    return advice, lambda chunk, microbatch, part: known[chunk][part]


def _halved(bound: Bound, dim: str, size: int) -> Graph:
    """The step of rows that are two slices."""
    if bound.recipe is None:
        lengths = (size - size // 2, size // 2)
        return probe_step(TokenSlices(lengths, dim)(Inline()(bound.model)))
    plan = bound.recipe.plan or Plan()
    return step_graph(
        bound.spec, replace(bound.recipe, plan=replace(plan, mesh=((PIPE, 1),), schedule=f"{TOKEN_SLICES}(2)"))
    )


def _title(plan: _Plan) -> str:
    shape = plan.schedule.shape
    return f"{plan.schedule.name}: {shape.devices} devices, {shape.microbatches} microbatches"


def _letters(plan: _Plan) -> str:
    weights = "W its weights' half, " if _halves(plan) else ""
    return f"F forward, B backward, {weights}. idle; a capital begins something new"


def _figures(plan: _Plan) -> list[str]:
    """The blocks of each device with its figures, the step's, and what is advised."""
    timeline = plan.timeline
    flying = enumerate(most_in_flight(plan.schedule))
    devices = [f"device {device}: {_device_text(plan, device, count)}" for device, count in flying]
    bubble, work = float(timeline.bubble), float(timeline.makespan - timeline.bubble)
    share = bubble / work if work else 0.0
    step = f"step {seconds_text(float(timeline.makespan))}, bubble {seconds_text(bubble)} ({share:.1%} of the work)"
    return [*devices, step, *([plan.advice] if plan.advice else [])]


def _device_text(plan: _Plan, device: int, flying: int) -> str:
    timeline = plan.timeline
    parts = [_chunk_text(plan, chunk) for chunk in plan.schedule.shape.chunks(device)]
    busy = float(timeline.busy(device) / timeline.makespan) if timeline.makespan else 0.0
    peak = timeline.peak_bytes[device]
    over = f", more than its {bytes_text(plan.memory_bytes)}" if peak > plan.memory_bytes else ""
    return f"{' and '.join(parts)}; busy {busy:.1%}, {flying} in flight, {bytes_text(peak)}{over}"


def _halves(plan: _Plan) -> bool:
    return any(action.kind is Kind.WEIGHT for actions in plan.schedule.actions for action in actions)


def _chunk_text(plan: _Plan, chunk: int) -> str:
    begin, end = plan.placed.cuts[chunk]
    first, last = plan.blocks[begin].name, plan.blocks[end - 1].name
    return first if first == last else f"{first} … {last}"
