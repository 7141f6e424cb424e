"""A pipeline's step as it ran beside what was foretold of it: the same schedule, two timelines.

In: a build and the folder of a run whose last step was timed (`runtime/stopwatch.py`). Out: both timelines, and text or
files that hold one above the other. Foretold are the seconds of each part; messages are taken to be there at once. Of a
mesh with further axes, the first pipeline is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..compiler.ir.layout import PIPE
from ..compiler.lower.timing import part_prices
from ..compiler.schedule.actions import COMPUTE, Action, Kind, Schedule, Shape
from ..compiler.schedule.simulate import Span, Timeline, simulate
from ..compiler.schedule.transfers import complete
from ..runtime.program import Build, Program, is_step
from ..runtime.stopwatch import PREPARE, UPDATE, Stretch, read
from .arguments import write_text
from .fault import CommandFault
from .gantt import chrome_trace, html, svg, text
from .numbers import seconds_text

COLUMNS = 96
SUFFIXES = (".svg", ".html", ".json")
FORETOLD = "part_seconds."
MEASURED, PREDICTED = "measured", "predicted"


def check_timeline(path: str, mesh: Mapping[str, int]) -> None:
    """Whether a timeline can be drawn there. Raises CommandFault."""
    if not path.endswith(SUFFIXES):
        raise CommandFault(f"cannot draw to `{path}`", f"end the name in {', '.join(SUFFIXES)}")
    if mesh.get(PIPE, 1) < 2:
        raise CommandFault("--timeline is of a pipeline", "for instance --mesh pipe=2")


def timelines(build: Build, run: Path) -> dict[str, Timeline]:
    """As it was measured, and as it was foretold. Raises OSError where no step was timed."""
    ranks = pipeline_ranks(build)
    name = next(name for name in build.programs if is_step(name))
    schedule = schedule_of([build.programs_of(rank)[name] for rank in ranks])
    seen = [tuple(map(_span, [device] * len(found), found)) for device, found in _read(run, ranks)]
    found = {MEASURED: Timeline(schedule, tuple(seen), (), (0,) * len(ranks))}
    seconds = {key.removeprefix(FORETOLD): n for key, n in build.predictions.items() if key.startswith(FORETOLD)}
    if seconds:
        found[PREDICTED] = _foretold(schedule, seconds)
    return found


def _read(run: Path, ranks: Sequence[int]) -> list[tuple[int, tuple[Stretch, ...]]]:
    return [(device, read(run, rank)) for device, rank in enumerate(ranks)]


def pipeline_ranks(build: Build) -> list[int]:
    """The processes of the first pipeline, stage by stage."""
    first = (0,) * len(build.mesh.axes)
    at = build.mesh.names.index(PIPE)
    return [build.mesh.rank((*first[:at], stage, *first[at + 1 :])) for stage in range(build.mesh.sizes[at])]


def schedule_of(programs: Sequence[Program]) -> Schedule:
    """The schedule that the stages' programs run, read off their order."""
    orders = [[_action(turn.part, turn.microbatch) for turn in program.order] for program in programs]
    computing = [[action for action in order if action.kind in COMPUTE] for order in orders]
    homes = {action.chunk: device for device, order in enumerate(computing) for action in order}
    slices = 1 + max(action.slice for order in computing for action in order)
    shape = Shape(tuple(homes[chunk] for chunk in sorted(homes)), (slices,) * programs[0].microbatches)
    return complete("as it ran", shape, computing)


def _action(part: str, microbatch: int) -> Action:
    """`forward 0.1` -> the forward of chunk 0, slice 1; what is done once a step counts as the update."""
    if part in (PREPARE, UPDATE):
        return Action(Kind.UPDATE)
    kind, _, unit = part.rpartition(" ")
    chunk, _, piece = unit.partition(".")
    return Action(Kind(kind), microbatch, int(chunk), int(piece or 0))


def _span(device: int, found: Stretch) -> Span:
    return Span(device, _action(found.part, found.microbatch), found.begin, found.end)


def _foretold(schedule: Schedule, seconds: Mapping[str, float]) -> Timeline:
    """Priced by parts, before it what is prepared, behind it the update."""
    priced = simulate(schedule, part_prices(seconds))
    early, late = seconds[PREPARE], seconds[UPDATE]
    spans: list[tuple[Span, ...]] = []
    for device, row in enumerate(priced.spans):
        moved = [
            Span(device, span.action, float(span.begin) + early, float(span.end) + early)
            for span in row
            if span.action.kind in COMPUTE
        ]
        end = moved[-1].end
        before, behind = Action(Kind.UPDATE), Action(Kind.UPDATE)
        spans.append((Span(device, before, 0.0, early), *moved, Span(device, behind, end, end + late)))
    return Timeline(schedule, tuple(spans), (), priced.peak_bytes)


def said(found: Mapping[str, Timeline]) -> str:
    """Both in a terminal, to one scale, and what each kind of work took."""
    seconds = max(float(timeline.makespan) for timeline in found.values())
    lines: list[str] = []
    for title, timeline in found.items():
        lines += [f"{title}: step {seconds_text(float(timeline.makespan))}, {busy(timeline)}"]
        lines += [text(timeline, COLUMNS, seconds)]
    return "\n".join([*lines, *kinds(found)])


def busy(timeline: Timeline) -> str:
    """`busy 91.2%, 88.0%`"""
    whole = float(timeline.makespan) or 1.0
    return "busy " + ", ".join(f"{float(timeline.busy(d)) / whole:.1%}" for d in range(len(timeline.spans)))


def kinds(found: Mapping[str, Timeline]) -> list[str]:
    """All of a step's work of each kind, device after device, in each timeline."""
    lines: list[str] = []
    for kind in Kind:
        sums = {title: _sums(timeline, kind) for title, timeline in found.items()}
        if any(any(row) for row in sums.values()):
            told = (f"{title} {' '.join(map(seconds_text, row))}" for title, row in sums.items())
            lines.append(f"  {kind.value}: {'; '.join(told)}")
    return lines


def _sums(timeline: Timeline, kind: Kind) -> list[float]:
    return [sum(float(span.end - span.begin) for span in spans if span.action.kind is kind) for spans in timeline.spans]


def write(path: Path, found: Mapping[str, Timeline], name: str) -> None:
    """As the file's ending says: a picture, a page, or a Chrome trace."""
    titled = {f"{name}, {title}": timeline for title, timeline in found.items()}
    if path.suffix == ".json":
        write_text(path, chrome_trace(titled))
    elif path.suffix == ".html":
        write_text(path, html(titled, name, [said(found).partition("\n")[0], *kinds(found)]))
    else:
        write_text(path, svg(titled))
