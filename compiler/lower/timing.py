"""How long a program takes, before it runs: its instructions are walked, and each call of a kernel is foretold.

In: a program, its modules (whose every fx node was run on the meta device, so that shapes, types and layouts are facts)
and a machine's table. Out: the seconds of each call with the value of the spec that it computes, and their sum. A
Python kernel is run on the meta device, to see what it calls. This is one device's own work; messages between devices
are priced by `cost/cluster.py`. Nothing runs beside anything else, but copies beside a device that is not its own host
(`cost/host.py`): they take what their part's computation does not hide.
"""

from __future__ import annotations

import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from ...runtime.call import Call
from ...runtime.calls import call_of, traced
from ...runtime.program import Fetch, Offload, Program, Run
from ..cost.host import Host
from ..cost.table import Table, roofline_s
from ..ir.types import DType
from ..schedule.actions import COMPUTE, FETCHES, Kind, Schedule
from ..schedule.simulate import Price, Prices, simulate
from .modules import Module
from .profile import placed


@dataclass(frozen=True, slots=True)
class Part:
    """All runs of one line of a module in a step. `place`: the spec's line and the value; `bound`: what limits it."""

    place: str
    phase: str
    kernel: str
    calls: int
    seconds: float
    bound: str


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step's time and its parts, in the order of the run."""

    seconds: float
    parts: tuple[Part, ...]


def calls(node: fx.Node) -> list[Call]:
    """The kernels that an fx node calls."""
    args = cast("Sequence[Any]", fx.map_arg(node.args, lambda used: used.meta["val"]))
    kwargs = cast("Mapping[str, Any]", fx.map_arg(node.kwargs, lambda used: used.meta["val"]))
    if isinstance(node.target, OpOverload):
        return [call_of(node.target, args, kwargs, node.meta["val"])]
    with torch.device("meta"):
        return traced(lambda: cast("Callable[..., Any]", node.target)(*args, **kwargs))


def module_time(graph: fx.Graph, table: Table, host: Host | None = None) -> list[Part]:
    """One run of a module, call by call. host: where it runs, if that is not the machine that was timed."""
    found: list[Part] = []
    for node in graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        for call in calls(node):
            if host is not None:
                there = host.traffic_s(call.bytes)
                found.append(Part(node.meta["origin"], "", call.kernel, 1, there, "host memory"))
                continue
            bound = roofline_s(call, table.machine)[1]
            found.append(Part(node.meta["origin"], "", call.kernel, 1, table.seconds(call), bound))
    return found


def step_time(
    program: Program, modules: Mapping[str, Module], table: Table, known: dict[str, list[Part]] | None = None
) -> StepTime:
    """One run of a program: the microbatch's instructions as often as there are microbatches. known: one run of each
    module that was foretold before, by its name."""
    once: dict[str, list[Part]] = {} if known is None else known
    host = table.cluster().host if table.device.startswith("cuda") else None
    parts: list[Part] = []
    every = {"microbatch": program.microbatch, **program.parts}
    stages = ((name, instructions, program.microbatches) for name, instructions in every.items())
    for phase, instructions, times in (("prepare", program.prepare, 1), *stages, ("update", program.update, 1)):
        for instruction in instructions:
            if isinstance(instruction, Offload | Fetch) and host is None:
                parts.append(_copied(instruction, phase, times, table))
            if not isinstance(instruction, Run):
                continue
            name = instruction.module
            if name not in once:
                once[name] = module_time(modules[name].graph, table, host if instruction.host else None)
            parts.extend(
                replace(
                    part,
                    place=placed(part.place, instruction.layer),
                    phase=phase,
                    calls=times,
                    seconds=part.seconds * times,
                )
                for part in once[name]
            )
    parts += [] if host is None else _waits(program, parts, host)
    return StepTime(sum(part.seconds for part in parts), tuple(parts))


