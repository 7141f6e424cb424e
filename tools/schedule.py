"""`partita schedule`: a model on a pipeline: its step's timeline, bubble and memory, before anything runs.

In: a spec, a number of stages and microbatches, a schedule's name. Out: which blocks stand where, a row per device, and
as files an SVG and a Chrome trace. Devices are H100s in one node; what is printed is priced, not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..compiler.cost.cluster import H100_NODES
from ..compiler.elaborate.causality import foresight
from ..compiler.elaborate.plan import PIPE
from ..compiler.elaborate.recipe import Plan, Recipe
from ..compiler.ir.graph import Graph
from ..compiler.schedule.actions import Kind, Schedule
from ..compiler.schedule.blocks import blocks_of, chunk_prices, device_bytes
from ..compiler.schedule.forms import Form, FormFault, build, parse_form
from ..compiler.schedule.place import Block, Placed, PlaceFault, by_hand, in_flight, place
from ..compiler.schedule.simulate import Price, Prices, Timeline, simulate
from ..compiler.schedule.verify import most_in_flight, verify
from .arguments import add_spec, add_which, sets_of, write_text
from .fault import CommandFault
from .gantt import chrome_trace, svg, text
from .mesh import MICROBATCHES, add_pipeline, pipeline_of
from .numbers import bytes_text, seconds_text
from .specs import Bound, bind, step_of

EXAMPLE = "partita schedule specs/models/gpt2.partita --size small --stages 4 --microbatches 8 --schedule zero_bubble"
STAGES = 4  # where neither the command line nor the plan says it
COLUMNS = 96
MOST_BARS = 20_000  # in a picture; a trace holds any number
GIB = 1 << 30
TOKENS = "T"  # the dim that token slices cut


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    parser.add_argument("--stages", type=int, metavar="P", help="devices in the pipeline (default: the plan's, else 4)")
    add_pipeline(parser)
    parser.add_argument("--memory", type=float, metavar="GIB", help="of each device (default 80)")
    parser.add_argument("-o", "--out", metavar="FILE", help="also draw the timeline to this .svg")
    parser.add_argument("--trace", metavar="FILE", help="also write a Chrome trace, which Perfetto opens")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that is printed."""

    blocks: Sequence[Block]
    placed: Placed
    timeline: Timeline
    memory_bytes: int

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
    if options.out and not options.out.endswith(".svg"):
        raise CommandFault(f"cannot draw to `{options.out}`", "end the name in .svg")
    if options.out and bars > MOST_BARS:
        raise CommandFault(
            f"{bars:,} bars are too many for a picture (most: {MOST_BARS:,})", "--trace holds any number"
        )
    _print(plan)
    if options.out:
        write_text(Path(options.out), svg(plan.timeline, _title(plan)))
        print(options.out)
    if options.trace:
        write_text(Path(options.trace), chrome_trace(plan.timeline))
        print(options.trace)
    return 0


def _plan(options: argparse.Namespace) -> _Plan:
    bound, wanted = _bound(options)
    wish = _wish(options, bound.recipe)
    stages = dict(wish.mesh)[PIPE]
    microbatches = wanted or (2 * stages if bound.recipe is None else bound.recipe.microbatches)
    form = parse_form(wish.schedule)
    step = step_of(bound)
    shares = _shares(form, bound, step)
    blocks = blocks_of(step, H100_NODES.machine, H100_NODES.levels[0].link)
    memory = int((options.memory or H100_NODES.memory_bytes / GIB) * GIB)
    schedule = build(form, stages, microbatches)
    placement = schedule.shape.placement
    if wish.balance:
        placed = by_hand(blocks, placement, wish.balance)
    else:
        flights = [[[-(-n // form.count) for n in one] for one in device] for device in in_flight(schedule)]
        fill = (stages - 1) / microbatches
        placed = place(blocks, placement, [memory] * stages, flights, fill)
    prices = _sliced(chunk_prices(blocks, placed.cuts), shares)
    schedule = build(form, stages, microbatches, prices)
    faults = verify(schedule, max(len(actions) for actions in schedule.actions))
    assert not faults, f"our own schedule: {faults[0]}"
    return _Plan(blocks, placed, simulate(schedule, prices, device_bytes(blocks, placed.cuts, placement)), memory)


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


def _shares(form: Form, bound: Bound, step: Graph) -> list[float]:
    """The part of a microbatch's tokens that each slice has. Only what looks at no later token can be cut."""
    if form.count == 1:
        return [1.0]
    full = (f"{node.id} sees all positions" for node in bound.model.nodes("attention") if node.attrs["mask"] == "full")
    ahead = foresight(bound.model) or next(full, None)
    if ahead is not None:
        raise CommandFault("only a causal model can be cut into token slices", ahead)
    tokens = step.dims().get(TOKENS)
    if tokens is None or tokens.size is None or tokens.size < form.count:
        raise CommandFault(f"there are no {form.count} slices of `{TOKENS}` to cut", "its sequences are too short")
    if len(form.slices) > 1 and sum(form.slices) != tokens.size:
        raise CommandFault(f"slices of {sum(form.slices)} tokens do not make up {TOKENS} = {tokens.size}")
    lengths = form.slices if len(form.slices) > 1 else (1,) * form.count
    return [length / sum(lengths) for length in lengths]


def _sliced(prices: Sequence[Price], shares: Sequence[float]) -> Prices:
    """A slice's price is its share of the tokens: that later slices attend to more is not in it."""
    table = [
        [
            replace(
                p, forward=p.forward * s, input=p.input * s, weight=p.weight * s, transfer=p.transfer * s,
                kept_bytes=int(p.kept_bytes * s), held_bytes=int(p.held_bytes * s),
            )
            for s in shares
        ]
        for p in prices
    ]  # fmt: skip
    return lambda chunk, microbatch, part: table[chunk][part]


def _title(plan: _Plan) -> str:
    shape = plan.schedule.shape
    return f"{plan.schedule.name}: {shape.devices} devices, {shape.microbatches} microbatches"


def _print(plan: _Plan) -> None:
    """The timeline, the blocks of each device, and the figures."""
    timeline = plan.timeline
    print(_title(plan))
    print(text(timeline, COLUMNS))
    weights = "W its weights' half, " if _halves(plan) else ""
    print(f"F forward, B backward, {weights}. idle; a capital begins something new")
    for device, flying in enumerate(most_in_flight(plan.schedule)):
        print(f"device {device}: {_device_text(plan, device, flying)}")
    bubble, work = float(timeline.bubble), float(timeline.makespan - timeline.bubble)
    share = bubble / work if work else 0.0
    print(f"step {seconds_text(float(timeline.makespan))}, bubble {seconds_text(bubble)} ({share:.1%} of the work)")
    if max(plan.schedule.shape.slices) > 1:
        print("slices are priced by their share of the tokens")


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
