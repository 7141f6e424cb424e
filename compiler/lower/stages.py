"""From the graphs of a mesh's devices to those of its stages: the axis `pipe` cuts a model along its chain of blocks.

In: local graphs by program (of the mesh without that axis) with how they lie on it, and what the plan says of the
pipeline. Out: the same `Spread` over the whole mesh, with a stage's graph for each device. Blocks are placed by what
the training step takes; the other programs are cut at the same blocks, and run forward alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...runtime.layout import REPLICATE, at_places
from ...runtime.layout import Mesh as RuntimeMesh
from ...runtime.program import is_step
from ..base.diagnostic import Diagnostic, SpecError
from ..ir.graph import DUMP, Graph
from ..ir.layout import PIPE, Mesh
from ..schedule.actions import Schedule
from ..schedule.chunks import Chunked, Homes, chunked
from ..schedule.forms import FormFault, parse_form
from ..schedule.orders import forward_only
from ..schedule.place import PlaceFault
from ..schedule.placing import Pipeline, placed_step
from ..schedule.stages import Stage, staged
from ..schedule.transfers import complete
from ..schedule.verify import BUFFERS, least_buffers, verify
from .outside import Spread, Whole
from .spread import LEAVES
from .unroll import without_scans


def piped(
    graphs: Mapping[str, Graph], spread: Spread, mesh: Mesh, wanted: Pipeline, dump: Sequence[str] = ()
) -> Spread:
    """How programs lie on a mesh with the axis `pipe`; `spread` says it of the mesh without.

    `dump` names values of the step that the stages which make them give as outputs; see `check_dumped`. Raises
    SpecError E0946.
    """
    try:
        return _piped(graphs, spread, mesh, wanted, dump)
    except (FormFault, PlaceFault) as fault:
        raise SpecError(Diagnostic("E0946", str(fault), hint=fault.hint)) from None


def _piped(graphs: Mapping[str, Graph], spread: Spread, mesh: Mesh, wanted: Pipeline, dump: Sequence[str]) -> Spread:
    kinds = [{name: without_scans(kind[name]) for name in graphs} for kind in (graphs, *spread.variants)]
    train = next(name for name in graphs if is_step(name))
    form = parse_form(wanted.schedule)
    placed = placed_step(kinds[0][train], form, mesh.size(PIPE), wanted)
    chunk_of, schedule = placed.chunk_of(kinds[0][train]), placed.schedule
    ahead = BUFFERS if not verify(schedule, BUFFERS) else least_buffers(schedule)
    stages: list[dict[str, list[Stage]]] = []
    homes: dict[str, Homes] = {}
    for local in kinds:
        cuts = {name: _cut(name, graph, chunk_of, schedule) for name, graph in local.items()}
        found, here = staged(cuts, ahead, dump)
        assert not homes or homes == here, "devices of one stage have the same parameters"
        stages.append(found)
        homes = here
    found = _spread(spread, mesh, stages, homes, {name: _leaves(graph) for name, graph in kinds[0].items()})
    return replace(found, schedules={name: _scheduled(name, graph, schedule) for name, graph in graphs.items()})


def check_dumped(spread: Spread, graphs: Mapping[str, Graph], dump: Sequence[str]) -> None:
    """Raises SpecError E0946 for a value that a program has on one device, and none of its stages."""
    for program, graph in graphs.items():
        given = {name for stages in spread.stages if program in stages for name in stages[program].graph.outputs}
        for name in dump:
            if name in graph and DUMP + name not in given:
                title = f"`{name}` is a sum of which the stages of the pipeline add up other parts"
                raise SpecError(Diagnostic("E0946", title, hint="dump its terms, or what is made of it"))


def _cut(name: str, graph: Graph, chunk_of: Mapping[str, int], schedule: Schedule) -> tuple[Chunked, Schedule]:
    schedule = _scheduled(name, graph, schedule)
    return chunked(graph, chunk_of, schedule.shape.placement, max(schedule.shape.slices)), schedule


def _scheduled(name: str, graph: Graph, schedule: Schedule) -> Schedule:
    """The training step's schedule, or that of a program without a backward."""
    if is_step(name):
        return schedule
    shape = replace(schedule.shape, slices=(1,) * graph.microbatches)
    return complete("forward", shape, forward_only(shape))


def _leaves(graph: Graph) -> dict[str, Whole]:
    """Parameters, states and data as one device has them."""
    leaves = [node for node in graph if node.op in LEAVES]
    return {node.id: Whole(tuple(d.size or 0 for d in node.outs[0].dims), ()) for node in leaves}


def _spread(
    spread: Spread, mesh: Mesh, stages: list[dict[str, list[Stage]]], homes: Mapping[str, Homes],
    leaves: Mapping[str, Mapping[str, Whole]],
) -> Spread:  # fmt: skip
    """Each device's class, and the layouts of the whole mesh."""
    at = mesh.order(PIPE)
    inner = RuntimeMesh(tuple(axis for axis in mesh.axes if axis[0] != PIPE))
    numbers: dict[tuple[int, int], int] = {}
    classes: list[int] = []
    for coordinate in mesh.coordinates():
        rank = inner.rank((*coordinate[:at], *coordinate[at + 1 :]))
        kind = (spread.classes[rank] if spread.classes else 0, coordinate[at])
        classes.append(numbers.setdefault(kind, len(numbers)))
    wholes: dict[str, dict[str, Whole]] = {}
    for program, own in leaves.items():
        lying = {**own, **spread.wholes.get(program, {})}
        wholes[program] = {n: _lying(whole, homes.get(n), len(inner.axes), at) for n, whole in lying.items()}
    found = tuple({name: some[stage] for name, some in stages[kind].items()} for kind, stage in numbers)
    return Spread(RuntimeMesh(mesh.axes), wholes, (), tuple(classes), found)


def _lying(whole: Whole, homes: Homes | None, axes: int, at: int) -> Whole:
    """A layout with a word for the axis of the pipeline."""
    words = whole.layout or (REPLICATE,) * axes
    word = REPLICATE if homes is None else at_places(homes)
    return Whole(whole.shape, (*words[:at], word, *words[at:]))