def _copied(moved: Offload | Fetch, phase: str, times: int, table: Table) -> Part:
    """A copy down or up, on a machine whose host is its own processor: nothing runs beside it."""
    size = math.prod(moved.shape)
    call = Call("copy_", moved.dtype, (size,), 0, 2 * size * DType(moved.dtype).itemsize_bytes)
    bound = roofline_s(call, table.machine)[1]
    return Part(f"{moved.op} {moved.output}", phase, call.kernel, times, times * table.seconds(call), bound)


def _waits(program: Program, parts: Sequence[Part], host: Host) -> Iterator[Part]:
    """What copies take beside the device's computation: of a part of the program its own, what comes up for a lone
    microbatch before it begins beside that, and what comes up ahead of a backward beside that one's."""
    lone = program.microbatches == 1 and not program.order
    behind = {name: _reader(name, program.parts) for name in program.parts} | (
        {"prepare": "microbatch"} if lone else {}
    )
    device, down, up = defaultdict[str, float](float), Counter[str](), Counter[str]()
    for part in parts:
        device[part.phase] += part.seconds / part.calls if part.bound != "host memory" else 0.0
    every = {"prepare": program.prepare, "microbatch": program.microbatch, **program.parts, "update": program.update}
    for phase, instructions in every.items():
        for one in instructions:
            if isinstance(one, Offload | Fetch):
                size = math.prod(one.shape) * DType(one.dtype).itemsize_bytes
                (down if isinstance(one, Offload) else up)[behind.get(phase, phase)] += size
    for phase in (phase for phase in every if down[phase] or up[phase]):
        seconds = host.waiting_s(down[phase], up[phase], device[phase], device[phase])
        times = 1 if phase in ("prepare", "update") else program.microbatches
        yield Part(f"copies of {phase}", phase, "copy_", times, times * seconds, "host link")


def _reader(name: str, parts: Collection[str]) -> str:
    """The part that a part's copies come up for; another part itself."""
    kind, _, place = name.rpartition(" ")
    return next((f"{k} {place}" for k in COMPUTE if kind in _fetches(k) and f"{k} {place}" in parts), name)


def part_seconds(stages: Iterable[tuple[Program, StepTime]]) -> dict[str, float]:
    """One run of each part of a pipeline's programs by its name (`forward 0`), where it takes longest; and of
    `prepare` and `update`."""
    found = defaultdict[str, float](float)
    for program, time in stages:
        seconds = defaultdict[str, float](float)
        for part in time.parts:
            seconds[part.phase] += part.seconds
        for name in ("prepare", "update"):
            found[name] = max(found[name], seconds[name])
        for name in program.parts:
            kind, _, place = name.rpartition(" ")
            if Kind(kind) in COMPUTE:
                copied = sum(seconds[f"{fetch} {place}"] for fetch in _fetches(Kind(kind)))
                found[name] = max(found[name], (seconds[name] + copied) / program.microbatches)
    return dict(found)


def _fetches(kind: Kind) -> Collection[Kind]:
    """What comes up from the host for a part: nothing runs beside it here."""
    ahead = {Kind.BACKWARD: FETCHES, Kind.INPUT: (Kind.FETCH,), Kind.WEIGHT: (Kind.FETCH_WEIGHT,)}
    return ahead.get(kind, ())


def part_prices(seconds: Mapping[str, float]) -> Prices:
    """What a schedule's simulation asks, of the seconds of parts. Messages take no time."""

    def price(chunk: int, microbatch: int, piece: int) -> Price:
        def of(kind: Kind) -> float:
            return seconds.get(f"{kind.value} {chunk}.{piece}" if piece else f"{kind.value} {chunk}", 0.0)

        return Price(of(Kind.FORWARD), of(Kind.BACKWARD) + of(Kind.INPUT), of(Kind.WEIGHT))

    return price


def pipeline_seconds(seconds: Mapping[str, float], schedule: Schedule) -> float:
    """The time of a pipeline's step: its parts laid out by the schedule, before and behind them the slowest stage's.

    Messages take no time, so it is what computing and waiting for it takes.
    """
    return float(simulate(schedule, part_prices(seconds)).makespan) + seconds["prepare"] + seconds["update"]
